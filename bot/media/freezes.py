"""When a gap between two pictures is a freeze (W3C webrtc-stats: freezeCount, pauseCount). Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Gaps that give the usual one, and how many are needed (as Chromium's VideoQualityObserver).
WINDOW, NEEDED = 30, 5
#: A longer gap is a pause of the sender, no freeze (seconds).
PAUSE = 5.0
#: A freeze is so many usual gaps, and so many seconds more than one.
TIMES, MORE = 3, 0.15


def shortest(usual: float) -> float:
    """The shortest gap that is a freeze, where ``usual`` is the average of those before it; in seconds."""
    return max(TIMES * usual, usual + MORE)


def shortest_of_all(usual: NDArray[Any]) -> NDArray[Any]:
    """As ``shortest``, for many streams."""
    found: NDArray[Any] = np.maximum(TIMES * usual, usual + MORE)
    return found
