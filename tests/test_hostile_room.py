"""A room that is hostile: whatever its focus, its occupants and its bridge send, the call goes on.

The rule for each piece of bad input: one log line, the right error to who asked (RFC 6120 section 8.3.3, XEP-0166
section 10), bounded memory.
"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from bot import events
from bot.bridge import rtp
from bot.bridge.session import MediaSession
from bot.embedded.bridge import Endpoint
from bot.embedded.core import Write
from bot.embedded.server import EmbeddedServer
from bot.engine.session import SharedSession
from bot.errors import MediaError
from bot.jingle.build import build_jingle
from bot.jingle.model import Candidate, Fingerprint, Transport
from bot.participant import focus
from bot.participant.config import expand
from bot.participant.participant import Participant
from bot.settings import load
from bot.xmpp.connection import XmppConfig, XmppConnection
from bot.xmpp.framing import sniff_stanza
from tests.bridge_support import LOOPBACK, recorded_offer, until
from tests.test_participant_prosody import Seen, participant

ROOM = "jitsi-bot@muc.meet.jitsi"
JINGLE = "urn:xmpp:jingle:1"
STANZAS = "{urn:ietf:params:xml:ns:xmpp-stanzas}"
JINGLE_ERRORS = "{urn:xmpp:jingle:errors:1}"
MEBI = 1024 * 1024
Line = MutableMapping[str, Any]


class Stage:
    """Two bots in a call; ``one`` is the victim. All that it sends is kept."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.server = server
        self.seen, self.other = Seen(), Seen()
        settings = load(ws_url=server.url, name="one", decode="all", ice_addresses="127.0.0.1")
        self.one = Participant(expand(settings)[0], emit=self.seen, connect=self._connect)
        self.two = participant(server.url, self.other, name="two", ice_addresses="127.0.0.1")
        #: What one frame may hold for connections that are opened from now on.
        self.max_frame_bytes: int | None = None
        self.said: list[ET.Element] = []
        self._numbers = iter(range(1, 1_000_000))
        self._feed = server.core.feed
        server.core.feed = self._listen  # type: ignore[method-assign,assignment]

    def _connect(self, config: XmppConfig, on_phase: Callable[[str], None]) -> XmppConnection:
        return XmppConnection(
            replace(config, max_frame_bytes=self.max_frame_bytes or config.max_frame_bytes), on_phase=on_phase
        )

    def _listen(self, connection: int, text: str) -> Any:
        self.said.append(ET.fromstring(text))
        return self._feed(connection, text)

    async def run(self) -> AsyncIterator[Stage]:
        tasks = [asyncio.create_task(bot.run()) for bot in (self.one, self.two)]
        try:
            await self.seen.wait("media_connected")
            await self.other.wait("media_connected")
            assert self.one.conference is not None
            bridge = self.one.conference.session.bridge
            await until(lambda: bridge.is_open)
            await self.hears()
            yield self
            await self.hears()
        finally:
            for bot in (self.one, self.two):
                bot.stop()
            await asyncio.wait_for(asyncio.gather(*tasks), 20)

    # --- the victim ---

    @property
    def media(self) -> MediaSession:
        conference = self.one.conference
        assert conference is not None
        assert conference.media is not None
        return conference.media

    @property
    def jid(self) -> str:
        """The victim's address on the server."""
        assert self.one._connection is not None
        return self.one._connection.jid

    @property
    def sid(self) -> str:
        return self.media.id

    @property
    def far(self) -> str:
        """The other's endpoint id."""
        assert self.two.conference is not None
        return self.two.conference.room.own.rpartition("/")[2]

    @property
    def endpoint(self) -> Endpoint:
        """The bridge's side of the victim."""
        conference = self.server.bridge.conferences[ROOM]
        return next(item for name, item in conference.endpoints.items() if name != self.far)

    async def hears(self) -> None:
        """The call goes on: packets rise, both ways."""
        before = (self.media.received.packets, self.media.sent[0])
        await until(lambda: self.media.received.packets > before[0] + 20 and self.media.sent[0] > before[1] + 20)

    # --- the hostile side ---

    def frame(self, text: str) -> None:
        """Send any text as a WebSocket frame; the server counts what is a stanza of these (XEP-0198)."""
        number, session = next(
            (number, state.session)
            for number, state in self.server.core._connections.items()
            if state.session is not None and state.session.jid == self.jid
        )
        if sniff_stanza(text) is not None and session.management is not None:
            session.management.record_sent("")
        self.server._dispatch([Write(number, text)])

    def request(self, payload: str, *, sender: str = f"{ROOM}/focus", kind: str = "set", rest: str = "") -> str:
        """Send a request; returns its id."""
        identifier = f"hostile{next(self._numbers)}"
        self.frame(
            f"<iq xmlns='jabber:client' type='{kind}' id='{identifier}' from='{sender}' to='{self.jid}'>"
            f"{payload}{rest}</iq>"
        )
        return identifier

    async def ping(self) -> None:
        """Return when the victim has read all that was sent before."""
        await self.answer(self.request("<ping xmlns='urn:xmpp:ping'/>", kind="get"))

    async def answer(self, identifier: str) -> ET.Element:
        """The answer to a request."""
        await until(lambda: any(item.get("id") == identifier for item in self.said))
        (found,) = [item for item in self.said if item.get("id") == identifier]
        return found

    def tell(self, text: str | bytes) -> None:
        """Send any text on the bridge channel."""
        channel = self.endpoint.sctp
        assert channel is not None
        assert channel._channel is not None
        channel._channel.send(text)


