"""How often something may be done. Pure: time is a parameter."""

from __future__ import annotations


class TokenBucket:
    """Allows ``rate`` a second in the long run and ``burst`` at once."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._at: float | None = None

    def __repr__(self) -> str:
        return f"<TokenBucket {self._tokens:.1f} of {self._burst}>"

    def take(self, now: float) -> bool:
        """Whether one more is allowed at ``now`` (seconds, monotonic); it counts if so."""
        if self._at is not None:
            self._tokens = min(float(self._burst), self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
