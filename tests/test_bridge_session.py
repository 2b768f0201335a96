"""A media session against the other end of the same transport on loopback, with a recorded offer."""

import asyncio
import inspect
from dataclasses import replace

import aioice
import aiortc
import pytest
from aiortc.rtp import RtpPacket

from bot.bridge import rtcp, rtp, twcc
from bot.bridge._aiortc import Gatherer, TransportCcMap, TransportSequence, audio_level, sent_by
from bot.bridge.session import MediaSession, OwnSsrcs
from bot.bridge.transport import MediaTransport
from bot.errors import DtlsFailedError, IceFailedError, UnsupportedMediaError
from bot.jingle.model import EXT_AUDIO_LEVEL, EXT_TRANSPORT_CC, Fingerprint, Jingle
from bot.media.synthetic import SyntheticAudioTrack, SyntheticVideoTrack
from tests.bridge_support import LOOPBACK, recorded_offer
from tests.jingle_support import own_transport


class Far:
    """The bridge's end: collects what comes."""

    def __init__(self) -> None:
        self.transport = MediaTransport("bridge", addresses=LOOPBACK)
        self.packets: list[bytes] = []
        self.rtcp: asyncio.Queue[bytes] = asyncio.Queue()
        self._changed = asyncio.Event()
        self.transport.dtls.on_rtp = self._rtp
        self.transport.dtls.on_rtcp = self.rtcp.put_nowait

    def _rtp(self, data: bytes) -> None:
        self.packets.append(data)
        self._changed.set()

    async def wait(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.packets) < count:
                self._changed.clear()
                await self._changed.wait()


async def test_the_recorded_offer_leads_to_media_both_ways() -> None:
    far, arrived = Far(), asyncio.Event()
    phases: list[str] = []

    def on_phase(phase: str) -> None:
        phases.append(phase)
        if phase == "first_packet_in":
            arrived.set()

    offer = recorded_offer(await far.transport.gather())
    session = MediaSession(offer, addresses=LOOPBACK, on_phase=on_phase)
    tracks = [SyntheticAudioTrack("bot"), SyntheticVideoTrack("room", "bot")]
    try:
        own = await session.gather()
        assert {item.ip for item in own.candidates} == {"127.0.0.1"}
        assert own.fingerprints[0].setup == "active"
        await asyncio.gather(
            far.transport.connect(own, 10), session.connect(tracks, video_codec="vp8", timeout=10)
        )
        assert phases == ["ice", "dtls", "first_packet_out"]
        await far.wait(100)
        check_sent(far.packets, offer, session.ssrcs)
        packet = RtpPacket(payload_type=111, sequence_number=7, timestamp=960, payload=b"x" * 40)
        packet.ssrc = 42
        await far.transport.send(packet.serialize())
        await asyncio.wait_for(arrived.wait(), 10)
        assert phases[-1] == "first_packet_in"
        assert session.received.streams[42].packets == 1
        assert session.sent[0] >= 100
        await far.transport.close()
        await asyncio.wait_for(session.wait_ended(), 10)
    finally:
        await session.close()
        await session.close()
        await far.transport.close()
        for track in tracks:
            track.stop()


