"""The pure parts of XMPP: addresses, frames, features, occupants, errors, against recorded dialogues."""

import re
import socket
import ssl
import xml.etree.ElementTree as ET

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from slixmpp.xmlstream import ElementBase
from yarl import URL

from bot import errors
from bot.xmpp import features, framing
from bot.xmpp.address import is_loopback, redact, xmpp_websocket_url
from bot.xmpp.connection import _endpoint_id
from bot.xmpp.failures import from_connect_error, from_status
from bot.xmpp.occupants import (
    MAX_OCCUPANTS,
    OccupantChanged,
    OccupantJoined,
    OccupantLeft,
    OccupantTable,
    SelfChanged,
    SelfJoined,
    SelfLeft,
)
from bot.xmpp.room import join_error
from bot.xmpp.stanza_errors import StanzaError
from bot.xmpp.stream import Stream
from tests.conftest import CAPTURES

# --- addresses ---


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("ws://localhost:8000", "ws://localhost:8000/xmpp-websocket?room=r"),
        ("https://meet.example.com/", "wss://meet.example.com/xmpp-websocket?room=r"),
        ("wss://h/other/path?room=x&k=v", "wss://h/other/path?room=r&k=v"),
        ("http://[::1]:8000", "ws://[::1]:8000/xmpp-websocket?room=r"),
    ],
)
def test_the_address_is_completed(base: str, expected: str) -> None:
    assert xmpp_websocket_url(base, "r") == expected


def test_token_and_previd_go_on_the_address_and_never_into_a_log() -> None:
    url = xmpp_websocket_url("wss://h?token=old", "a b", "new", "sm1")
    assert url == "wss://h/xmpp-websocket?room=a%20b&token=new&previd=sm1"
    assert redact(url) == "wss://h/xmpp-websocket?room=a%20b&token=***&previd=***"
    assert xmpp_websocket_url("wss://h?token=old", "") == "wss://h/xmpp-websocket?token=old"
    assert redact("wss://user:pw@h/p") == "wss://***@h/p"


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("wss://localhost:8443", "8000"),
        ("https://127.0.0.1:8443/x", "8000"),
        ("localhost:8000", "ws://"),
        ("ws://", "names no host"),
        ("ws://h:99999", "can't be read"),
        ("wss://user:pw@h", "user name"),
    ],
)
def test_an_address_that_cannot_be_right_is_explained(base: str, said: str) -> None:
    with pytest.raises(errors.WrongAddressError) as caught:
        xmpp_websocket_url(base, "r")
    assert said in str(caught.value)
    assert "pw" not in str(caught.value)


def test_loopback() -> None:
    assert [is_loopback(host) for host in ("localhost", "a.localhost", "127.0.0.9", "::1")] == [True] * 4
    assert [is_loopback(host) for host in (None, "example.com", "10.0.0.1")] == [False] * 3


# --- frames ---


def test_frames_are_whole_harmless_elements() -> None:
    element = framing.parse_frame("<iq xmlns='jabber:client' type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>")
    assert framing.serialize(element) == (
        '<iq xmlns="jabber:client" type="get" id="1"><ping xmlns="urn:xmpp:ping"/></iq>'
    )
    for bad in ("", "text", "<a>", "<a/><b/>", "<!DOCTYPE a []><a/>", "<?xml version='1.0'?><a/>", "<a>&x;</a>"):
        with pytest.raises(framing.FrameError):
            framing.parse_frame(bad)
    with pytest.raises(framing.FrameError, match="more than 3"):
        framing.parse_frame("<abc/>", max_chars=3)
    with pytest.raises(framing.FrameError, match="deep"):
        framing.parse_frame("<a>" * 300 + "</a>" * 300)
    assert framing.parse_frame("<a>" + "<b/>" * 300 + "</a>").tag == "a"


def test_open_and_close() -> None:
    assert framing.parse_frame(framing.open_frame('a"b', lang="en")).get("to") == 'a"b'
    assert framing.parse_frame(framing.open_frame("d")).tag == framing.OPEN
    assert framing.parse_frame(framing.close_frame()).tag == framing.CLOSE


