"""What a remote party reaches, as functions of bytes that raise only where the code is wrong.

Each target reads one hostile dialogue out of its input, takes it through the code as the participant would, and
checks what must hold whatever was said: only the documented errors, one answer to each request, bounded state.
"""

from __future__ import annotations

import contextlib
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from bot.bridge import messages, rtcp, rtp, twcc
from bot.bridge.channel import parse_message
from bot.bridge.decoder import decodable, decode_batch, make_decoder
from bot.bridge.depacketize import unpack
from bot.bridge.frames import MAX_WAITING, FrameAssembler
from bot.bridge.inbound import InboundMedia
from bot.bridge.payloads import PayloadFormat, payload_formats
from bot.bridge.pool import POOL_PIXELS, Budget
from bot.bridge.receive import MAX_STREAMS
from bot.bridge.receiver import MediaFeedback
from bot.bridge.roundtrip import RoundTrips
from bot.bridge.streams import MAX_NAMES, jingle_names, mapped_names
from bot.errors import BotError, RoomError
from bot.jingle import names
from bot.jingle.answer import UnsupportedOfferError
from bot.jingle.build import build_jingle
from bot.jingle.jsonsources import sources_from_json, sources_to_json
from bot.jingle.model import Jingle, JingleError, SourceMap
from bot.jingle.outputs import OfferReceived, ReplyError, ReplyResult, SourcesAdded, SourcesRemoved
from bot.jingle.parse import parse_jingle
from bot.jingle.session import JingleSession, SessionState
from bot.jingle.sources import SourceTable
from bot.participant.sources import MAX_SOURCES, RemoteSources
from bot.xmpp import framing
from bot.xmpp.breakout import PREFIX, read_breakout
from bot.xmpp.features import disco_answer
from bot.xmpp.focus import FocusUnavailableError, parse_answer
from bot.xmpp.messages import read_component, read_message
from bot.xmpp.moderation import AvModeration, read_mute, read_start_muted
from bot.xmpp.occupants import MAX_OCCUPANTS, OccupantTable, SelfLeft
from bot.xmpp.room import join_error
from bot.xmpp.roominfo import read_room_info
from bot.xmpp.stanza_errors import StanzaError
from tests.fuzz.choices import Choices
from tests.fuzz.stanzas import hostile, value
from tests.jingle_support import offer, own_transport

Target = Callable[[bytes], None]

FORMATS = {
    111: PayloadFormat(111, "audio", "opus", 48_000, transport_cc=5),
    0: PayloadFormat(0, "audio", "pcmu", 8_000),
    9: PayloadFormat(9, "audio", "g722", 8_000),
    100: PayloadFormat(100, "video", "vp8", 90_000, transport_cc=3, nack=True, pli=True, fir=True),
    107: PayloadFormat(107, "video", "h264", 90_000, transport_cc=3, fir=True),
    101: PayloadFormat(101, "video", "vp9", 90_000),
    41: PayloadFormat(41, "video", "av1", 90_000),
    112: PayloadFormat(112, "audio", "red", 48_000),
    96: PayloadFormat(96, "video", "rtx", 90_000, apt=100),
    97: PayloadFormat(97, "video", "rtx", 90_000, apt=96),
    98: PayloadFormat(98, "video", "rtx", 90_000, apt=33),
}

CLASSES = (*sorted(messages._READERS), "EndpointConnectionStats", "")
SAID = ("mediaType", "enabled", "removed", "approved", "actor", "startMuted", "rooms", "roomJid", "whitelists")
FIELDS = (
    "active",
    "bitrate",
    "connectionQuality",
    "dominantSpeakerEndpoint",
    "endpoint",
    "estimatedDownlinkBandwidth",
    "forwardedSources",
    "from",
    "jvbRTT",
    "mappedSources",
    "maxEnabledResolution",
    "maxHeight",
    "msgPayload",
    "packetLoss",
    "previousSpeakers",
    "serverRegion",
    "silence",
    "sourceName",
)


def frame(data: bytes) -> None:
    """Any text as a WebSocket frame, through everything that reads XML."""
    text = data.decode("utf-8", "surrogateescape")
    head = framing.sniff_stanza(text)
    assert head is None or head.name in {"iq", "message", "presence"}
    try:
        element = framing.parse_frame(text, max_chars=100_000)
    except framing.FrameError:
        return
    again = framing.parse_frame(framing.serialize(element))
    assert again.tag in {element.tag, f"{{{framing.NS_CLIENT}}}{element.tag}"}
    _read_all(element)