async def test_feedback_covers_all_that_comes_with_the_ids_of_the_offer() -> None:
    """Receiver reports and transport-wide-cc for audio, video and padding-only probes on RTX payload types."""
    far = Far()
    offer = recorded_offer(await far.transport.gather())
    session = MediaSession(offer, addresses=LOOPBACK)
    audio, video = offer.content("audio"), offer.content("video")
    assert audio is not None
    assert video is not None
    rtx = video.rtx_for(100)
    assert rtx is not None
    try:
        own = await session.gather()
        await asyncio.gather(far.transport.connect(own, 10), session.connect([], video_codec="vp8", timeout=10))
        for number, (content, kind, ssrc, padding) in enumerate(
            [(audio, 111, 7, 0), (video, 100, 8, 0), (video, rtx.id, 9, 200), (audio, 111, 7, 0)]
        ):
            ext_id = content.extension_id(EXT_TRANSPORT_CC)
            assert ext_id is not None
            packet = rtp.build(
                payload_type=kind,
                sequence=number,
                timestamp=0,
                ssrc=ssrc,
                body=b"" if padding else b"x" * 50,
                values={ext_id: (2 * number).to_bytes(2)},
                padding=padding,
            )
            await far.transport.send(packet)
        counter = twcc.FeedbackCounter()
        reports: dict[int, rtcp.ReportBlock] = {}
        async with asyncio.timeout(10):
            while counter.acked < 4 or len(reports) < 3:
                for packet_in in rtcp.parse(await far.rtcp.get()):
                    if isinstance(packet_in, rtcp.Feedback):
                        counter.feed(twcc.parse_feedback(packet_in))
                    elif isinstance(packet_in, rtcp.ReceiverReport):
                        assert packet_in.ssrc == session.ssrcs.audio
                        reports.update({block.ssrc: block for block in packet_in.blocks})
        assert (counter.acked, counter.lost) == (4, 3)
        assert (reports[7].highest, reports[7].lost) == (3, 2)
        assert (reports[9].highest, reports[9].lost) == (2, 0)
    finally:
        await session.close()
        await far.transport.close()


def check_sent(packets: list[bytes], offer: Jingle, ssrcs: OwnSsrcs) -> None:
    """Payload types, SSRCs and header extensions are those of the offer; one transport-wide counter for all."""
    headers = [(data, rtp.parse_header(data)) for data in packets]
    assert {(header.payload_type, header.ssrc) for _, header in headers} == {
        (111, ssrcs.audio),
        (100, ssrcs.video),
    }
    audio, video = offer.content("audio"), offer.content("video")
    assert audio is not None
    assert video is not None
    level, number = audio.extension_id(EXT_AUDIO_LEVEL), video.extension_id(EXT_TRANSPORT_CC)
    assert level is not None
    assert number is not None
    numbers = [rtp.transport_sequence(data, header, number) for data, header in headers]
    assert sorted(value for value in numbers if value is not None) == list(range(len(packets)))
    levels = [rtp.audio_level(data, header, level) for data, header in headers if header.payload_type == 111]
    assert any(value is not None and 0 < value < 60 for value in levels)


async def test_a_codec_that_is_not_offered_is_a_clear_error() -> None:
    far = Far()
    session = MediaSession(recorded_offer(await far.transport.gather()), addresses=LOOPBACK)
    track = SyntheticVideoTrack("room", "bot")
    try:
        own = await session.gather()
        far_side = asyncio.create_task(far.transport.connect(own, 10))
        with pytest.raises(UnsupportedMediaError, match="theora"):
            await session.connect([track], video_codec="theora", timeout=10)
        await far_side
    finally:
        track.stop()
        await session.close()
        await far.transport.close()


async def test_kinds_that_are_not_offered_are_not_sent_and_broken_rtp_is_counted() -> None:
    far = Far()
    offer = recorded_offer(await far.transport.gather())
    offer = replace(offer, contents=tuple(item for item in offer.contents if item.media != "audio"))
    session = MediaSession(offer, addresses=LOOPBACK)
    track = SyntheticAudioTrack("bot")
    try:
        own = await session.gather()
        await asyncio.gather(
            far.transport.connect(own, 10), session.connect([track], video_codec="vp8", timeout=10)
        )
        assert session.id == offer.sid
        assert session.sent == (0, 0)
        assert repr(session).endswith("sent 0 received 0>")
        session.transport.dtls.on_rtp(b"\x80\x6f")  # type: ignore[misc]
        assert (session.received.ignored, session.received.packets, session.snapshot()) == (1, 0, ())
    finally:
        track.stop()
        await session.close()
        await far.transport.close()


