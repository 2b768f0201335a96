"""A whole session that sends clips: what the bridge gets, asks for and is answered."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fractions import Fraction
from functools import lru_cache

import numpy as np
import pytest

from bot.bridge import rtcp, rtp
from bot.bridge.depacketize import unpack
from bot.bridge.session import OwnSource
from bot.bridge.transport import MediaTransport
from bot.clips.model import Clip
from bot.clips.spec import LayerSpec, SoundSpec, VideoCodec, VideoSpec
from bot.engine.session import SharedSession
from bot.errors import UnsupportedMediaError
from bot.jingle.model import Content, Jingle
from bot.media.clips import ClipLibrary
from bot.media.synthetic import SyntheticVideoTrack
from tests.bridge_support import LOOPBACK, recorded_offer, until

LAYERS = (LayerSpec(160, 90, 60_000), LayerSpec(320, 180, 120_000), LayerSpec(640, 360, 300_000))
SECOND = Fraction(1)


@lru_cache(maxsize=8)
def clip(kind: str) -> Clip:
    """Small clips, each made once for all tests."""
    spec: VideoSpec | SoundSpec = SoundSpec(duration=SECOND)
    if kind != "sound":
        layers = LAYERS if kind == "simulcast" else LAYERS[:1]
        codec: VideoCodec = "h264" if kind == "h264" else "vp8"
        spec = VideoSpec(codec=codec, layers=layers, fps=10, duration=SECOND, key_interval=Fraction(1, 2))

    async def make() -> Clip:
        library = ClipLibrary(keep=False)
        try:
            return await library.get(spec)
        finally:
            await library.close()

    with asyncio.Runner() as runner:
        return runner.run(make())


class Far:
    """The bridge's end of a session."""

    def __init__(self, transport: MediaTransport, session: SharedSession, offer: Jingle) -> None:
        self.transport, self.session, self.offer = transport, session, offer
        self.packets: list[tuple[bytes, rtp.RtpHeader]] = []
        self.rtcp: list[rtcp.Packet] = []
        transport.dtls.on_rtp = lambda data: self.packets.append((data, rtp.parse_header(data)))
        transport.dtls.on_rtcp = lambda data: self.rtcp.extend(rtcp.parse(data))

    def of(self, ssrc: int) -> list[tuple[bytes, rtp.RtpHeader]]:
        return [(data, header) for data, header in self.packets if header.ssrc == ssrc]

    async def flowing(self, ssrc: int, count: int = 5) -> None:
        wanted = len(self.of(ssrc)) + count
        await until(lambda: len(self.of(ssrc)) >= wanted)

    async def quiet(self, ssrc: int) -> None:
        async with asyncio.timeout(10):
            while True:
                before = len(self.of(ssrc))
                await asyncio.sleep(0.35)
                if len(self.of(ssrc)) == before:
                    return

    def content(self, media: str) -> Content:
        return next(item for item in self.offer.contents if item.media == media)

    def keys(self, ssrc: int) -> int:
        return sum(unpack("vp8", header, data).starts_key for data, header in self.of(ssrc))


@asynccontextmanager
async def connected() -> AsyncIterator[Far]:
    transport = MediaTransport("bridge", addresses=LOOPBACK)
    offer = recorded_offer(await transport.gather())
    session = SharedSession(offer, addresses=LOOPBACK, endpoint="deadbeef")
    far = Far(transport, session, offer)
    try:
        own = await session.gather()
        await asyncio.gather(transport.connect(own, 10), session.connect(timeout=10))
        yield far
    finally:
        await session.close()
        await transport.close()


def camera(far: Far, layers: int = 1) -> OwnSource:
    return far.session.ssrcs.source("deadbeef", "v0", layers=layers)


@pytest.fixture(scope="module", autouse=True)
def clips() -> None:
    """Encode before any event loop of a test runs."""
    for kind in ("sound", "single", "simulcast", "h264"):
        clip(kind)


