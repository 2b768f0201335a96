"""Keeps full garbage collections away from the pacer: with hundreds of participants one takes a tenth of a second.

What a participant is made of lives as long as its session. Some seconds after the last one came, all that there is
is taken out of the collections (gc.freeze); when somebody goes it is put back, so that nothing of it stays for
ever. Off by default: only a process that does nothing else turns it on.
"""

from __future__ import annotations

import asyncio
import gc

#: Seconds without a new session after which what there is counts as settled.
SETTLED = 2.0


class Calm:
    """Knows the media sessions of a process."""

    def __init__(self) -> None:
        #: Whether anything is done at all.
        self.enabled = False
        self._sessions = 0
        self._frozen = self._left = False
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Calm {self._sessions} sessions {'frozen' if self._frozen else 'collected'}>"

    def came(self) -> None:
        """A session is connected."""
        self._sessions += 1
        if not self.enabled or self._left:
            return
        self._disarm()
        self._timer = asyncio.get_running_loop().call_later(SETTLED, self._settled)

    def went(self) -> None:
        """A session is over. While others last, nothing is frozen any more: what it leaves could be in it."""
        self._sessions -= 1
        self._left = self._sessions > 0
        self._disarm()
        if self._frozen:
            self._frozen = False
            gc.unfreeze()

    def _settled(self) -> None:
        self._timer = None
        self._frozen = True
        gc.freeze()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


calm = Calm()