@pytest_asyncio.fixture
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    server = EmbeddedServer(port=0)
    await server.start()
    made = Stage(server)
    made.max_frame_bytes = getattr(request, "param", None)
    try:
        async for found in made.run():
            yield found
    finally:
        await server.stop()


@contextmanager
def lines() -> Iterator[list[Line]]:
    """The bots' log lines of note; the embedded server's own are left out."""
    found: list[Line] = []
    with capture_logs() as entries:
        yield found
    found += [
        entry
        for entry in entries
        if entry["log_level"] in {"warning", "error"} and not entry["event_name"].startswith("embedded")
    ]


def error_of(answer: ET.Element) -> tuple[str, str, str | None]:
    """Type, condition and the Jingle error of an answer."""
    assert answer.get("type") == "error", ET.tostring(answer)
    (error,) = answer
    (condition,) = [
        item.tag.removeprefix(STANZAS)
        for item in error
        if item.tag.startswith(STANZAS) and item.tag != f"{STANZAS}text"
    ]
    details = [item.tag.removeprefix(JINGLE_ERRORS) for item in error if item.tag.startswith(JINGLE_ERRORS)]
    return error.get("type", ""), condition, details[0] if details else None


def jingle(action: str, sid: str, children: str = "") -> str:
    return f"<jingle xmlns='{JINGLE}' action='{action}' sid='{sid}'>{children}</jingle>"


def sources(count: int, *, first: int = 1) -> str:
    """A content with ``count`` video sources."""
    items = "".join(f"<source ssrc='{first + at}' name='x{at}-v0'/>" for at in range(count)).replace(
        "<source ", "<source xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' "
    )
    return (
        "<content name='video' creator='initiator'>"
        f"<description xmlns='urn:xmpp:jingle:apps:rtp:1' media='video'>{items}</description></content>"
    )