def test_the_head_of_an_unread_stanza() -> None:
    head = framing.sniff_stanza("<iq type='get' id=\"a&amp;b\" from='x'><broken")
    assert head == framing.StanzaHead("iq", {"type": "get", "id": "a&b", "from": "x"})
    assert framing.sniff_stanza("<stream:features>") is None


_text = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=20)


@given(_text, _text, _text)
def test_what_is_written_is_read_back(text: str, tail: str, value: str) -> None:
    element = ET.Element("{urn:a}x", {"k": value, f"{{{framing.NS_XML}}}lang": "en", "{urn:c}z": "1"})
    child = ET.SubElement(element, "{urn:b}y")
    child.text, child.tail = text, tail
    found = framing.parse_frame(framing.serialize(element))
    assert (found.tag, found.attrib) == (element.tag, element.attrib)
    assert (found[0].text or "", found[0].tail or "") == (
        text.replace("￾", "").replace("￿", ""),
        tail.replace("￾", "").replace("￿", ""),
    )


# --- features ---


def test_the_hash_is_that_of_xep_0115() -> None:
    """The web client's recorded features and hash prove the algorithm; its identity list is empty."""
    text = (CAPTURES / "web-client-0-xmpp.txt").read_text()
    line = next(item for item in text.splitlines() if "disco#info" in item and "rayo" in item)
    found = tuple(re.findall(r'<feature var="([^"]+)"', line))
    assert len(found) == 18
    advertised = features.features(sctp=True)
    assert set(advertised) - set(found) <= {
        "http://jabber.org/protocol/disco#info",
        "urn:xmpp:ping",
        "urn:ietf:rfc:5761",
        "urn:ietf:rfc:5888",
    }
    assert features.SCTP not in features.features(sctp=False)
    assert set(features.features(sctp=True, red=True)) - set(advertised) == {"http://jitsi.org/opus-red"}
    assert len(features.caps_hash(advertised)) == 28
    assert features.caps_hash(advertised) != features.caps_hash(features.features(sctp=False))


def test_the_disco_answer_echoes_the_node() -> None:
    query = ET.Element(features.DISCO_INFO, node="n#v")
    answer = features.disco_answer(query, ("a", "b"))
    assert answer.get("node") == "n#v"
    assert [item.get("var") for item in answer][1:] == ["a", "b"]
    assert features.caps_element(("a",)).get("node") == features.NODE


# --- occupants ---


def recorded_presences(name: str) -> list[ET.Element]:
    text = (CAPTURES / name).read_text()
    blocks = re.findall(r"<!-- RECV t=[\d.]+ -->\n(<presence.*?)\n\n", text + "\n\n", re.DOTALL)
    return [ET.fromstring(block) for block in blocks]


def test_a_recorded_room() -> None:
    table = OccupantTable("7e4902cb")
    seen = [
        event for presence in recorded_presences("probe-media-both-alice.xml") for event in table.feed(presence)
    ]
    assert [type(event) for event in seen] == [
        OccupantJoined,
        SelfJoined,
        SelfChanged,
        OccupantJoined,
        SelfLeft,
    ]
    assert isinstance(seen[-1], SelfLeft)
    assert seen[-1].error is None
    assert table.focus is not None
    assert table.focus.versions == {"focus": "1.1.SNAPSHOT"}
    (bob,) = table.others
    assert (bob.endpoint, bob.nick, bob.codecs) == ("6d6c5c99", "Probe bob", ("vp8",))
    assert bob.sources == {"6d6c5c99-a0": {"muted": True}}
    assert table.me is None
    assert repr(table) == "<OccupantTable 2 others, self out>"


def presence(body: str = "", *, kind: str = "", who: str = "me") -> ET.Element:
    attribute = f" type='{kind}'" if kind else ""
    user = f"<x xmlns='http://jabber.org/protocol/muc#user'>{body}</x>"
    return ET.fromstring(f"<presence xmlns='jabber:client' from='r@muc/{who}'{attribute}>{user}</presence>")