#: Stanzas of one dialogue; each is long, and more dialogues find more than longer ones.
MAX_STANZAS = 5


def stanza(data: bytes) -> None:
    """A dialogue of spoilt stanzas with one session, one room and their tables."""
    choices = Choices(data)
    session = _session(choices.number(3))
    room, sources = OccupantTable("me"), RemoteSources()
    for _ in range(MAX_STANZAS):
        element = hostile(choices)
        if element.tag.endswith("}presence"):
            _room(room, element)
        else:
            _jingle(session, sources, element, choices)
        _read_all(element)


@cache
def _offer() -> Jingle:
    return offer()


def _session(state: int) -> JingleSession:
    """A session that is fresh, has an offer, or has accepted it."""
    session = JingleSession(responder="room@muc.meet.jitsi/me", max_sources=300)
    if state:
        session.feed(_offer(), 0.0)
    if state > 1:
        session.accept(own_transport(), SourceMap())
    return session


def _jingle(session: JingleSession, sources: RemoteSources, element: ET.Element, choices: Choices) -> None:
    if choices.number(2) and session.sid:
        element.set("sid", session.sid)
    try:
        jingle = parse_jingle(element)
    except JingleError as error:
        _check_refusal(error)
        return
    first, *others = session.feed(jingle, 1.0)
    assert isinstance(first, (ReplyResult, ReplyError)), "the reply comes first"
    assert not any(isinstance(output, (ReplyResult, ReplyError)) for output in others), "and once"
    assert not (isinstance(first, ReplyError) and others), "what is refused changes nothing"
    assert len(session.remote) <= 300
    for output in others:
        match output:
            case OfferReceived():
                _offered(session, output, sources)
            case SourcesAdded(added):
                sources.added(added)
            case SourcesRemoved(removed):
                sources.removed(removed)
    assert len(sources._known) <= MAX_SOURCES


def _check_refusal(error: JingleError) -> None:
    assert error.condition in {"bad-request", "resource-constraint"}
    _check_text(error)


def _check_text(error: Exception) -> None:
    assert len(str(error)) < 400, "an error text is short, whatever was said"


def _offered(session: JingleSession, received: OfferReceived, sources: RemoteSources) -> None:
    """What a media session makes of an offer, and our answer as it goes out."""
    sources.clear()
    sources.added(received.offer.sources)
    formats = payload_formats(received.offer)
    inbound = InboundMedia(formats, ssrc=1, started=0.0)
    inbound.name(jingle_names(received.offer.sources))
    for known in formats.values():
        packet = rtp.build(payload_type=known.id, sequence=1, timestamp=1, ssrc=2, body=b"body")
        inbound.packet(packet, rtp.parse_header(packet), 1.0)
        if decodable(known):
            make_decoder(known, Budget(POOL_PIXELS))
    _finite(inbound, 2.0)
    try:
        answer = session.accept(own_transport(), SourceMap())
    except UnsupportedOfferError:
        session.terminate("unsupported-applications")
    else:
        framing.parse_frame(framing.serialize(build_jingle(answer)))
        assert session.state is SessionState.ACTIVE


def _room(room: OccupantTable, presence: ET.Element) -> None:
    for event in room.feed(presence):
        assert not isinstance(event, SelfLeft) or isinstance(event.error, (RoomError, type(None)))
    assert len(room.others) <= MAX_OCCUPANTS


def _read_all(element: ET.Element) -> None:
    """Every reader of a whole stanza, whatever the stanza is."""
    error = StanzaError.from_iq(element)
    framing.parse_frame(framing.serialize(error.to_xml()))
    assert isinstance(join_error(element, "room"), BotError)
    framing.serialize(disco_answer(element, ()))
    with contextlib.suppress(FocusUnavailableError):
        parse_answer(element)
    OccupantTable("me").feed(element)
    read_room_info(element)
    with contextlib.suppress(StanzaError):
        read_mute(element)
    read_message(element, "room@muc.meet.jitsi")
    said = read_component(element, "room@muc.meet.jitsi")
    if said is not None:
        _read_said(said)


def _read_said(said: Mapping[str, Any]) -> None:
    """What a component of the deployment may say."""
    AvModeration().feed(said)
    read_start_muted(said)
    read_breakout(said)


