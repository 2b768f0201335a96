"""What the participants of a process move: rows for the live table, events for logs and metrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from bot.bridge.streams import RemoteStream
from bot.events import EventSink, MediaStatistics, StreamStatistics
from bot.participant.config import ParticipantConfig
from bot.participant.participant import Traffic
from bot.participant.states import State
from bot.service.traffic import Interval, TrafficMeter


class Reportable(Protocol):
    """The part of a participant that a report needs."""

    @property
    def config(self) -> ParticipantConfig:
        """Who it is."""
        ...

    @property
    def state(self) -> State:
        """Where it stands."""
        ...

    def sample(self) -> tuple[Traffic, tuple[RemoteStream, ...]]:
        """What it has moved, and what it receives of each remote source, of one moment."""
        ...


@dataclass(frozen=True, slots=True)
class Row:
    """One participant now: totals of its session, and what moved since the row before."""

    config: ParticipantConfig
    state: State
    traffic: Traffic
    interval: Interval
    streams: tuple[RemoteStream, ...]


class Sampler:
    """Makes rows, one meter a participant. ``now`` in seconds, monotonic."""

    def __init__(self, now: float) -> None:
        self._began = now
        self._meters: dict[str, TrafficMeter] = {}

    def rows(self, participants: Iterable[Reportable], now: float) -> list[Row]:
        """One row for each participant, in their order."""
        return [self._row(item, now) for item in participants]

    def _row(self, item: Reportable, now: float) -> Row:
        key = f"{item.config.room}/{item.config.name}"
        meter = self._meters.setdefault(key, TrafficMeter(self._began))
        traffic, streams = item.sample()
        return Row(item.config, item.state, traffic, meter.feed(traffic, now), streams)


def emit_statistics(rows: Sequence[Row], emit: EventSink) -> None:
    """One event for each participant that holds a media session, and one for each source that it receives."""
    for row in rows:
        if row.traffic.session is not None:
            emit(_participant_event(row))
            for stream in row.streams:
                emit(_stream_event(row.config, stream))


def _participant_event(row: Row) -> MediaStatistics:
    return MediaStatistics(
        room=row.config.room,
        participant=row.config.name,
        seconds=row.interval.seconds,
        packets_sent=row.interval.packets_sent,
        packets_received=row.interval.packets_received,
        packets_lost=row.interval.lost,
        bytes_sent=row.interval.bytes_sent,
        bytes_received=row.interval.bytes_received,
        bitrate_sent=row.interval.bitrate_sent,
        bitrate_received=row.interval.bitrate_received,
        streams=row.traffic.streams,
        frames_decoded=row.interval.decoded,
        frames_dropped=row.interval.dropped,
        bandwidth=row.traffic.bandwidth,
    )


def _stream_event(config: ParticipantConfig, stream: RemoteStream) -> StreamStatistics:
    return StreamStatistics(
        room=config.room,
        participant=config.name,
        source=stream.source,
        owner=stream.owner,
        media=stream.media,
        codec=stream.codec,
        packets=stream.packets,
        bytes=stream.bytes,
        frames=stream.frames,
        lost=stream.lost,
        repaired=stream.repaired,
        reordered=stream.reordered,
        jitter=stream.jitter,
        bitrate=stream.bitrate,
        first_frame=stream.first_frame,
    )