@pytest.mark.parametrize(
    ("body", "error", "said"),
    [
        (
            "<item><actor nick='boss'/><reason>noise</reason></item><status code='307'/>",
            errors.KickedError,
            "by boss: noise",
        ),
        ("<item/><status code='301'/>", errors.BannedError, "Banned"),
        ("<destroy><reason>over</reason></destroy>", errors.RoomDestroyedError, "over"),
        ("<status code='322'/>", errors.RoomError, "322"),
    ],
)
def test_why_we_are_out(body: str, error: type[errors.RoomError], said: str) -> None:
    table = OccupantTable("me")
    table.feed(presence())
    (event,) = table.feed(presence(body, kind="unavailable"))
    assert isinstance(event, SelfLeft)
    assert isinstance(event.error, error)
    assert said in str(event.error)


def test_others_come_change_and_go() -> None:
    table = OccupantTable("me")
    assert [type(item) for item in table.feed(presence(who="a"))] == [OccupantJoined]
    assert table.feed(presence(who="a")) == []
    changed = table.feed(presence("<item role='moderator'/>", who="a"))
    assert [type(item) for item in changed] == [OccupantChanged]
    assert [type(item) for item in table.feed(presence(kind="unavailable", who="a"))] == [OccupantLeft]
    assert table.feed(presence(kind="unavailable", who="a")) == []
    assert table.feed(presence(kind="error", who="b")) == []
    odd = ET.fromstring(
        "<presence xmlns='jabber:client' from='r@muc/c'><SourceInfo>[broken</SourceInfo></presence>"
    )
    (event,) = table.feed(odd)
    assert isinstance(event, OccupantJoined)
    assert event.occupant.sources == {}


def test_a_room_without_end_is_bounded_and_an_older_clients_hand_is_seen() -> None:
    table = OccupantTable("me")
    for number in range(MAX_OCCUPANTS):
        table.feed(presence(who=f"a{number}"))
    assert table.feed(presence(who="late")) == []
    assert len(table.others) == MAX_OCCUPANTS
    raised = "<jitsi_participant_raisedHand>true</jitsi_participant_raisedHand>"
    (event,) = table.feed(ET.fromstring(f"<presence xmlns='jabber:client' from='r@muc/a0'>{raised}</presence>"))
    assert isinstance(event, OccupantChanged)
    assert event.occupant.raised_hand == 1


def test_what_an_occupant_writes_is_bounded() -> None:
    much = "x" * 100_000
    versions = "".join(f"<component name='{number}{much}'>{much}</component>" for number in range(150))
    stanza = ET.fromstring(
        f"<presence xmlns='jabber:client' from='r@muc/c'><SourceInfo>{{\"a\": \"{much}\"}}</SourceInfo>"
        f"<nick xmlns='http://jabber.org/protocol/nick'>{much}</nick>"
        f"<jitsi_participant_codecList>{much}</jitsi_participant_codecList>"
        f"<versions xmlns='http://jitsi.org/jitmeet'>{versions}</versions></presence>"
    )
    (event,) = OccupantTable("me").feed(stanza)
    assert isinstance(event, OccupantJoined)
    assert len(repr(event.occupant)) < 300_000
    assert (len(event.occupant.nick), event.occupant.sources, len(event.occupant.versions)) == (1024, {}, 100)


# --- endpoint ids ---


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        ("7e4902cb-7f24-410d-b4d5-3f01c046888c", "7e4902cb"),
        ("liyss4vdzlyhrgrazgoqhmmb", "liyss4vd"),
        ("b-mgduhfkf3p_wsmowhgyya7", None),
        ("zyabhou-osglrov9kdkeai6w", None),
        ("_ukor1ghz-88bkkacas8q0tg", None),
        ("", None),
    ],
)
def test_an_endpoint_id_is_always_whole(local: str, expected: str | None) -> None:
    found = _endpoint_id(local, anonymous=True)
    assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_]{7}", found)
    assert expected is None or found == expected
    assert _endpoint_id(local, anonymous=False) != expected


# --- errors ---