def component(data: bytes) -> None:
    """JSON of any shape from a component: moderation, metadata, breakout rooms."""
    choices = Choices(data)
    while choices:
        said = {choices.one(SAID): value(choices, 4) for _ in range(choices.number(6))}
        if choices.number(2):
            said["event"] = choices.one((f"{PREFIX}update", f"{PREFIX}move-to-room"))
        element = ET.Element(f"{{{framing.NS_CLIENT}}}message", {"from": "breakout.meet.jitsi"})
        ET.SubElement(element, "{http://jitsi.org/jitmeet}json-message").text = json.dumps(said)
        found = read_component(element, "room@muc.meet.jitsi")
        assert found is not None
        _read_said(found)


def message(data: bytes) -> None:
    """Messages of the bridge: what is any text at first, and then JSON of any shape."""
    inbound, sources = InboundMedia(FORMATS, ssrc=1, started=0.0), RemoteSources()
    parse_message(data)
    parse_message(data.decode("utf-8", "surrogateescape"))
    choices = Choices(data)
    while choices:
        said = {choices.one(FIELDS): value(choices, 4) for _ in range(choices.number(6))}
        if choices.number(2):
            said["mappedSources"] = [value(choices, 3) for _ in range(choices.number(8))]
        parsed = parse_message(json.dumps({**said, "colibriClass": choices.one(CLASSES)}))
        if parsed is None:
            continue  # NaN, Infinity and what is as large
        try:
            told = messages.read(parsed)
        except messages.MalformedMessageError as error:
            _check_text(error)
            continue
        json.dumps(repr(told), allow_nan=False)
        if isinstance(told, messages.SourcesMapped):
            sources.mapped(told.media, told.sources)
            inbound.name(told.sources)
    assert len(sources._known) <= MAX_SOURCES
    assert all(0 < ssrc <= names.MAX_SSRC for ssrc in sources._known)
    assert len(inbound.sources._names) <= MAX_NAMES
    assert len(inbound.sources._repairs) <= MAX_NAMES
    _finite(inbound, 1.0)


def json_sources(data: bytes) -> None:
    """Jitsi's JSON encoding of sources: any text, then any shape of the right names."""
    for text in (data.decode("utf-8", "replace"), json.dumps({"sources": value(Choices(data), 6)})):
        try:
            found = sources_from_json(text)
        except JingleError as error:
            _check_refusal(error)
            continue
        if found is not None:
            assert sources_from_json(sources_to_json(found)) is not None
            table = SourceTable(100)
            table.add(found)
            table.remove(found)
            assert len(table) <= 100
            if not found.audio.groups and not found.video.groups:
                assert not table._groups


def packets(data: bytes) -> None:
    """RTP and RTCP datagrams, decrypted, with their arrival times, through the whole receiving half."""
    choices = Choices(data)
    inbound, trips = InboundMedia(FORMATS, ssrc=1, started=0.0), RoundTrips()
    cc = {item.id: item.transport_cc for item in FORMATS.values() if item.transport_cc is not None}
    feedback = MediaFeedback(
        _unsent, inbound.statistics, ssrc=1, cname="c", transport_cc_ids=cc, clock=lambda: 0.0, requests=inbound
    )
    trips.sent(1, 0x1_0000_0000, 0.0)
    counter, now = twcc.FeedbackCounter(), 0.0
    while choices:
        now += choices.one((0.0, 0.001, 0.02, 0.3, 5.0))
        datagram = _datagram(choices)
        if not rtp.is_rtp_or_rtcp(datagram):
            continue
        if rtp.is_rtcp(datagram):
            _rtcp(feedback.rtcp(datagram), trips, counter, now)
        else:
            _rtp(inbound, feedback, datagram, now)
        for packet in [*feedback.due(now), *inbound.due(now)]:
            assert rtcp.parse(packet), "what we send is RTCP"
            assert len(packet) <= 1500, "and fits a datagram"
    assert len(inbound.statistics.streams) <= MAX_STREAMS
    assert trips.value is None or 0 <= trips.value < 1e6
    inbound.next_deadline()
    _finite(inbound, now)


