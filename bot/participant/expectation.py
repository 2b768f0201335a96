"""When a media session that does not come is given up on, and what is advertised at the next try. Pure.

Jicofo asks a bridge for SCTP where the participant advertises it. A bridge that has it off refuses, and Jicofo
then takes that bridge for failed: nobody in the room gets a session of it any more, nobody is told, and when the
minute is over (``jicofo.bridge.failure-reset-threshold``) nobody is invited again either. What a participant
advertises is read once, when he enters. So only another join helps, after that minute and without SCTP.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

#: Seconds after which an expected session is given up on: Jicofo's minute, and some for the way.
PATIENCE = 65.0
#: New joins for want of a session, after which the participant only stands and waits.
MAX_TRIES = 3


class SessionExpectation:
    """How long one stay has waited for a session that could come: the focus is there, and somebody else."""

    def __init__(self) -> None:
        self._since: float | None = None

    def __repr__(self) -> str:
        return f"<SessionExpectation since {self._since}>"

    def feed(self, now: float, *, expected: bool, patience: float) -> bool:
        """Note whether one is expected at ``now`` (seconds); True when it has been in vain for too long."""
        if not expected:
            self._since = None
            return False
        if self._since is None:
            self._since = now
        return now - self._since >= patience


class SctpAdvertising:
    """Whether SCTP is advertised to one deployment, learnt from the sessions that come or do not.

    ``auto``: it may be left out. Without it an offer has to have a WebSocket; else SCTP was right, and the bridge
    was away for another reason.
    """

    def __init__(self, *, auto: bool = True, advertised: bool = True) -> None:
        self._auto = auto
        #: Whether the next join advertises it.
        self.advertised = advertised
        self._tries: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<SctpAdvertising {self.advertised}{', not sure' if self._auto else ''}>"

    def offered(self, who: str, *, tried: bool, web_socket: bool) -> bool:
        """Take an offer that ``who`` got, with SCTP advertised or not.

        False: it has no channel for us, another join with SCTP has to bring one.
        """
        del self._tries[who]
        useless = self._auto and not tried and not web_socket
        if self._auto:
            self._auto = False  # this is what the deployment takes, for the life of the process
            self.advertised = tried or useless
        return not useless

    def patience(self, *, tried: bool) -> float:
        """Seconds to wait for an expected session; none where others have learnt that it won't come that way."""
        return PATIENCE if self._auto or tried == self.advertised else 0.0

    def given_up(self, who: str, *, tried: bool) -> bool:
        """No session came for ``who``: whether to join anew, as ``advertised`` says by now."""
        if self._tries[who] >= MAX_TRIES:
            return False
        self._tries[who] += 1
        if self._auto and tried == self.advertised:  # else another participant was faster
            self.advertised = not tried
        return True


@lru_cache(maxsize=256)
def sctp_advertising(url: str, domain: str, bridge_channel: str) -> SctpAdvertising:
    """The one of a deployment, for all participants and the life of the process."""
    del url, domain
    return SctpAdvertising(auto=bridge_channel == "auto", advertised=bridge_channel in ("auto", "sctp"))
