"""Who speaks: the dominant speaker from the audio levels that senders put into their packets (RFC 6464). Pure."""

from __future__ import annotations

#: Below this level (in -dBov, 127 is silence) somebody counts as silent.
SILENCE = 100
#: A new speaker has to be louder by so many dB, on average, and the old one to have had this long (seconds).
MARGIN, HOLD = 6.0, 1.0
_WEIGHT = 0.05


class SpeakerDetector:
    """``feed`` each audio packet's level; tells when the dominant speaker changes."""

    def __init__(self) -> None:
        #: Endpoint id of who speaks, None before anybody did.
        self.dominant: str | None = None
        self._since = 0.0
        self._loudness: dict[str, float] = {}

    def feed(self, endpoint: str, level: int, now: float) -> bool:
        """Take a level (-dBov, 0 loud to 127 silent); True when somebody else dominates now."""
        loudness = float(max(0, SILENCE - level))
        average = self._loudness.get(endpoint, 0.0)
        self._loudness[endpoint] = average = average + (loudness - average) * _WEIGHT
        if endpoint == self.dominant or average <= 1.0:
            return False
        if self.dominant is not None:
            current = self._loudness[self.dominant]
            if average < current + MARGIN or now - self._since < HOLD:
                return False
        self.dominant, self._since = endpoint, now
        return True

    def remove(self, endpoint: str) -> None:
        """Forget an endpoint."""
        self._loudness.pop(endpoint, None)
        if self.dominant == endpoint:
            self.dominant = None
