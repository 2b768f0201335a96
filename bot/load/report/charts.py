"""Line charts as SVG, for a page without scripts, in any size. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from bot.load import units

Points = Sequence[float | None]
#: Points of a line at most: more than the pixels of a chart show nothing more.
MAX_POINTS = 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 12, 8, 24


@dataclass(frozen=True, slots=True)
class Line:
    """One line: a value for each second; None is a gap."""

    label: str
    points: Points

    @property
    def known(self) -> list[float]:
        """The values without gaps."""
        return [value for value in self.points if value is not None]


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines of one unit over the seconds of a run, the first ``shaded`` of them shaded, with ``shade_text``."""

    title: str
    unit: str
    lines: Sequence[Line]
    seconds: float
    shaded: float = 0.0
    shade_text: str = ""

    def svg(self, width: int, height: int) -> Markup:
        """The picture, in that many CSS pixels."""
        return _Picture(self, width, height).draw()

    @property
    def largest(self) -> float:
        """The largest value of all lines."""
        return max(max(line.known) for line in self.lines)

    @property
    def scale(self) -> tuple[float, str]:
        """What the values are divided by, and the unit that they are in then."""
        return units.scale(self.largest, self.unit)

    @property
    def legend(self) -> list[tuple[str, str]]:
        """Each line's label with its largest value."""
        return [(line.label, f"max {units.show(max(line.known), self.unit)}") for line in self.lines]


class _Picture:
    def __init__(self, chart: Chart, width: int, height: int) -> None:
        self._chart = chart
        self._width, self._height = width, height
        factor, _ = chart.scale
        self._ticks = [tick * factor for tick in nice_ticks(chart.largest / factor)]

    def draw(self) -> Markup:
        chart = self._chart
        inside = Markup("").join([*self._grid(), *self._times(), *self._shade(), *self._lines()])
        return Markup(
            '<svg viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-label="{title}">{inside}</svg>'
        ).format(w=self._width, h=self._height, title=f"{chart.title} over time", inside=inside)

    def _x(self, at: float) -> float:
        return _LEFT + (self._width - _LEFT - _RIGHT) * at / self._chart.seconds

    def _y(self, value: float) -> float:
        return self._height - _BOTTOM - (self._height - _TOP - _BOTTOM) * value / self._ticks[-1]

    def _grid(self) -> Iterable[Markup]:
        for tick in self._ticks:
            y = self._y(tick)
            yield Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
                _LEFT, self._width - _RIGHT, y, y
            )
            yield _text(_LEFT - 6, y + 4, units.three(tick / self._chart.scale[0]), "end")

    def _times(self) -> Iterable[Markup]:
        step = nice_seconds(self._chart.seconds, (self._width - _LEFT) // 70)
        for number in range(int(self._chart.seconds / step) + 1):
            at = number * step
            yield _text(min(self._x(at), self._width - 16), self._height - 6, clock(at), "middle")

    def _shade(self) -> Iterable[Markup]:
        if self._chart.shaded:
            x = self._x(min(self._chart.shaded, self._chart.seconds))
            yield Markup(
                '<rect class="shade" x="{}" y="{}" width="{:.1f}" height="{}"><title>{}</title></rect>'
            ).format(_LEFT, _TOP, x - _LEFT, self._height - _TOP - _BOTTOM, self._chart.shade_text)

    def _lines(self) -> Iterable[Markup]:
        for number, line in enumerate(self._chart.lines):
            step = -(-len(line.points) // MAX_POINTS)
            path = _path(thinned(line.points, step), lambda index, step=step: self._x(index * step), self._y)  # type: ignore[misc]
            yield Markup('<path class="line c{}" d="{}"><title>{}</title></path>').format(
                number + 1, path, line.label
            )


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, escape(text))


def _path(points: Points, x: Callable[[int], float], y: Callable[[float], float]) -> str:
    """Moves after a gap, lines elsewhere; a value alone is drawn as a dot by its round ends."""
    parts, drawing = [], False
    for index, value in enumerate(points):
        if value is None:
            drawing = False
            continue
        at = f"{x(index):.1f} {y(max(0.0, value)):.1f}"
        parts.append(f"L{at}" if drawing else f"M{at}L{at}")
        drawing = True
    return "".join(parts)


def thinned(points: Points, step: int) -> list[float | None]:
    """Averages of ``step`` values each; None where all of them are gaps."""
    if step <= 1:
        return list(points)
    groups = [
        [value for value in points[start : start + step] if value is not None]
        for start in range(0, len(points), step)
    ]
    return [sum(group) / len(group) if group else None for group in groups]


def nice_ticks(largest: float, number: int = 4) -> list[float]:
    """Round values from 0 to ``largest`` or a little more."""
    if largest <= 0:
        return [0.0, 1.0]
    raw = largest / number
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    return [step * index for index in range(math.ceil(largest / step * 0.999) + 1)]


def nice_seconds(seconds: float, number: int) -> float:
    """A step of the clock that gives ``number`` labels at most."""
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400)
    return next((step for step in steps if seconds / step <= max(1, number)), 28_800)


def clock(seconds: float) -> str:
    """``1:05``, or ``1:00:05`` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
