"""What aiortc's sender really does with what comes back: key frames, retransmissions, reports, extensions."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamTrack
from av import AudioFrame, VideoFrame

from bot.bridge import depacketize, rtcp, rtp
from bot.bridge._aiortc import audio_level
from bot.bridge.session import MediaSession, OwnSource
from bot.bridge.transport import MediaTransport
from bot.jingle.model import EXT_ABS_SEND_TIME, EXT_AUDIO_LEVEL, EXT_TRANSPORT_CC, Content, Jingle
from bot.media.synthetic import SyntheticAudioTrack, SyntheticVideoTrack
from tests.bridge_support import LOOPBACK, call, recorded_offer, until


class Far:
    """The bridge's end of one session."""

    def __init__(self, transport: MediaTransport, session: MediaSession, offer: Jingle) -> None:
        self.transport, self.session, self.offer = transport, session, offer
        self.packets: list[tuple[bytes, rtp.RtpHeader, float]] = []
        self.rtcp: list[rtcp.Packet] = []
        transport.dtls.on_rtp = self._rtp
        transport.dtls.on_rtcp = lambda data: self.rtcp.extend(rtcp.parse(data))

    def _rtp(self, data: bytes) -> None:
        self.packets.append((data, rtp.parse_header(data), asyncio.get_running_loop().time()))

    def of(self, ssrc: int) -> list[tuple[bytes, rtp.RtpHeader]]:
        return [(data, header) for data, header, _ in self.packets if header.ssrc == ssrc]

    def key_frames(self) -> int:
        found = self.of(self.session.ssrcs.video)
        return sum(depacketize.unpack("vp8", header, data).starts_key for data, header in found)

    def content(self, media: str) -> Content:
        return next(item for item in self.offer.contents if item.media == media)


@asynccontextmanager
async def sending(
    *tracks: MediaStreamTrack, session: Callable[..., MediaSession] = MediaSession
) -> AsyncIterator[Far]:
    transport = MediaTransport("bridge", addresses=LOOPBACK)
    offer = recorded_offer(await transport.gather())
    media = session(offer, addresses=LOOPBACK)
    far = Far(transport, media, offer)
    try:
        own = await media.gather()
        await asyncio.gather(
            transport.connect(own, 10), media.connect(list(tracks), video_codec="vp8", timeout=10)
        )
        yield far
    finally:
        await media.close()
        await transport.close()
        for track in tracks:
            track.stop()


def video() -> SyntheticVideoTrack:
    return SyntheticVideoTrack("room", "a", 160, 90)


@pytest.mark.parametrize(
    "request_of",
    [lambda ssrc: rtcp.pli(5, ssrc), lambda ssrc: rtcp.fir(5, ssrc, 0)],
    ids=["PLI (RFC 4585)", "FIR (RFC 5104)"],
)
async def test_a_key_frame_on_request(request_of: Callable[[int], bytes]) -> None:
    async with sending(video()) as far:
        ssrc = far.session.ssrcs.video
        await until(lambda: len(far.of(ssrc)) >= 5)
        assert far.key_frames() == 1
        await far.transport.send(request_of(ssrc))
        await until(lambda: far.key_frames() == 2)


async def test_a_repeated_intra_request_is_one_command() -> None:
    async with sending(video()) as far:
        ssrc = far.session.ssrcs.video
        await until(lambda: len(far.of(ssrc)) >= 5)
        for _ in range(3):
            await far.transport.send(rtcp.fir(5, ssrc, 7))
            await until(lambda: far.key_frames() == 2)
        count = len(far.of(ssrc))
        await until(lambda: len(far.of(ssrc)) >= count + 5)
        assert far.key_frames() == 2
        await far.transport.send(rtcp.fir(5, ssrc, 8) + rtcp.fir(5, 12345, 8))
        await until(lambda: far.key_frames() == 3)


async def test_a_lost_packet_comes_again_on_the_offers_rtx() -> None:
    async with sending(video()) as far:
        ssrcs = far.session.ssrcs
        await until(lambda: len(far.of(ssrcs.video)) >= 10)
        wanted = [far.of(ssrcs.video)[at] for at in (2, 3, 7)]
        await far.transport.send(rtcp.nack(5, ssrcs.video, [header.sequence for _, header in wanted]))
        await until(lambda: len(far.of(ssrcs.video_rtx)) == 3)
        repairs = far.of(ssrcs.video_rtx)
        rtx = far.content("video").rtx_for(100)
        number = far.content("video").extension_id(EXT_TRANSPORT_CC)
        assert rtx is not None
        assert number is not None
        assert {header.payload_type for _, header in repairs} == {rtx.id}
        for (data, header), (repair, rtx_header) in zip(wanted, repairs, strict=True):
            original = rtp.unwrap_rtx(repair, rtx_header, payload_type=100, ssrc=ssrcs.video)
            assert original is not None
            found = rtp.parse_header(original)
            assert (found.sequence, found.timestamp, found.marker) == (
                header.sequence,
                header.timestamp,
                header.marker,
            )
            assert rtp.payload(original, found) == rtp.payload(data, header)
        sequences = [header.sequence for _, header in repairs]
        assert sequences == [(sequences[0] + at) & 0xFFFF for at in range(3)]
        wide = [rtp.transport_sequence(data, header, number) for data, header, _ in far.packets]
        assert wide == list(range(len(wide)))  # retransmissions have numbers of their own
        before = far.session.sent[0]
        await far.transport.send(rtcp.nack(5, ssrcs.video, [(wanted[0][1].sequence - 9000) & 0xFFFF]))
        await until(lambda: far.session.sent[0] >= before + 5)
        assert len(far.of(ssrcs.video_rtx)) == 3