async def test_totals_count_each_way_and_broken_feedback_is_none() -> None:
    session = MediaSession(recorded_offer(own_transport()), addresses=("127.0.0.1",))
    silences = [session.silence]
    receive, control = session.transport.dtls.on_rtp, session.transport.dtls.on_rtcp
    assert receive is not None
    assert control is not None
    for kind, ssrc, sequence in ((111, 7, 1), (100, 8, 1), (100, 8, 4)):
        receive(rtp.build(payload_type=kind, sequence=sequence, timestamp=0, ssrc=ssrc, body=b"x" * 88))
    arrivals = twcc.ArrivalRecorder()
    arrivals.record(1, 5.0)
    arrivals.record(4, 5.01)
    for packet in arrivals.build(1, 2, 5.1):
        control(packet)
    control(rtcp.feedback(rtcp.RTPFB, rtcp.FMT_TRANSPORT_CC, 1, 2, b"\0\1\0\5" * 2))
    totals = session.totals()
    assert (totals.audio_received, totals.video_received) == (100, 200)
    assert (totals.received, totals.received_lost) == (3, 2)
    assert (totals.sent_acked, totals.sent_lost, totals.round_trip) == (2, 2, None)
    assert session.feedback.malformed == 1
    silences.append(session.silence)
    assert silences[0] is None
    assert 0 <= (silences[1] or 0.0) < 5
    await session.close()


async def test_a_wrong_fingerprint_is_refused() -> None:
    far, near = MediaTransport("bridge", addresses=LOOPBACK), MediaTransport("client", addresses=LOOPBACK)
    try:
        offered, own = await far.gather(), await near.gather()
        forged = replace(offered, fingerprints=(Fingerprint("sha-256", ":".join(["00"] * 32), "actpass"),))
        results = await asyncio.gather(near.connect(forged, 5), far.connect(own, 5), return_exceptions=True)
        assert isinstance(results[0], DtlsFailedError)
    finally:
        await near.close()
        await far.close()


async def test_nobody_at_the_other_end_is_an_ice_failure_in_time() -> None:
    far, near = MediaTransport("bridge", addresses=LOOPBACK), MediaTransport("client", addresses=LOOPBACK)
    try:
        offered = await far.gather()
        await near.gather()
        await far.close()
        with pytest.raises(IceFailedError):
            await near.connect(offered, 0.5)
    finally:
        await near.close()


async def test_no_address_to_offer_names_the_setting() -> None:
    near = MediaTransport("client", addresses=("192.0.2.200",))
    try:
        with pytest.raises(IceFailedError, match="JITSI_ICE_ADDRESSES"):
            await near.gather()
    finally:
        await near.close()


def test_own_sources_have_names_groups_and_different_ssrcs() -> None:
    ssrcs = OwnSsrcs.choose()
    assert len({ssrcs.audio, ssrcs.video, ssrcs.video_rtx}) == 3
    sources = ssrcs.sources("deadbeef", ("audio", "video"))
    assert [item.name for item in sources.audio.sources] == ["deadbeef-a0"]
    assert [item.name for item in sources.video.sources] == ["deadbeef-v0", "deadbeef-v0"]
    assert sources.video.groups[0].ssrcs == (ssrcs.video, ssrcs.video_rtx)
    assert not ssrcs.sources("deadbeef", ())


def test_further_own_sources_have_their_own_ssrcs_and_msids() -> None:
    ssrcs = OwnSsrcs.choose()
    camera, desktop = ssrcs.source("deadbeef", "v0"), ssrcs.source("deadbeef", "v1", "desktop")
    voice, music = ssrcs.source("deadbeef", "a0"), ssrcs.source("deadbeef", "a1")
    assert (camera.ssrc, camera.rtx, voice.ssrc) == (ssrcs.video, ssrcs.video_rtx, ssrcs.audio)
    assert len({camera.ssrc, camera.rtx, desktop.ssrc, desktop.rtx, voice.ssrc, music.ssrc}) == 6
    assert (voice.rtx, music.video_type) == (None, None)
    again = ssrcs.source("deadbeef", "v0", fresh=True)
    assert again.name == camera.name
    assert {again.ssrc, again.rtx}.isdisjoint({camera.ssrc, camera.rtx, voice.ssrc})
    first, second = desktop.sources.video.sources
    assert (first.name, first.video_type, second.video_type) == ("deadbeef-v1", "desktop", "desktop")
    assert first.msid == second.msid == f"deadbeef-v1 {desktop.ssrc:x}"
    assert desktop.sources.video.groups[0].ssrcs == (desktop.ssrc, desktop.rtx)
    assert music.sources.audio.sources[0].msid == f"deadbeef-a1 {music.ssrc:x}"


