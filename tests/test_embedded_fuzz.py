"""Whatever clients say in whatever order: one answer to each request, and rooms that agree with themselves."""

from __future__ import annotations

from collections import Counter
from xml.etree import ElementTree as ET

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bot.embedded.orders import Send
from bot.embedded.stanza import serialize
from bot.jingle.codec import build_jingle
from tests.embedded_support import ROOM, Client, World, local
from tests.jingle_support import jingles as any_jingle
from tests.test_embedded_focus import two_in_a_call

MUC = "http://jabber.org/protocol/muc"
PAYLOADS = [
    "",
    '<ping xmlns="urn:xmpp:ping"/>',
    '<query xmlns="http://jabber.org/protocol/disco#info"/>',
    f'<query xmlns="{MUC}#admin"><item nick="b" role="none"/></query>',
    f'<query xmlns="{MUC}#admin"><item nick="a" affiliation="owner"/></query>',
    f'<query xmlns="{MUC}#admin"><item jid="x@y" affiliation="outcast"/></query>',
    f'<query xmlns="{MUC}#owner"><destroy/></query>',
    f'<query xmlns="{MUC}#owner"><x xmlns="jabber:x:data" type="submit"><field/></x></query>',
    f'<x xmlns="{MUC}"/>',
    f'<x xmlns="{MUC}"><password>p</password></x>',
    "<body>hi</body>",
    "<subject>s</subject>",
    '<error type="cancel"><gone xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error>',
    '<conference xmlns="http://jitsi.org/protocol/focus" room="room@muc.meet.jitsi"/>',
    '<jingle xmlns="urn:xmpp:jingle:1" action="session-accept" sid="x"/>',
]
ADDRESSES = [
    *(f"{ROOM}{nick}" for nick in ("", "/a", "/b", "/focus", "/not a nick")),
    "muc.meet.jitsi",
    "meet.jitsi",
    "lobby.meet.jitsi",
    "focus.meet.jitsi",
    "other.example",
    "@",
    "/",
    "",
]
TYPES = ["", "get", "set", "result", "error", "unavailable", "groupchat", "chat", "probe"]
stanzas = st.builds(
    "<{0} id='{1}' type='{2}' to='{3}'>{4}</{0}>".format,
    st.sampled_from(["iq", "message", "presence"]),
    st.sampled_from(["1", "2", ""]),
    st.sampled_from(TYPES),
    st.sampled_from(ADDRESSES),
    st.sampled_from(PAYLOADS),
)


class Rooms(RuleBasedStateMachine):
    """Three clients who say anything."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(focus=True)
        self.clients = [self.world.bound() for _ in range(3)]

    @rule(number=st.integers(0, 2), stanza=stanzas)
    def say(self, number: int, stanza: str) -> None:
        self.clients[number].send(stanza)

    @rule(number=st.integers(0, 2), nick=st.sampled_from(["a", "b", "c"]))
    def join(self, number: int, nick: str) -> None:
        self.clients[number].join(nick)

    @rule(number=st.integers(0, 2))
    def lose(self, number: int) -> None:
        self.clients[number].lost()
        self.clients[number] = self.world.bound()

    @invariant()
    def rooms_agree(self) -> None:
        for room in self.world.core.muc.rooms.values():
            assert room.occupants, "an empty room is no more"
            assert {who.jid: who for who in room.occupants.values()} == room.by_jid
            assert room.by_jid.keys() <= set(self.world.core.sessions)


TestRooms = Rooms.TestCase
TestRooms.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(st.lists(stanzas, max_size=12))
def test_each_request_is_answered_once(frames: list[str]) -> None:
    client: Client = World().joined("a")
    for frame in frames:
        stanza = ET.fromstring(frame)
        got = client.send(frame)
        answers = [answer for answer in got if local(answer) == "iq" and answer.get("type") in {"result", "error"}]
        if f"to='{ROOM}/a'" not in frame:  # what goes to oneself is a request again
            assert len(answers) == (stanza.tag == "iq" and wants_answer(stanza))


def wants_answer(iq: ET.Element) -> bool:
    """Requests, and what is no IQ at all (RFC 6120 section 8.2.3)."""
    return iq.get("type") not in {"result", "error"} or not iq.get("id")


@given(any_jingle(), st.sampled_from(["one", "two"]), st.booleans())
def test_each_jingle_request_is_answered_once(jingle: object, nick: str, known: bool) -> None:
    stage = two_in_a_call()
    payload = build_jingle(jingle)  # type: ignore[arg-type]
    if known:
        payload.set("sid", stage.member(nick).sid or "")
    outputs = stage.request(nick, serialize(payload))
    answers = [output.stanza for output in outputs if isinstance(output, Send)]
    kinds = Counter(stanza.get("type") for stanza in answers if stanza.get("to") == f"{ROOM}/{nick}")
    assert kinds["result"] + kinds["error"] == 1
