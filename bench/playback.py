"""The peer's end of one receiver: recorded streams as a bridge forwards them, evenly paced. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

from bench.recorded import AUDIO_FPS, AUDIO_TICKS, FPS, LEVEL, SECONDS, Recorded, record
from bot.bridge import rtcp
from bot.embedded.offer import AUDIO_LEVEL_ID, TRANSPORT_CC_ID
from bot.jingle.model import MediaSources, Source, SourceGroup, SourceMap

AUDIO_TYPE, VIDEO_TYPE = 111, 100
_SEND_TIME_ID = 3
_VIDEO_HEAD = struct.Struct("!BBHLLHHBBHBHx")
_AUDIO_HEAD = struct.Struct("!BBHLLHHBBBHxxx")
_ONE_BYTE = 0xBEDE
_NTP_EPOCH = 2_208_988_800
_MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Step:
    """One packet of the loop: ``due`` in seconds from its start, ``stream`` counts pictures and sounds."""

    due: float
    stream: int
    video: bool
    second: int
    stamp: int
    payload: bytes


def audio_ssrc(number: int) -> int:
    """SSRC of the sound of remote participant ``number``."""
    return 0x0A000000 + number


def video_ssrc(number: int) -> int:
    """SSRC of the picture of remote participant ``number``."""
    return 0x0B000000 + number


def remote_sources(streams: int) -> SourceMap:
    """The sources of so many remote participants, as a focus tells them."""
    audio, video, groups = [], [], []
    for number in range(streams):
        owner = f"{0xE0000000 + number:08x}"
        audio.append(Source(audio_ssrc(number), f"{owner}-a0", owner))
        repair = 0x0C000000 + number
        video += [Source(ssrc, f"{owner}-v0", owner) for ssrc in (video_ssrc(number), repair)]
        groups.append(SourceGroup("FID", (video_ssrc(number), repair)))
    return SourceMap(MediaSources(tuple(audio)), MediaSources(tuple(video), tuple(groups)))


@lru_cache(maxsize=8)
def script(streams: int) -> tuple[Step, ...]:
    """All packets of the loop with so many remote participants, who are spread in time."""
    steps: list[Step] = []
    for number in range(streams):
        phase = SECONDS * (number + 0.5) / streams
        steps += _pictures(record(), number, phase) + _sounds(record(), number, phase)
    return tuple(sorted(steps, key=lambda step: step.due))


def _pictures(media: Recorded, number: int, phase: float) -> list[Step]:
    found = []
    for index, payloads in enumerate(media.payloads):
        due = (index / FPS + phase) % SECONDS
        for at, payload in enumerate(payloads):
            last = at == len(payloads) - 1
            step = Step(due, 2 * number, True, last << 7 | VIDEO_TYPE, round(due * 90_000), payload)
            found.append(step)
    return found


def _sounds(media: Recorded, number: int, phase: float) -> list[Step]:
    found = []
    for index, payload in enumerate(media.audio):
        due = (index / AUDIO_FPS + phase) % SECONDS
        found.append(Step(due, 2 * number + 1, False, AUDIO_TYPE, round(due * AUDIO_FPS * AUDIO_TICKS), payload))
    return found


class Playback:
    """The packets for one receiver, each when it is due."""

    def __init__(self, streams: int, now: float, wall: float) -> None:
        self._script = script(streams)
        self._streams = streams
        self._began = now
        self._wall = wall - now
        self._at = 0
        self._loop = 0
        self._sequences = [0] * (2 * streams)
        self._octets = [0] * (2 * streams)
        self._number = 0
        self._reported = 0

    def due(self, now: float) -> list[bytes]:
        """RTP packets that are due at ``now``, not yet encrypted."""
        packets = []
        elapsed = now - self._began - self._loop * SECONDS
        send_time = int(now * (1 << 18)) & 0xFFFFFF
        while (step := self._script[self._at]).due <= elapsed:
            packets.append(self._packet(step, send_time))
            self._at += 1
            if self._at == len(self._script):
                self._at = 0
                self._loop += 1
                elapsed -= SECONDS
        return packets

    def _packet(self, step: Step, send_time: int) -> bytes:
        number = self._number
        self._number = (number + 1) & 0xFFFF
        sequence = self._sequences[step.stream]
        self._sequences[step.stream] = sequence + 1
        self._octets[step.stream] += len(step.payload)
        if step.video:
            head = _VIDEO_HEAD.pack(
                0x90,
                step.second,
                sequence & 0xFFFF,
                (step.stamp + self._loop * SECONDS * 90_000) & _MASK,
                video_ssrc(step.stream // 2),
                _ONE_BYTE,
                2,
                _SEND_TIME_ID << 4 | 2,
                send_time >> 16,
                send_time & 0xFFFF,
                TRANSPORT_CC_ID << 4 | 1,
                number,
            )
        else:
            head = _AUDIO_HEAD.pack(
                0x90,
                step.second,
                sequence & 0xFFFF,
                (step.stamp + self._loop * SECONDS * AUDIO_FPS * AUDIO_TICKS) & _MASK,
                audio_ssrc(step.stream // 2),
                _ONE_BYTE,
                2,
                AUDIO_LEVEL_ID << 4,
                0x80 | LEVEL,
                TRANSPORT_CC_ID << 4 | 1,
                number,
            )
        return head + step.payload

    def report(self, now: float) -> bytes:
        """The sender report of one stream, of the next with each call."""
        stream = self._reported
        self._reported = (stream + 1) % (2 * self._streams)
        video = stream % 2 == 0
        rate = 90_000 if video else AUDIO_FPS * AUDIO_TICKS
        ssrc = video_ssrc(stream // 2) if video else audio_ssrc(stream // 2)
        ntp = int((now + self._wall + _NTP_EPOCH) * (1 << 32))
        stamp = int((now - self._began) * rate) & _MASK
        report = rtcp.SenderReport(ssrc, ntp, stamp, self._sequences[stream], self._octets[stream])
        return rtcp.sender_report(report) + rtcp.sdes(ssrc, f"remote-{stream // 2}")