async def test_a_source_that_is_stopped_says_good_bye_and_stays_counted() -> None:
    far = Far()
    session = MediaSession(recorded_offer(await far.transport.gather()), addresses=LOOPBACK)
    try:
        own = await session.gather()
        await asyncio.gather(far.transport.connect(own, 10), session.connect(timeout=10))
        source = session.ssrcs.source("me", "a1")
        track = SyntheticAudioTrack("bot")
        await session.publish(source, track, "opus")
        await far.wait(5)
        await session.unpublish("me-a1")
        assert track.readyState == "ended"
        packets, octets = session.sent
        assert packets >= 5
        assert session.totals().audio_sent == octets > 0
        parsed = []
        while not far.rtcp.empty():
            parsed += rtcp.parse(far.rtcp.get_nowait())
        async with asyncio.timeout(10):
            while not any(isinstance(item, rtcp.Bye) and source.ssrc in item.ssrcs for item in parsed):
                parsed += rtcp.parse(await far.rtcp.get())
        await session.unpublish("me-a1")
        session.request_key_frame("me-v9")
        session.switch_codec("me-v9", "h264")
        assert session.sent == (packets, octets)
    finally:
        await session.close()
        await far.transport.close()


async def test_what_is_used_of_aiortc_and_aioice_is_still_there() -> None:
    """When this fails after an upgrade, bot/bridge/_aiortc.py needs a look."""
    gatherer = Gatherer(LOOPBACK)
    assert isinstance(gatherer._connection, aioice.Connection)
    assert gatherer._connection._protocols == []
    assert set(inspect.signature(aioice.ice.relayed_candidate).parameters) == {
        *("component", "hide_related_address", "protocol_factory", "turn_server", "turn_username"),
        *("turn_password", "turn_ssl", "turn_transport"),
    }
    relayed = aioice.turn.TurnTransport(aioice.turn.TurnClientUdpProtocol(("127.0.0.1", 9), None, None, 600, 500))
    assert inspect.iscoroutinefunction(relayed._TurnTransport__inner_protocol.delete)  # type: ignore[attr-defined]
    assert issubclass(TransportCcMap, aiortc.rtp.HeaderExtensionsMap)
    sequence = TransportSequence()
    assert [sequence.take() for _ in range(3)] == [0, 1, 2]
    transport = MediaTransport("client", addresses=LOOPBACK)
    sender = aiortc.RTCRtpSender("audio", transport.dtls)
    assert sent_by(sender) == (0, 0)
    for name in (
        *("_handle_rtp_data", "_handle_rtcp_data", "_recv_next", "_set_role", "_send_rtp"),
        *("_rtp_router", "_rx_srtp", "_state"),
    ):
        assert hasattr(transport.dtls, name), name
    for name in (
        *("_send_rtcp", "_send_keyframe", "_ssrc", "_rtx_ssrc", "_next_encoded_frame"),
        *(f"_RTCRtpSender__{name}" for name in ("rtp_header_extensions_map", "encoder", "rtx_payload_type")),
        "_RTCRtpSender__rtp_history",
    ):
        assert hasattr(sender, name), name
    connection = transport._ice._connection
    assert transport._ice._send == transport._ice._send_on
    assert connection.data_received == transport.dtls._datagram
    assert aioice.ice.CONSENT_FAILURES == 4
    assert vars(aiortc.rtcrtpsender)["rtp"].compute_audio_level_dbov is audio_level
    await transport.close()


def test_simulcast_layers_are_grouped_lowest_first() -> None:
    source = OwnSsrcs(1, 2, 3).source("deadbeef", "v0", layers=3)
    assert (source.ssrc, source.rtx, len(source.higher)) == (2, 3, 2)
    video = source.sources.video
    primary = tuple(ssrc for ssrc, _ in source.layers)
    repairs = tuple(rtx for _, rtx in source.layers)
    assert [item.ssrc for item in video.sources] == [*primary, *repairs]
    assert len({*primary, *repairs, 1}) == 7
    assert [(group.semantics, group.ssrcs) for group in video.groups] == [
        ("SIM", primary),
        *(("FID", pair) for pair in source.layers),
    ]
    assert {item.name for item in video.sources} == {"deadbeef-v0"}