#: Payload of a request of the focus (``{sid}`` is the session's), and the error that it gets.
REQUESTS = [
    (jingle("source-explode", "{sid}"), ("cancel", "feature-not-implemented", None)),
    (jingle("source-add", "other"), ("cancel", "item-not-found", "unknown-session")),
    (jingle("session-accept", "{sid}"), ("wait", "unexpected-request", "out-of-order")),
    (jingle("session-initiate", "{sid}"), ("wait", "unexpected-request", "out-of-order")),
    (jingle("session-initiate", "new"), ("modify", "bad-request", None)),
    (jingle("transport-replace", "{sid}"), ("modify", "bad-request", None)),
    (
        jingle("session-info", "{sid}", "<knock xmlns='urn:x'/>"),
        ("modify", "feature-not-implemented", "unsupported-info"),
    ),
    (f"<jingle xmlns='{JINGLE}' sid='{{sid}}'/>", ("modify", "bad-request", None)),
    (f"<jingle xmlns='{JINGLE}' action='source-add'/>", ("modify", "bad-request", None)),
    (jingle("source-add", "{sid}", sources(1, first=2**32)), ("modify", "bad-request", None)),
    (jingle("source-add", "{sid}", sources(10_001)), ("wait", "resource-constraint", None)),
    (
        jingle("source-add", "{sid}", "<json-message xmlns='http://jitsi.org/jitmeet'>[[[</json-message>"),
        ("modify", "bad-request", None),
    ),
    (
        jingle(
            "source-add", "{sid}", f"<json-message xmlns='http://jitsi.org/jitmeet'>{'[' * 50_000}</json-message>"
        ),
        ("modify", "bad-request", None),
    ),
    (
        jingle(
            "source-add",
            "{sid}",
            "<json-message xmlns='http://jitsi.org/jitmeet'>"
            '{{"sources": {{"o": [[{{"s": Infinity}}]]}}}}</json-message>',
        ),
        ("modify", "bad-request", None),
    ),
    ("", ("modify", "bad-request", None)),
    ("<a xmlns='urn:a'/><b xmlns='urn:b'/>", ("modify", "bad-request", None)),
    ("<a xmlns='urn:a'>" * 200 + "</a>" * 200, ("modify", "policy-violation", None)),
]


@pytest.mark.timeout(120)
async def test_bad_requests_of_the_focus_get_their_error_and_one_line(stage: Stage) -> None:
    session = stage.sid
    for payload, error in REQUESTS:
        with lines() as told:
            identifier = stage.request(payload.format(sid=session))
            assert error_of(await stage.answer(identifier)) == error, payload[:200]
        assert len(told) == 1, (payload[:200], told)
    await stage.hears()
    assert stage.sid == session
    assert "media_failed" not in stage.seen.names()


#: What the server may not send at all, and the stanza that it still is (RFC 7395 section 3.3.3).
FRAMES = [
    "",
    "hello",
    "<presence xmlns='jabber:client'",
    "<message xmlns='jabber:client'><body>&bomb;</body></message>",
    '<!DOCTYPE lolz [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]><message xmlns="jabber:client">&b;</message>',
    "<?xml version='1.0'?><message xmlns='jabber:client'/>",
    "<message xmlns='jabber:client'/><message xmlns='jabber:client'/>",
    "<message xmlns='jabber:client'>\x00</message>",
    "<message xmlns='jabber:client'>" + "<x>" * 5000 + "</x>" * 5000 + "</message>",
    "<x:message/>",
]


@pytest.mark.timeout(120)
async def test_broken_frames_are_one_line_each(stage: Stage) -> None:
    for text in FRAMES:
        with lines() as told:
            stage.frame(text)
            await stage.ping()
        assert [line["event_name"] for line in told] == ["frame_ignored"], (text[:100], told)
    await stage.hears()
    assert "connection_degraded" not in stage.seen.names()