@pytest.mark.parametrize(
    ("condition", "error"),
    [
        ("not-authorized", errors.RoomPasswordError),
        ("service-unavailable", errors.RoomFullError),
        ("forbidden", errors.BannedError),
        ("registration-required", errors.MembersOnlyError),
        ("conflict", errors.NicknameConflictError),
        ("not-allowed", errors.RoomAccessError),
        ("gone", errors.RoomError),
    ],
)
def test_refused_joins(condition: str, error: type[errors.RoomError]) -> None:
    stanza = ET.fromstring(
        f"<presence xmlns='jabber:client' type='error'><error type='auth'>"
        f"<{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>"
        f"<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>why</text>"
        f"<lobbyroom xmlns='http://jitsi.org/jitmeet'>l@lobby</lobbyroom></error></presence>"
    )
    found = join_error(stanza, "r@muc")
    assert type(found) is error
    assert "why" in str(found)
    if isinstance(found, errors.MembersOnlyError):
        assert found.lobby == "l@lobby"


@pytest.mark.parametrize(
    "details",
    [
        "<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>Room creation is restricted</text>",
        "<room-does-not-exist xmlns='http://jitsi.org/jitmeet'/>",
    ],
)
def test_a_room_that_only_others_may_create(details: str) -> None:
    stanza = ET.fromstring(
        "<presence xmlns='jabber:client' type='error'><error type='cancel'>"
        f"<not-allowed xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>{details}</error></presence>"
    )
    assert type(join_error(stanza, "r@muc")) is errors.RoomRestrictedError


def test_stanza_errors_survive_the_wire() -> None:
    stanza = ET.Element("{jabber:client}iq")
    detail = ET.Element("{urn:xmpp:jingle:errors:1}unknown-session")
    stanza.append(StanzaError("item-not-found", "who?", kind="modify", details=(detail,)).to_xml())
    found = StanzaError.from_iq(stanza)
    assert [item.tag for item in found.details] == [detail.tag]
    assert (found.condition, found.text, found.kind) == ("item-not-found", "who?", "modify")
    assert StanzaError.from_iq(ET.Element("iq")).condition == "undefined-condition"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (404, errors.WrongAddressError),
        (200, errors.WrongAddressError),
        (403, errors.WrongAddressError),
        (429, errors.RateLimitedError),
        (502, errors.ServerUnavailableError),
    ],
)
def test_http_answers_in_place_of_a_websocket(status: int, error: type[errors.BotError]) -> None:
    found = from_status(status, "ws://h")
    assert type(found) is error
    assert str(status) in str(found) or status == 200


def test_other_failures_to_connect() -> None:
    assert isinstance(from_connect_error(OSError("odd"), "ws://h"), errors.ConnectionFailedError)
    assert "odd" in str(from_connect_error(aiohttp.ClientError("odd"), "ws://h"))


def test_a_name_that_does_not_resolve_and_a_failed_handshake_of_tls() -> None:
    assert isinstance(from_connect_error(socket.gaierror("no"), "ws://h"), errors.NameResolutionError)
    found = from_connect_error(ssl.SSLError("wrong version number"), "wss://h")
    assert isinstance(found, errors.TlsError)
    assert "JITSI_CA_FILE" in str(found)
    headers: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())
    request = aiohttp.RequestInfo(URL("ws://h"), "GET", headers, URL("ws://h"))
    answered = aiohttp.ClientResponseError(request, (), status=502)
    assert isinstance(from_connect_error(answered, "ws://h"), errors.ServerUnavailableError)


@pytest.mark.parametrize(
    ("said", "believed"), [("30", 30.0), ("nan", 60.0), ("inf", 60.0), ("-1", 60.0), ("1e9", 60.0), ("soon", 60.0)]
)
async def test_a_time_to_resume_is_a_time(said: str, believed: float) -> None:
    stream = Stream("meet.jitsi", "", lambda _: None)
    enabled = ElementBase()
    enabled.xml = ET.Element("{urn:xmpp:sm:3}enabled", max=said)
    stream._note_resume_time(enabled)
    assert stream.resume_seconds == believed
    await stream.finish()