async def test_sender_reports_and_one_cname_for_both_media() -> None:
    async with sending(SyntheticAudioTrack("a"), video()) as far:
        ssrcs = far.session.ssrcs
        await until(
            lambda: (
                {item.ssrc for item in far.rtcp if isinstance(item, rtcp.SenderReport)}
                == {ssrcs.audio, ssrcs.video}
            )
        )
        await until(lambda: any(isinstance(item, rtcp.ReceiverReport) for item in far.rtcp))
        report = next(
            item for item in far.rtcp if isinstance(item, rtcp.SenderReport) and item.ssrc == ssrcs.audio
        )
        assert 0 < report.packets <= len(far.of(ssrcs.audio))
        assert report.octets > report.packets
        names = {
            item.body[6 : 6 + item.body[5]]
            for item in far.rtcp
            if isinstance(item, rtcp.Other) and item.kind == rtcp.SDES
        }
        assert len(names) == 1
        assert len(next(iter(names))) >= 12


@pytest.mark.parametrize("level", [-20.0, -40.0])
async def test_the_audio_level_is_that_of_the_sound(level: float) -> None:
    async with sending(SyntheticAudioTrack("a", mode="tone", level=level)) as far:
        await until(lambda: len(far.packets) >= 20)
        ext_id = far.content("audio").extension_id(EXT_AUDIO_LEVEL)
        assert ext_id is not None
        levels = [rtp.audio_level(data, header, ext_id) for data, header, _ in far.packets]
    assert set(levels) == {-level}


async def test_the_send_time_runs_with_the_clock() -> None:
    async with sending(video()) as far:
        await until(lambda: len(far.packets) >= 30)
        ext_id = far.content("video").extension_id(EXT_ABS_SEND_TIME)
        assert ext_id is not None
        stamps = [
            (int.from_bytes(rtp.extension(data, header, ext_id) or b"") / 2**18, came)
            for data, header, came in far.packets
        ]
    (first, came), (last, later) = stamps[0], stamps[-1]
    assert (last - first) % 64 == pytest.approx(later - came, abs=0.1)


async def test_the_round_trip_is_known_from_the_receivers_reports() -> None:
    def receiver(offer: Jingle) -> MediaSession:
        return MediaSession(offer, addresses=LOOPBACK)

    async with call([SyntheticAudioTrack("a")], receiver) as (sender, other, _):
        assert sender.round_trip is None
        await until(lambda: sender.round_trip is not None)
        assert 0 <= (sender.round_trip or 0) < 0.2
        assert other.round_trip is None  # it sends nothing


@pytest.mark.parametrize(("layout", "channels"), [("mono", 1), ("stereo", 2)])
def test_levels_count_all_channels(layout: str, channels: int) -> None:
    frame = AudioFrame(format="s16", layout=layout, samples=960)
    for value, level in ((32767, 0), (-32768, 0), (3277, -20), (0, -127)):
        frame.planes[0].update(np.full(960 * channels, value, np.int16).tobytes())
        assert audio_level(frame) == level


class Continued(MediaSession):
    """A session whose streams went on elsewhere before."""

    def _continued(self, source: OwnSource) -> tuple[int, int] | None:
        return (65_530, 2**32 - 900) if source.media == "video" else None


async def test_a_stream_goes_on_where_another_sender_left_it() -> None:
    track = SyntheticVideoTrack("room", "name", 160, 90)
    async with sending(track, session=Continued) as far:
        await until(lambda: len(far.of(far.session.ssrcs.video)) > 12)
        headers = [header for _, header in far.of(far.session.ssrcs.video)]
    assert [header.sequence for header in headers[:8]] == [*range(65_530, 65_536), 0, 1]
    assert (headers[0].timestamp - (2**32 - 900)) % 2**32 < 90_000


class Odd(SyntheticVideoTrack):
    """Gives some pictures that no encoder takes."""

    def __init__(self) -> None:
        super().__init__("room", "a", 160, 90)
        self.bad = 0

    async def recv(self) -> VideoFrame:
        frame = await super().recv()
        if not self.bad:
            return frame
        self.bad -= 1
        odd = VideoFrame(0, 0, "yuv420p")
        odd.pts, odd.time_base = frame.pts, frame.time_base
        return odd


async def test_a_frame_that_cannot_be_encoded_is_told_once_and_the_stream_goes_on() -> None:
    told: list[tuple[str, str]] = []
    track = Odd()
    session = partial(MediaSession, on_encoding_failed=lambda source, cause: told.append((source.media, cause)))
    async with sending(track, session=session) as far:
        ssrc = far.session.ssrcs.video
        await until(lambda: len(far.of(ssrc)) >= 3)
        track.bad = 3
        await until(lambda: bool(told))
        before = len(far.of(ssrc))
        await until(lambda: len(far.of(ssrc)) >= before + 10)
        assert far.key_frames() == 2  # another encoder begins with one
        assert [media for media, _ in told] == ["video"]
        track.bad = 1
        await until(lambda: len(told) == 2)
        sequences = [header.sequence for _, header in far.of(ssrc)]
        assert sequences == [(sequences[0] + step) & 0xFFFF for step in range(len(sequences))]