async def test_stanzas_that_make_no_sense_change_nothing(stage: Stage) -> None:
    """None of them is an error of its sender; what can't be read of a presence takes its default."""
    before = stage.seen.names()
    with lines() as told:
        for text in (
            "<message xmlns='jabber:client'/>",
            "<presence xmlns='jabber:client'/>",
            f"<presence xmlns='jabber:client' from='{ROOM}/' type='unavailable'/>",
            f"<presence xmlns='jabber:client' from='{ROOM}/nobody' type='unavailable'/>",
            f"<presence xmlns='jabber:client' from='{ROOM}/focus' type='odd'/>",
            "<iq xmlns='jabber:client' type='result' id='never-asked'/>",
            "<iq xmlns='jabber:client' type='odd' id='1'/>",
            "<unknown xmlns='urn:x'/>",
        ):
            stage.frame(text)
        found = error_of(await stage.answer(stage.request("<query xmlns='jabber:iq:version'/>", kind="get")))
    assert found == ("cancel", "service-unavailable", None)
    assert told == []
    assert stage.seen.names() == before


async def test_an_address_that_is_none_is_one_line(stage: Stage) -> None:
    with lines() as told:
        stage.request("<ping xmlns='urn:xmpp:ping'/>", sender="@@/@")
        await stage.ping()
    assert [line["event_name"] for line in told] == ["request_ignored"]
    with lines() as told:
        stage.frame("<message xmlns='jabber:client' from='@@/@'><body>hi</body></message>")
        stage.frame("<presence xmlns='jabber:client' from='@@/@'/>")
        stage.frame("<iq xmlns='jabber:client' from='@@/@' type='result' id='1'/>")
        await stage.ping()
    assert told == []


async def test_direct_sessions_of_occupants_are_refused_and_a_flood_of_them_is(stage: Stage) -> None:
    hostile = f"{ROOM}/{stage.far}"
    with lines() as told:
        found = error_of(await stage.answer(stage.request(jingle("source-add", stage.sid), sender=hostile)))
    assert found == ("cancel", "item-not-found", "unknown-session")
    assert len(told) == 1
    answers = [stage.request(jingle("session-initiate", "p2p"), sender=hostile) for _ in range(200)]
    results = [(await stage.answer(identifier)).get("type") for identifier in answers]
    assert results.count("result") <= focus.P2P_BURST + 10
    assert error_of(await stage.answer(answers[-1])) == ("wait", "resource-constraint", None)
    assert stage.sid


async def test_colliding_sources_move_and_their_owner_is_heard_again_when_they_are_back(stage: Stage) -> None:
    """The focus has the last word, whatever it says: an SSRC is one source's at a time."""
    await until(lambda: any(stream.media == "video" for stream in stage.media.snapshot()))
    mine = {stream.ssrc: stream for stream in stage.media.snapshot()}
    video = next(ssrc for ssrc, stream in mine.items() if stream.media == "video")
    with lines() as told:
        answer = await stage.answer(stage.request(jingle("source-add", stage.sid, sources(1, first=video))))
        assert answer.get("type") == "result"
        # Until its next packet the moved source is not there at all.
        await until(lambda: ("x0-v0", video) in [(item.source, item.ssrc) for item in stage.media.snapshot()])
    assert told == []


@pytest.mark.timeout(120)
async def test_ten_thousand_sources_and_ten_megabytes_stay_bounded(stage: Stage) -> None:
    big = "<x xmlns='urn:x'>" + "y" * (10 * MEBI) + "</x>"
    with traced() as grown:
        answer = await stage.answer(stage.request(jingle("source-add", stage.sid, sources(10_000))))
        assert answer.get("type") == "result"
        await stage.seen.wait("remote_source_added", 4000)
        await stage.hears()
    assert grown[0] < 40 * MEBI
    with lines() as told, traced() as grown:
        identifier = stage.request(big)
        found = error_of(await stage.answer(identifier))
        await stage.ping()  # the last frame is no more
        await stage.hears()
    assert found == ("modify", "policy-violation", None)
    assert [line["event_name"] for line in told] == ["frame_ignored"]
    assert grown[0] < 5 * MEBI
    assert "connection_degraded" not in stage.seen.names()


@contextmanager
def traced() -> Iterator[list[int]]:
    """Bytes of Python's that are held more afterwards than before."""
    grown: list[int] = []
    tracemalloc.start()
    try:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        yield grown
        gc.collect()
        grown.append(tracemalloc.get_traced_memory()[0] - before)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("stage", [25_000], indirect=True)