async def test_all_layers_are_sent_and_each_is_what_the_bridge_wants() -> None:
    async with connected() as far:
        source = camera(far, 3)
        low, middle, high = (ssrc for ssrc, _ in source.layers)
        assert far.session.publish_clip(source, clip("simulcast")) is not None
        for ssrc in (low, middle, high):
            await far.flowing(ssrc)
            assert unpack("vp8", far.of(ssrc)[0][1], far.of(ssrc)[0][0]).starts_key
        far.session.adjust(source.name, muted=False, max_height=200)
        await far.quiet(high)
        await far.flowing(middle)
        far.session.adjust(source.name, muted=False, max_height=0)
        await far.quiet(low)
        before = len(far.of(high))
        far.session.adjust(source.name, muted=False, max_height=None)
        await far.flowing(high)
        data, header = far.of(high)[before]
        assert unpack("vp8", header, data).starts_key
        far.session.adjust(source.name, muted=True, max_height=None)
        await far.quiet(low)
        sequences = [header.sequence for _, header in far.of(high)]
        assert sequences == [(sequences[0] + step) & 0xFFFF for step in range(len(sequences))]
        packets, octets = far.session.sent
        assert packets == len([1 for _, header in far.packets if header.ssrc in (low, middle, high)])
        assert octets > packets
        totals = far.session.totals()
        assert (totals.video_sent, totals.audio_sent) == (octets, 0)


async def test_ids_are_those_of_the_offer_and_transport_wide_numbers_are_those_of_the_transport() -> None:
    async with connected() as far:
        sound, picture = far.session.ssrcs.source("deadbeef", "a0"), camera(far)
        far.session.publish_clip(sound, clip("sound"))
        far.session.publish_clip(picture, clip("single"))
        await far.flowing(sound.ssrc, 30)
        await far.flowing(picture.ssrc, 5)
        opus, vp8 = far.content("audio").payload_type("opus"), far.content("video").payload_type("vp8")
        assert opus is not None
        assert vp8 is not None
        assert {header.payload_type for _, header in far.of(sound.ssrc)} == {opus.id}
        assert {header.payload_type for _, header in far.of(picture.ssrc)} == {vp8.id}
        level = next(item.id for item in far.content("audio").header_extensions if "audio-level" in item.uri)
        assert min(rtp.audio_level(data, header, level) or 127 for data, header in far.of(sound.ssrc)) < 60
        wide = next(item.id for item in far.content("video").header_extensions if "transport-wide" in item.uri)
        numbers = [rtp.transport_sequence(data, header, wide) for data, header in far.packets]
        assert numbers == list(range(len(numbers)))


async def test_what_is_asked_for_is_sent_again_and_key_frames_come_soon() -> None:
    async with connected() as far:
        source = camera(far)
        far.session.publish_clip(source, clip("single"))
        await far.flowing(source.ssrc, 8)
        data, header = far.of(source.ssrc)[-1]
        await far.transport.send(rtcp.nack(7, source.ssrc, [header.sequence]))
        assert source.rtx is not None
        await until(lambda: bool(far.of(source.rtx or 0)))
        again, repaired = far.of(source.rtx)[0]
        found = rtp.unwrap_rtx(again, repaired, payload_type=header.payload_type, ssrc=source.ssrc)
        assert found is not None
        assert found[header.length :] == data[header.length :]
        for request in (rtcp.pli(7, source.ssrc), rtcp.fir(7, source.ssrc, 3)):
            keys = far.keys(source.ssrc)
            await far.transport.send(request)
            await until(lambda keys=keys: far.keys(source.ssrc) > keys, timeout=2)  # type: ignore[misc]
        await far.transport.send(rtcp.fir(7, source.ssrc, 3))  # once more the same
        await far.transport.send(rtcp.pli(7, 12345))
        await far.transport.send(rtcp.nack(7, 12345, [1]))


