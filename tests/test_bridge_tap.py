"""What a tap hears of a session's packets: the same of both engines."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from bot.bridge import rtcp
from bot.bridge.inbound import InboundMedia
from bot.bridge.payloads import PayloadFormat
from bot.bridge.rtcp import SenderReport
from bot.bridge.rtp import RtpHeader, build, parse_header, wrap_rtx
from bot.bridge.streams import NamedSource
from bot.bridge.tap import Tapped
from bot.engine.inbound import EngineInbound

VP8 = PayloadFormat(100, "video", "vp8", 90_000, nack=True, pli=True)
RTX = PayloadFormat(101, "video", "rtx", 90_000, apt=100)


class Ear:
    """A tap that notes what it hears."""

    def __init__(self) -> None:
        self.inbound: Tapped | None = None
        self.heard: list[tuple[str, int, int]] = []
        self.others: list[int] = []
        self.left: list[int] = []

    def opened(self, inbound: Tapped) -> None:
        self.inbound = inbound

    def closed(self) -> None:
        self.inbound = None

    def packet(self, known: PayloadFormat, header: RtpHeader, data: bytes, now: float) -> None:
        assert parse_header(data) == header
        self.heard.append((known.codec, header.ssrc, header.sequence))

    def report(self, report: SenderReport, now: float) -> None:
        raise NotImplementedError

    def moved(self, ssrcs: Iterable[int]) -> None:
        self.others += ssrcs

    def gone(self, ssrcs: Iterable[int]) -> None:
        self.left += ssrcs


def video(sequence: int, ssrc: int = 1) -> bytes:
    return build(payload_type=100, sequence=sequence, timestamp=3000 * sequence, ssrc=ssrc, body=b"\x10\x01a")


def make(kind: type[InboundMedia | EngineInbound]) -> tuple[InboundMedia | EngineInbound, Ear]:
    ear = Ear()
    inbound = kind({100: VP8, 101: RTX}, ssrc=7, started=0.0, tap=ear)
    inbound.name([NamedSource(1, "video", "a-v0", "a", rtx=2)])
    return inbound, ear


def feed(inbound: InboundMedia | EngineInbound, *packets: bytes, now: float = 1.0) -> None:
    for data in packets:
        inbound.packet(data, parse_header(data), now)


@pytest.mark.parametrize("kind", [InboundMedia, EngineInbound])
def test_a_tap_hears_media_and_what_was_repaired_once(kind: type[InboundMedia | EngineInbound]) -> None:
    inbound, ear = make(kind)
    assert ear.inbound is inbound
    feed(inbound, video(1), video(3))
    lost = video(2)
    repair = wrap_rtx(lost, parse_header(lost), payload_type=101, sequence=9, ssrc=2)
    feed(inbound, repair, repair, now=1.1)
    feed(inbound, build(payload_type=99, sequence=1, timestamp=0, ssrc=5, body=b"x"), now=1.1)
    assert ear.heard == [("vp8", 1, 1), ("vp8", 1, 3), ("vp8", 1, 2)]


@pytest.mark.parametrize("kind", [InboundMedia, EngineInbound])
def test_a_tap_hears_of_ssrcs_that_carry_something_else_or_nothing(
    kind: type[InboundMedia | EngineInbound],
) -> None:
    inbound, ear = make(kind)
    feed(inbound, video(1))
    assert (ear.others, ear.left) == ([], [])
    inbound.name([NamedSource(1, "video", "b-v0", "b", rtx=2)])
    assert (ear.others, ear.left) == ([1], [])
    inbound.forget([1])
    assert (ear.others, ear.left) == ([1], [1])


@pytest.mark.parametrize("kind", [InboundMedia, EngineInbound])
def test_a_key_frame_is_asked_for_until_the_tap_has_it(kind: type[InboundMedia | EngineInbound]) -> None:
    inbound, ear = make(kind)
    feed(inbound, video(1))
    assert ear.inbound is not None
    ear.inbound.want_key_frame(1, 1.0)
    assert inbound.due(1.0) == [rtcp.pli(7, 1)]
    assert inbound.due(inbound.next_deadline()) == [rtcp.pli(7, 1)]
    ear.inbound.got_key_frame(1)
    assert inbound.due(1000.0) == []