async def test_a_frame_beyond_all_limits_costs_the_connection_and_not_the_stay(stage: Stage) -> None:
    """The server would send it again with the resumed stream: the room is joined anew."""
    stage.frame("<message xmlns='jabber:client'>" + "y" * (5 * 25_000) + "</message>")
    degraded = await stage.seen.wait("connection_degraded")
    recovered = await stage.seen.wait("connection_recovered")
    assert isinstance(degraded, events.ConnectionDegraded)
    assert isinstance(recovered, events.ConnectionRecovered)
    assert "exceeds limit 100000" in degraded.cause
    assert recovered.how == "rejoined"
    await stage.seen.wait("media_connected", 2)


#: What the bridge may say, and the line that it is worth; of a class that nobody knows, none.
MESSAGES: list[tuple[str | bytes, str | None]] = [
    ("", "bridge_message_ignored"),
    ("{", "bridge_message_ignored"),
    (b"\xff\xfe", "bridge_message_ignored"),
    ("[" * 20_000, "bridge_message_ignored"),
    ('{"colibriClass": null}', "bridge_message_ignored"),
    ('{"colibriClass": "ConnectionStats", "estimatedDownlinkBandwidth": NaN}', "bridge_message_ignored"),
    ('{"colibriClass": "ConnectionStats", "estimatedDownlinkBandwidth": "much"}', "bridge_message_malformed"),
    ('{"colibriClass": "VideoSourcesMap", "mappedSources": 5}', "bridge_message_malformed"),
    ('{"colibriClass": "DominantSpeakerEndpointChangeEvent"}', "bridge_message_malformed"),
    ('{"colibriClass": "EndpointMessage", "from": "x", "msgPayload": 1}', "bridge_message_malformed"),
    (
        '{"colibriClass": "SenderSourceConstraints", "sourceName": "' + "x" * 20_000 + '"}',
        "bridge_message_malformed",
    ),
    ('{"colibriClass": "VideoSourcesMap", "mappedSources": [null, 1, {"ssrc": -1}]}', None),
    ('{"colibriClass": "Unheard"}', None),
]


@pytest.mark.timeout(120)
async def test_bad_bridge_messages_are_one_line_each(stage: Stage) -> None:
    for number, (text, name) in enumerate(MESSAGES):
        marker = f"mark{number}"
        with lines() as told:
            stage.tell(text)
            stage.tell(
                f'{{"colibriClass": "DominantSpeakerEndpointChangeEvent", "dominantSpeakerEndpoint": "{marker}"}}'
            )
            await until(lambda marker=marker: speaker(stage.one) == marker)  # type: ignore[misc]
        assert [line["event_name"] for line in told] == ([name] if name else []), text[:100]
    await stage.hears()
    assert "bridge_channel_degraded" not in stage.seen.names()


def speaker(bot: Participant) -> str | None:
    assert bot.conference is not None
    told = bot.conference.session.bridge.speaker
    return told.endpoint if told is not None else None


async def test_hostile_packets_are_counted_and_cost_nobody_else_anything(stage: Stage) -> None:
    """Garbage in RTP, RTX, RTCP and in the payloads of every codec, while a real stream goes on."""
    (picture,) = [stream for stream in stage.media.snapshot() if stream.media == "video"]
    (sound,) = [stream for stream in stage.media.snapshot() if stream.media == "audio"]
    types = sorted(item.id for content in offer_of(stage) for item in content.payload_types)
    before = stage.media.decoded(picture.ssrc)
    assert before is not None
    frames = before.frames
    for number in range(300):
        for at, kind in enumerate(types):
            body = bytes((number * 31 + at * 7 + step * step) & 0xFF for step in range(number % 40))
            stage.endpoint.put(
                rtp.build(payload_type=kind, sequence=number * 7, timestamp=number, ssrc=9000 + at, body=body)
            )
        stage.endpoint.put(bytes((0x80 | number % 32, 192 + number % 16, 0, 1)) + bytes(4))
        await asyncio.sleep(0)
    await until(lambda: stage.media.decoded(picture.ssrc).frames > frames + 20)  # type: ignore[union-attr]
    assert len(stage.media.received.streams) < 40
    heard = {stream.ssrc: stream for stream in stage.media.snapshot()}
    assert heard[sound.ssrc].packets > sound.packets