async def test_reports_give_the_round_trip_and_feedback_what_came() -> None:
    async with connected() as far:
        source = camera(far)
        sender = far.session.publish_clip(source, clip("single"))
        assert sender is not None
        await until(lambda: any(isinstance(item, rtcp.SenderReport) for item in far.rtcp))
        report = next(item for item in far.rtcp if isinstance(item, rtcp.SenderReport))
        assert report.ssrc == source.ssrc
        assert 0 < report.packets <= len(far.of(source.ssrc))
        block = rtcp.ReportBlock(source.ssrc, 0, 0, 1, 0, report.ntp >> 16 & 0xFFFFFFFF, 0)
        await far.transport.send(rtcp.receiver_reports(7, [block]))
        await until(lambda: far.session.round_trip is not None)
        far.session.request_key_frame(source.name)
        remb = struct.pack("!4sBBHL", b"REMB", 1, 0, 50_000, source.ssrc)
        await far.transport.send(rtcp.feedback(rtcp.PSFB, rtcp.FMT_REMB, 7, 0, remb))
        await until(lambda: far.session.uplink.estimate(asyncio.get_running_loop().time()) is not None)


async def test_a_source_that_goes_says_so_and_another_clip_goes_on_where_it_was() -> None:
    async with connected() as far:
        source = camera(far)
        assert far.session.publish_clip(source, clip("single")) is not None
        await far.flowing(source.ssrc)
        far.session.publish_clip(source, clip("h264"))
        h264 = far.content("video").payload_type("h264")
        assert h264 is not None
        await until(lambda: far.of(source.ssrc)[-1][1].payload_type == h264.id)
        await far.flowing(source.ssrc)
        assert list(far.session.clips) == [source.name]
        await far.session.unpublish(source.name)
        await far.session.unpublish(source.name)
        await until(lambda: any(isinstance(item, rtcp.Bye) and item.ssrcs == (source.ssrc,) for item in far.rtcp))
        sequences = [header.sequence for _, header in far.of(source.ssrc)]
        assert sequences == [(sequences[0] + step) & 0xFFFF for step in range(len(sequences))]
        assert far.session.sent[0] == len(sequences)
        assert far.session.clips == {}


async def test_a_track_goes_on_in_the_stream_of_a_clip() -> None:
    async with connected() as far:
        source = camera(far)
        far.session.publish_clip(source, clip("single"))
        await far.flowing(source.ssrc, 12)
        far.session.end_clip(source.name)
        track = SyntheticVideoTrack("room", "name", 160, 90, 10)
        await far.session.publish(source, track, "vp8")
        await far.flowing(source.ssrc, 12)
        headers = [header for _, header in far.of(source.ssrc)]
        steps = np.diff([header.sequence for header in headers]) % 65_536
        assert set(steps.tolist()) == {1}
        passed = np.diff([header.timestamp for header in headers]) % 2**32
        assert passed.max() < 90_000
        far.session.request_key_frame(source.name)
        assert far.session.sent[0] >= len(headers)


async def test_what_is_not_offered_is_refused_or_left_alone() -> None:
    async with connected() as far:
        far.session.check(camera(far), "vp8")
        with pytest.raises(UnsupportedMediaError, match="has no theora"):
            far.session.check(camera(far), "theora")
        only = tuple(item for item in far.offer.contents if item.media == "video")
        far.session._offer = Jingle(action=far.offer.action, sid=far.offer.sid, contents=only)
        assert far.session.publish_clip(far.session.ssrcs.source("deadbeef", "a0"), clip("sound")) is None


async def test_before_it_is_connected_nothing_can_be_sent() -> None:
    transport = MediaTransport("bridge", addresses=LOOPBACK)
    session = SharedSession(recorded_offer(await transport.gather()), addresses=LOOPBACK)
    try:
        with pytest.raises(ConnectionError, match="not connected"):
            session.publish_clip(session.ssrcs.source("", "v0"), clip("single"))
    finally:
        await session.close()
        await transport.close()