def _datagram(choices: Choices) -> bytes:
    """Raw bytes, or a packet with a header that is right and a body that is not."""
    kind = choices.number(4)
    if kind == 0:
        return bytes((0x80 | choices.number(64), 0x40 | choices.number(192))) + choices.take(60)
    if kind == 1:
        words = choices.take(60)
        kinds = (rtcp.SR, rtcp.RR, rtcp.BYE, rtcp.RTPFB, rtcp.PSFB)
        return rtcp.pack(choices.one(kinds), choices.number(32), words[: len(words) // 4 * 4])
    values = {3: choices.number(65536).to_bytes(2, "big")} if choices.number(2) else {}
    return rtp.build(
        payload_type=choices.one((100, 111, 96, 97, 98, 107, 101, 9, 0, 35)),
        sequence=choices.number(65536),
        timestamp=choices.number(65536) << 16,
        ssrc=1 + choices.number(3),
        body=choices.take(20),
        marker=bool(choices.number(2)),
        values=values,
        padding=choices.number(4),
    )


def _rtp(inbound: InboundMedia, feedback: MediaFeedback, datagram: bytes, now: float) -> None:
    try:
        header = rtp.parse_header(datagram)
    except rtp.RtpError:
        return
    feedback.arrived(datagram, header, now)
    inbound.packet(datagram, header, now)
    if header.ssrc == 2:
        inbound.name(mapped_names({"mappedSources": [{"ssrc": 2, "rtx": header.sequence, "source": "s"}]}))
    elif header.ssrc == 3 and header.marker:
        inbound.forget([2])


def _rtcp(found: list[rtcp.Packet], trips: RoundTrips, counter: twcc.FeedbackCounter, now: float) -> None:
    for packet in found:
        trips.feed(packet, now)
        if isinstance(packet, rtcp.Feedback):
            rtcp.nacked(packet)
            rtcp.keyframe_requests(packet)
            rtcp.remb(packet)
            with contextlib.suppress(rtcp.RtcpError):
                counter.feed(twcc.parse_feedback(packet))


def media(data: bytes) -> None:
    """Payloads of any content through depacketisation, assembly and the real decoders."""
    choices = Choices(data)
    known = choices.one([item for item in FORMATS.values() if decodable(item)])
    assembler = FrameAssembler(video=known.media == "video", patience=0.1)
    decoder, now, sequence = make_decoder(known, Budget(POOL_PIXELS)), 0.0, 65_530
    while choices:
        sequence += choices.one((1, 1, 1, 2, 0, 1100))
        now += choices.one((0.0, 0.02, 0.2))
        packet = rtp.build(
            payload_type=known.id,
            sequence=sequence,
            timestamp=choices.number(65536) << 16,
            ssrc=1,
            marker=bool(choices.number(2)),
            body=_payload(known.codec, choices),
            padding=choices.number(3),
        )
        try:
            piece = unpack(known.codec, rtp.parse_header(packet), packet)
        except ValueError:
            continue
        frames = [*assembler.feed(sequence & 0xFFFF, piece, now), *assembler.expire(now)]
        decode_batch(decoder, frames)
        assert len(assembler._waiting) <= MAX_WAITING + 1
        assert sum(map(len, assembler._parts)) <= 2**20


def _payload(codec: str, choices: Choices) -> bytes:
    """The start of a real payload of ``codec`` as often as not, and then anything."""
    starts: dict[str, tuple[bytes, ...]] = {
        "vp8": (b"\x10\x00\x00\x00\x9d\x01\x2a", b"\x90\x80\x01\x10\x02\x00\x9d\x01\x2a\x80\x02\x68\x01", b"\x00"),
        "vp9": (
            b"\x8c\x81\x02\x82\x49\x83\x42\x00\x27\xf0\x16\x70",
            b"\xac\x81\x02\x01\x05",
            b"\xf8\x01\x03\x02\x04",
            b"\x0a\x38",
        ),
        "av1": (
            b"\x18\x0a\x0b\x00\x00\x00\x0c\xc4\xff\x67\x12\xbe\x40\x10\x32",
            b"\x28\x01\x0a",
            b"\x50\x32",
            b"\x90",
        ),
        "red": (b"\xef\x00\x00\x04\x6f", b"\x6f"),
        "h264": (b"\x67\x42\xe0\x1f", b"\x68\xce\x38\x80", b"\x78\x00\x04", b"\x7c\x85", b"\x65\x88"),
    }
    return choices.one((b"", *starts.get(codec, ()))) + choices.take(200)


async def _unsent(_: bytes) -> None:
    raise AssertionError("nothing is sent here")


def _finite(inbound: InboundMedia, now: float) -> None:
    """What is told of the streams are numbers that a report can hold."""
    for stream in inbound.snapshot(now):
        assert 0 <= stream.jitter < 1e9
        assert 0 <= stream.bitrate < 1e12


TARGETS: dict[str, Target] = {
    "frame": frame,
    "stanza": stanza,
    "component": component,
    "message": message,
    "json_sources": json_sources,
    "packets": packets,
    "media": media,
}