def offer_of(stage: Stage) -> Any:
    return stage.media._offer.contents


def candidate(**changes: Any) -> Candidate:
    found = Candidate("1", 1, "udp", 1, "127.0.0.1", 9, "host")
    return replace(found, **changes)


#: Transports that an offer may name, and that lead nowhere.
TRANSPORTS = [
    {"ufrag": "\n\u20ac", "pwd": "\u20ac" * 1000},
    {"ufrag": ":" * 5000},
    {"fingerprints": (Fingerprint("md5", "AA", "actpass"),)},
    {"fingerprints": (Fingerprint("", "\u20ac", "odd"),) * 3},
    {"candidates": ()},
    {"candidates": (candidate(ip="not-an-address"), candidate(protocol="tcp"), candidate(component=2))},
    {"candidates": (candidate(ip="0.0.0.0"), candidate(ip="255.255.255.255"), candidate(ip="224.0.0.1"))},
    {"candidates": (candidate(ip="::1%nowhere"), candidate(ip="fe80::1"), candidate(port=0))},
    {"candidates": (candidate(type="odd", foundation="\u20ac" * 500, rel_addr="x", rel_port=0),)},
    {"candidates": tuple(candidate(port=port) for port in range(1, 1001))},
]


@pytest.mark.parametrize("changes", TRANSPORTS)
async def test_offers_that_lead_nowhere_end_in_a_media_error(changes: dict[str, Any]) -> None:
    whole = Transport("ufrag", "p" * 24, (candidate(),), (Fingerprint("sha-256", "AA", "actpass"),), True)
    session = MediaSession(recorded_offer(replace(whole, **changes)), addresses=LOOPBACK)
    try:
        await session.gather()
        with pytest.raises(MediaError):
            await session.connect([], video_codec="vp8", timeout=0.2)
    finally:
        await session.close()


async def test_what_nobody_thought_of_ends_the_session_and_not_the_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = [ValueError("nobody thought of it")]

    class Odd(SharedSession):
        async def gather(self, *turn: Any) -> Transport:
            if faults:
                raise faults.pop()
            return await super().gather(*turn)

    monkeypatch.setattr(focus, "SharedSession", Odd)
    server = EmbeddedServer(port=0)
    await server.start()
    made = Stage(server)
    try:
        with lines() as told:
            async for _ in made.run():
                pass
    finally:
        await server.stop()
    (failed,) = [event for event in (*made.seen.events, *made.other.events) if event.name == "media_failed"]
    assert isinstance(failed, events.MediaFailed)
    assert (failed.code, failed.cause) == ("internal", "ValueError: nobody thought of it")
    assert [line["event_name"] for line in told] == ["media_session_failed"]


async def test_a_stanza_that_nobody_thought_of_is_one_line(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise LookupError("nobody thought of it")

    monkeypatch.setattr(stage.media, "add_candidates", broken)
    monkeypatch.setattr(stage.one.conference.session, "_refuse_p2p", broken)  # type: ignore[union-attr]
    with lines() as told:
        transport = ET.tostring(
            build_jingle(replace(stage.media._offer, action="transport-info")), encoding="unicode"
        )
        assert (await stage.answer(stage.request(transport))).get("type") == "result"
        await stage.ping()
        found = error_of(await stage.answer(stage.request(jingle("session-initiate", "x"), sender=f"{ROOM}/x")))
    assert found == ("wait", "internal-server-error", None)
    assert [line["event_name"] for line in told] == ["stanza_failed", "request_answered_with_error"]
