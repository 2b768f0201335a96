"""A bad network with a seed: loss in bursts, delay, jitter, bandwidth. Pure; time is a parameter.

What ``tc netem`` does in the kernel, inside the client and for each participant: the same seed and packets give
the same losses and delays. One :class:`Shaper` is one direction of one participant's way to the bridge.
"""

from __future__ import annotations

import random
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bot.load.units import Bitrate, Duration, Fraction

Direction = Literal["up", "down"]


class Shaping(BaseModel):
    """What the way of a group of participants does to packets."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    loss: Fraction = Field(default=0.0, lt=1, description="Share of packets that is lost, as 0.02 or '2%'")
    burst: float = Field(
        default=1.0,
        ge=1,
        le=10_000,
        allow_inf_nan=False,
        strict=True,
        description="Packets that are lost in a row, on average (Gilbert-Elliott); 1 = each by itself",
    )
    delay: Duration = Field(default=0.0, ge=0, le=60, description="Time that every packet takes, one way")
    jitter: Duration = Field(
        default=0.0, ge=0, le=60, description="The delay varies by so much, up and down, evenly spread"
    )
    reorder: bool = Field(
        default=False, strict=True, description="Packets may overtake each other where the delay varies"
    )
    bandwidth: Bitrate = Field(
        default=0.0, ge=0, le=1e12, description="Bit/s that get through, headers included; 0 = no limit"
    )
    allowance: Duration = Field(
        default=0.02, ge=0, le=10, description="What the limit lets through at once after a pause, as time"
    )
    queue: Duration = Field(
        default=0.2, ge=0, le=60, description="Longest wait before the limit; what would wait longer is lost"
    )
    direction: Literal["both", "up", "down"] = Field(
        default="both", description="What is shaped: what is sent (up), what is received (down), or both"
    )
    seed: int | None = Field(
        default=None, strict=True, description="Seed of loss and jitter [default: that of the scenario]"
    )

    def applies(self, direction: Direction) -> bool:
        """Whether this direction is shaped at all."""
        return self.direction in {"both", direction}


class Shaper:
    """One direction of one way. ``seed`` is any text: the same text, the same fate."""

    def __init__(self, shaping: Shaping, seed: str) -> None:
        self._shaping = shaping
        # A seed of text goes through SHA-512 and so is the same in every process, unlike hash().
        self._random = random.Random(seed)
        self._losses = _Losses(shaping.loss, shaping.burst, self._random)
        self._limit = _Limit(shaping) if shaping.bandwidth else None
        self._latest = float("-inf")
        self.passed = 0
        #: Lost by chance, and lost because the queue was full.
        self.lost = 0
        self.overflowed = 0

    def __repr__(self) -> str:
        return f"<Shaper {self.passed} passed, {self.lost} lost, {self.overflowed} overflowed>"

    def feed(self, size: int, now: float) -> list[float]:
        """When a packet of ``size`` bytes (IP and UDP headers included) given at ``now`` arrives; empty: never.

        ``now`` is a monotonic time in seconds and does not go back.
        """
        leaves = self._limit.feed(size, now) if self._limit else now
        if leaves is None:
            self.overflowed += 1
            return []
        if self._losses.next():
            self.lost += 1
            return []
        self.passed += 1
        return [self._arrival(leaves)]

    def _arrival(self, leaves: float) -> float:
        shaping = self._shaping
        delay = shaping.delay
        if shaping.jitter:
            delay = max(0.0, delay + self._random.uniform(-shaping.jitter, shaping.jitter))
        arrives = leaves + delay
        if not shaping.reorder:
            arrives = max(arrives, self._latest)
        self._latest = max(arrives, self._latest)
        return arrives


class _Losses:
    """Gilbert's model: all is lost in the bad state and nothing in the good one.

    The bad state is left with probability 1/burst and so lasts ``burst`` packets on average; the good one is left
    so that the share of time in the bad one is ``loss`` (E. N. Gilbert, Capacity of a Burst-Noise Channel, 1960).
    """

    def __init__(self, loss: float, burst: float, chance: random.Random) -> None:
        self._chance = chance
        # Bursts can't be shorter than chance makes them: where much is lost, losses follow each other anyhow.
        burst = max(burst, 1 / (1 - loss))
        self._leave_bad = 1 / burst
        self._leave_good = loss / (1 - loss) / burst
        self._bad = loss > 0 and chance.random() < loss

    def next(self) -> bool:
        """Whether the next packet is lost."""
        if not self._leave_good:
            return False
        lost = self._bad
        if self._chance.random() < (self._leave_bad if self._bad else self._leave_good):
            self._bad = not self._bad
        return lost


class _Limit:
    """A token bucket of ``allowance`` seconds before a queue of ``queue`` seconds, both at the rate of the link.

    Kept as one number, the time when the bucket would be full again: GCRA of ITU-T I.371, virtual scheduling.
    """

    def __init__(self, shaping: Shaping) -> None:
        self._rate = shaping.bandwidth
        self._allowance = shaping.allowance
        self._queue = shaping.queue
        self._full_at = float("-inf")

    def feed(self, size: int, now: float) -> float | None:
        """When the packet leaves; None where the queue has no room for it."""
        begins = max(self._full_at, now)
        # Measured until it begins to leave: on a slow link a packet alone may take longer than the queue is.
        if begins - self._allowance - now > self._queue:
            return None
        self._full_at = begins + size * 8 / self._rate
        return max(now, self._full_at - self._allowance)
