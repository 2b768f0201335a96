"""A report of a meeting for people: a table, or a line for each participant. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.table import Table

from bot.monitor.meeting import MeetingSeen, ParticipantSeen, Quality, SourceSeen
from bot.monitor.thresholds import show

#: Rows that are shown; what is beyond is counted only. The worst come first.
MAX_ROWS = 40
_STYLES = {Quality.GOOD: "green", Quality.POOR: "yellow", Quality.BAD: "red", Quality.LOST: "red"}
_COLUMNS = (
    "sound kbit/s",
    "loss",
    "voice",
    "picture kbit/s",
    "loss",
    "frames/s",
    "frozen",
    "jitter",
    "round trip",
)


def title(seen: MeetingSeen) -> str:
    """One line for the whole room."""
    counted = [f"{sum(p.quality is quality for p in seen.participants)} {quality}" for quality in Quality]
    some = ", ".join(item for item in counted if not item.startswith("0 "))
    text = f"{seen.room}: {len(seen.participants)} participants" + (f" ({some})" if some else "")
    if not seen.connected:
        return f"{text}; the monitor has no media"
    return f"{text}; the monitor's own way may be to blame" if seen.own else text


def lines(seen: MeetingSeen) -> str:
    """Plain lines: the room, and each participant below it."""
    found = [title(seen), *(f"  {_line(item)}" for item in worst_first(seen.participants))]
    return "\n".join(found) + "\n"


def table(seen: MeetingSeen) -> Table:
    """The same as a table for a terminal."""
    found = Table(title=title(seen), title_justify="left", pad_edge=False)
    for name in ("participant", "quality"):
        found.add_column(name, no_wrap=True)
    for name in _COLUMNS:
        found.add_column(name, justify="right", no_wrap=True)
    ordered = worst_first(seen.participants)
    for item in ordered[:MAX_ROWS]:
        found.add_row(_name(item), f"[{_STYLES.get(item.quality, 'dim')}]{item.quality}[/]", *_cells(item))
    if len(ordered) > MAX_ROWS:
        found.add_row(f"{len(ordered) - MAX_ROWS} more")
    return found


def summary(people: Iterable[ParticipantSeen]) -> str:
    """What the whole stay was for everybody."""
    return "In all:\n" + "".join(f"  {_whole(item)}\n" for item in people)


def worst_first(people: Iterable[ParticipantSeen]) -> list[ParticipantSeen]:
    """The order of reports."""
    return sorted(people, key=lambda item: -item.quality.rank)


def _name(item: ParticipantSeen) -> str:
    # Whoever is in the room writes his name: no markup, no control characters.
    plain = "".join(char for char in item.nick if char.isprintable() and char not in "[]")
    return f"{plain} ({item.endpoint})" if plain else item.endpoint


def _whole(item: ParticipantSeen) -> str:
    total = sum(item.qualities.values())
    shares = ", ".join(f"{name} {share / total:.0%}" for name, share in item.qualities.items()) if total else "–"
    due = item.packets + item.lost
    loss = show(item.lost / due, "") if due else "–"
    return (
        f"{_name(item)}: {item.present:.0f} s, {shares}; lost {loss}, "
        f"{item.freezes} freezes of {item.frozen:.1f} s, voice {item.voice:.0f} s"
    )


def _line(item: ParticipantSeen) -> str:
    words = [f"{source.media} {_source(source)}" for source in item.sources]
    if item.told is not None and item.told.round_trip is not None:
        words.append(f"round trip {show(item.told.round_trip, 's')}")
    speaks = ", speaks" if item.speaking else ""
    text = f"{_name(item)}: {item.quality}{speaks}"
    if item.quality not in (Quality.GOOD, Quality.UNKNOWN):
        text += f", {item.cause}"
    return "; ".join([text, *words])


def _source(item: SourceSeen) -> str:
    if item.muted:
        return "muted"
    if not item.packets:
        return "nothing"
    return " ".join(_numbers(item))


def _numbers(item: SourceSeen) -> Iterator[str]:
    yield f"{item.codec} {item.bitrate / 1000:.0f} kbit/s"
    if item.loss is not None:
        yield f"loss {show(item.loss, '')}"
    if item.media == "video":
        yield f"{item.frame_rate:.0f} frames/s"
        if item.freezes or item.frozen:
            yield f"frozen {show(item.frozen, '')}"
    else:
        yield f"voice {item.voice:.0%}"


def _cells(item: ParticipantSeen) -> list[str]:
    sound = [source for source in item.sources if source.media == "audio"]
    pictures = [source for source in item.sources if source.media == "video"]
    voice = max((source.voice for source in sound), default=0.0)
    trip = item.told.round_trip if item.told is not None else None
    return [
        _rate(sound),
        _loss(sound),
        f"{voice:.0%}" if sound else "–",
        _rate(pictures),
        _loss(pictures),
        f"{max((source.frame_rate for source in pictures), default=0.0):.0f}" if pictures else "–",
        show(max((source.frozen for source in pictures), default=0.0), "") if pictures else "–",
        show(max((source.jitter for source in item.sources), default=0.0), "s") if item.sources else "–",
        show(trip, "s") if trip is not None else "–",
    ]


def _rate(sources: list[SourceSeen]) -> str:
    if sources and all(item.muted for item in sources):
        return "muted"
    return f"{sum(item.bitrate for item in sources) / 1000:.0f}" if sources else "–"


def _loss(sources: list[SourceSeen]) -> str:
    found = [item.loss for item in sources if item.loss is not None]
    return show(max(found), "") if found else "–"
