"""Which streams of a participant are decoded now, where not all of them are. Pure: time is a parameter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from math import inf

from bot.jingle.model import Media


@dataclass(slots=True)
class _Candidate:
    ssrc: int
    media: Media
    #: The turn in which it was chosen last, -1 for never.
    served: int = -1


class Rotation:
    """Chooses up to ``limit`` streams, others each ``dwell`` seconds; who waited longest comes first.

    Nothing is left to chance: the same streams at the same times give the same choices. A picture is chosen with
    one sound of its endpoint (``endpoint_of``), so that both can be compared; a sound alone where its endpoint
    sends no picture, and after the pictures.
    """

    def __init__(
        self, limit: int, *, dwell: float = inf, endpoint_of: Callable[[int], str | None] = lambda _: None
    ) -> None:
        self._limit = limit
        self._dwell = dwell
        self._endpoint_of = endpoint_of
        self._candidates: dict[int, _Candidate] = {}
        self._turn = 0
        self._turned = -inf
        #: SSRCs of those that are decoded now.
        self.chosen: dict[int, None] = {}

    def __repr__(self) -> str:
        return f"<Rotation {len(self.chosen)} of {len(self._candidates)} turn {self._turn}>"

    def __contains__(self, ssrc: int) -> bool:
        return ssrc in self._candidates

    def __len__(self) -> int:
        return len(self._candidates)

    @property
    def waiting(self) -> bool:
        """Whether there are streams that are not chosen."""
        return len(self._candidates) > len(self.chosen)

    def add(self, ssrc: int, media: Media, now: float) -> None:
        """Take a new stream; it is chosen at once where there is room for it."""
        if not self._candidates:
            self._turned = now
        self._candidates[ssrc] = _Candidate(ssrc, media)
        if len(self.chosen) < self._limit:
            self._choose(ssrc)
        elif media == "video" and self._dwell < inf and (sound := self._lone_sound()) is not None:
            del self.chosen[sound]
            self._candidates[sound].served = -1  # it was no turn
            self._choose(ssrc)

    def remove(self, ssrc: int) -> None:
        """Drop a stream that is gone; ``fill`` gives its place to another."""
        self._candidates.pop(ssrc, None)
        self.chosen.pop(ssrc, None)

    def fill(self) -> None:
        """Give free places to those that wait, once for all that were removed."""
        room = self._limit - len(self.chosen)
        if room > 0 and self.waiting:
            order = (item.ssrc for group in self._groups() for item in group)
            for ssrc in list(islice((ssrc for ssrc in order if ssrc not in self.chosen), room)):
                self._choose(ssrc)

    def turn(self, now: float) -> bool:
        """Choose others where it is time for that."""
        if self.next_deadline() > now:
            return False
        self._turn += 1
        self._turned = now
        self.chosen = {}
        for group in self._groups():
            taken = group[: self._limit - len(self.chosen)]
            if len(taken) == len(group) or not self.chosen:
                group[0].served = self._turn  # a picture that lacks its sound comes again, with that
            self.chosen.update(dict.fromkeys(item.ssrc for item in taken))
            if len(self.chosen) >= self._limit:
                break
        return True

    def next_deadline(self) -> float:
        """When ``turn`` is to be called; infinity where nothing waits."""
        return self._turned + self._dwell if self.waiting else inf

    def _choose(self, ssrc: int) -> None:
        self.chosen[ssrc] = None
        self._candidates[ssrc].served = self._turn

    def _lone_sound(self) -> int | None:
        """The last chosen sound whose endpoint has no picture among the chosen."""
        seen = {self._endpoint_of(ssrc) for ssrc in self.chosen if self._candidates[ssrc].media == "video"}
        return next(
            (
                ssrc
                for ssrc in reversed(self.chosen)
                if self._candidates[ssrc].media == "audio" and (self._endpoint_of(ssrc) or ssrc) not in seen
            ),
            None,
        )

    def _groups(self) -> list[list[_Candidate]]:
        """Each picture with a sound of its endpoint, and the sounds that are left; who waited longest first."""
        sounds: dict[str | int, list[_Candidate]] = {}
        for item in self._candidates.values():
            if item.media == "audio":
                sounds.setdefault(self._endpoint_of(item.ssrc) or item.ssrc, []).append(item)
        groups = []
        for item in self._candidates.values():
            if item.media == "video":
                mine = sounds.get(self._endpoint_of(item.ssrc) or item.ssrc)
                groups.append([item, mine.pop(0)] if mine else [item])
        groups += [[item] for left in sounds.values() for item in left]
        return sorted(groups, key=lambda group: group[0].served)  # stable: pictures first, then as they came
