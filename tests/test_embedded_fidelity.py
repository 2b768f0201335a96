"""The embedded server says what the real ones said: recorded clients speak to it, and the answers are compared."""

from __future__ import annotations

import copy
import difflib
import json
import random
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
import pytest_asyncio

from bot.embedded.bridge import Bridge
from bot.embedded.config import EmbeddedConfig
from bot.embedded.core import Output as CoreOutput
from bot.embedded.core import ToFocus, Write, XmppCore
from bot.embedded.focus import Focus
from bot.embedded.hub import ChannelHub, Message, Messages
from bot.embedded.offer import Features, bridge_sources
from bot.embedded.orders import FocusConfig, OpenEndpoint, Output, Send
from bot.embedded.stanza import parse_frame, serialize
from bot.jingle.answer import build_answer
from bot.jingle.codec import build_jingle, parse_jingle
from bot.jingle.model import Action, Jingle, Transport
from tests.embedded_support import AUTH, BIND, ENABLE, OPEN, codes, local
from tests.jingle_support import own_transport
from tests.recordings import Frame, advertised, bridge_messages, dialogue, json_shape, shape
from tests.test_embedded_focus import BASIC, DESKTOP, iqs, two_in_a_call
from tests.test_embedded_hub import sources

DIALOGUES = [
    "probe-basic-alice",
    "probe-media-both-alice",
    "probe-media-sctp-alice",
    "probe-media-sctp-bob",
    "probe-media-ws-alice",
    "probe-modern-alice",
    "web-client-0-xmpp",
    "web-client-1-xmpp",
    "bot-alone",
    "bot-elements",
    "bot-kicked",
    "bot-pair",
    "bot-race-1",
    "bot-sources",
    "bot-three",
    "bot-websocket",
]

#: What differs on purpose: (dialogue or how its name begins, frame, line of its shape) and why. "-" is the real
#: servers', "+" ours.
#: A line that differs no more has to go from here, too.
DELIBERATE = {
    ("", "presence of the focus", "-component name=focus 1.1.SNAPSHOT"): "a client's log says which focus it met",
    ("", "presence of the focus", "+component name=focus embedded"): "see above",
    ("", "presence of the focus with a bridge", "-component name=focus 1.1.SNAPSHOT"): "see above",
    ("", "presence of the focus with a bridge", "+component name=focus embedded"): "see above",
    ("web-client-1-xmpp", "", "+focus asks disco"): "Jicofo remembers features by caps, our focus asks everybody",
    ("web-client-1-xmpp", "", "+close"): "the recording ends with the client's own <close/>",
    ("bot-", "", "+close"): "the recording ends with the client's own <close/>",
    ("bot-", "", "+focus asks disco"): "Jicofo remembers features by caps, our focus asks everybody",
    **{
        (
            "bot-elements",
            f"focus asks {action}",
            f"{line} name={media}{rest}",
        ): "XEP-0166 section 7.3 asks for them"
        for action, media in (("source-add", "audio"), ("source-add", "video"), ("source-remove", "video"))
        for line, rest in (("-content", ""), ("+content creator=initiator", " senders=both"))
    },
    ("bot-race-1", "presence of another", "-item affiliation=none jid=… role=participant"): "two came at once",
    ("bot-race-1", "presence of another", "+item affiliation=owner jid=… role=moderator"): "see above",
    ("bot-elements", "focus asks session-initiate", "-rtcp-mux"): "the children of a description have no order",
    ("bot-elements", "focus asks session-initiate", "+rtcp-mux"): "see above",
    **{
        ("probe-basic-alice", "focus asks session-initiate", f"+{line}"): "Jicofo had not yet heard of them"
        for line in (
            "ssrc-info owner=…",
            *(f"source name=jvb-{kind[0]}0 ssrc=…" for kind in ("audio", "video")),
            *(f"parameter name=msid value=mixedmslabel mixedlabel{kind}0" for kind in ("audio", "video")),
        )
    },
}
#: The bridge of this dialogue had SCTP off; the embedded bridge always has it.
WITHOUT_SCTP = {"probe-media-ws-alice"}

#: The order of a join, whatever comes in between.
ORDER = (
    "result with conference from focus.meet.jitsi",
    "presence of the focus",
    "message of json-message",
    "presence of oneself first",
    "message of subject",
    "presence of the focus with a bridge",
    "focus asks session-initiate",
    "result with nothing from muc.meet.jitsi/focus",
)


class Deployment:
    """The pure parts of the embedded server together, each told after what was said before."""

    def __init__(self, transport: Transport) -> None:
        self.core = XmppCore(EmbeddedConfig())
        self.core.focus_attached = True
        self.focus = Focus(FocusConfig(), rng=random.Random(3))
        self.now = 0.0
        self.transport = transport
        self.got: dict[int, list[ET.Element]] = {}
        self._pending: deque[CoreOutput | Output] = deque()

    def feed(self, client: int, frame: str) -> None:
        """A frame of a client."""
        self._do(self.core.feed(client, frame))

    def tick(self, seconds: float) -> None:
        """Let time go by."""
        self.now += seconds
        self._do(self.focus.tick(self.now))

    def _do(self, outputs: Sequence[CoreOutput | Output]) -> None:
        self._pending.extend(outputs)
        while self._pending:
            match self._pending.popleft():
                case Write(connection, text):
                    self.got.setdefault(connection, []).append(parse_frame(text))
                case ToFocus(stanza):
                    self._pending.extend(self.focus.feed(stanza, self.now))
                case Send(stanza):
                    self._pending.extend(self.core.send(stanza))
                case OpenEndpoint(room, endpoint, sid):
                    self._pending.extend(self.focus.opened(room, endpoint, sid, self.transport, self.now))


class Replay:
    """One recorded client, and whoever else it met, in a deployment of ours."""

    def __init__(self, name: str, transport: Transport) -> None:
        self.frames = dialogue(name)
        self.deployment = Deployment(transport)
        self.client = self.deployment.core.connect()
        bound = next(f.element for f in self.frames if f.element.find("{*}bind/{*}jid") is not None)
        self.nick = (bound.findtext("{*}bind/{*}jid") or "")[:8]
        self.others: dict[str, int] = {}
        self.publishing: set[str] = set()
        # Not everybody was asked for features: Jicofo knew them from somebody with the same caps (XEP-0115).
        answers = (_features(self.frames), _advertised(name), _features(dialogue("web-client-0-xmpp")))
        self.features = next(answer for answer in answers if answer is not None)

    @property
    def ours(self) -> list[ET.Element]:
        """What our server has sent to the client."""
        return self.deployment.got.setdefault(self.client, [])

    @property
    def real(self) -> list[ET.Element]:
        """What the real servers sent to it."""
        return [frame.element for frame in self.frames if not frame.sent]

    def run(self) -> None:
        """Speak the client's part; whoever it met there, it meets here before it goes on."""
        joins = next(at for at, f in enumerate(self.frames) if f.sent and local(f.element) == "presence")
        own = next(at for at, f in enumerate(self.frames) if at > joins and self._nick(f.element) == self.nick)
        for earlier in self.frames[joins:own]:
            self._meet(earlier.element)
        before = 0.0
        for at, frame in enumerate(self.frames):
            self.deployment.tick(max(frame.at - before, 0.1))
            before = frame.at
            if frame.sent:
                self._send(frame.element)
            elif at > own:
                self._meet(frame.element)
            if at == joins and _features(self.frames) is None:
                self._answer(self.client)
        self.deployment.tick(0.1)

    @staticmethod
    def _nick(element: ET.Element) -> str:
        return element.get("from", "").partition("/")[2] if local(element) == "presence" else ""

    def _send(self, element: ET.Element) -> None:
        if local(element) in {"a", "r"}:
            return  # counters differ where the number of stanzas does
        ours = copy.deepcopy(element)
        if ours.get("type") == "result":
            ours.set("id", _asked(self.ours, "query" if len(ours) else "jingle").get("id", ""))
        for jingle in ours.iter("{urn:xmpp:jingle:1}jingle"):
            jingle.set("sid", _asked(self.ours, "jingle")[0].get("sid", ""))
        self.deployment.feed(self.client, serialize(ours))

    def _answer(self, client: int) -> None:
        assert self.features is not None
        answer = copy.deepcopy(self.features)
        asked = _asked(self.deployment.got[client], "query")
        answer.attrib.update(id=asked.get("id", ""), to=asked.get("from", ""))
        self.deployment.feed(client, serialize(answer))

    def _meet(self, element: ET.Element) -> None:
        """Somebody whom the client met comes, says something new, changes his sources, kicks, or leaves."""
        nick = self._nick(element)
        jingle = element.find("{urn:xmpp:jingle:1}jingle")
        if jingle is not None and jingle.get("action", "").startswith("source-"):
            self._change_sources(parse_jingle(jingle))
        if nick == self.nick and "307" in codes(element):
            self._kick(element)
        if nick in {"", "focus", self.nick} or "@muc." not in element.get("from", ""):
            return
        room = element.get("from", "").partition("/")[0]
        presence = ET.Element("{jabber:client}presence", {"to": f"{room}/{nick}"})
        presence.extend(node for node in element if local(node) not in {"occupant-id", "permissions", "x"})
        if element.get("type"):
            presence.set("type", element.get("type", ""))
        if nick in self.others:
            self.deployment.feed(self.others[nick], serialize(presence))
            return
        other = self.others[nick] = self.deployment.core.connect()
        conference = next(f.element for f in self.frames if f.element.find("{*}conference") is not None)
        ET.SubElement(presence, "{http://jabber.org/protocol/muc}x")
        for frame in (OPEN, AUTH, OPEN, BIND, ENABLE, serialize(conference), serialize(presence)):
            self.deployment.feed(other, frame)
        self.deployment.tick(0.1)
        self._answer(other)

    def _kick(self, gone: ET.Element) -> None:
        """Whoever kicked the client does it again (XEP-0045 section 8.2)."""
        item = next(node for node in gone.iter() if local(node) == "item")
        actor, reason = item.find("{*}actor"), item.findtext("{*}reason")
        assert actor is not None
        self.deployment.feed(
            self.others[actor.get("nick", "")],
            f'<iq xmlns="jabber:client" type="set" id="k1" to="{gone.get("from", "").partition("/")[0]}">'
            f'<query xmlns="http://jabber.org/protocol/muc#admin"><item nick="{self.nick}" role="none">'
            f"<reason>{reason}</reason></item></query></iq>",
        )

    def _change_sources(self, told: Jingle) -> None:
        """Whose sources the focus told of publishes or withdraws them: the first ones with his accept."""
        [owner] = {source.owner or "" for source in (*told.sources.audio.sources, *told.sources.video.sources)}
        client = self.others[owner]
        offer = parse_jingle(_asked(self.deployment.got[client], "jingle")[0])
        jingle = Jingle(action=told.action, sid=offer.sid, sources=told.sources)
        if owner not in self.publishing:
            self.publishing.add(owner)
            assert offer.action == Action.SESSION_INITIATE
            jingle = build_answer(offer, responder=owner, transport=own_transport(), own=told.sources)
        focus = _asked(self.deployment.got[client], "jingle").get("from", "")
        request = ET.Element("{jabber:client}iq", {"type": "set", "id": "j1", "to": focus})
        request.append(build_jingle(jingle))
        self.deployment.feed(client, serialize(request))


def _features(frames: Sequence[Frame]) -> ET.Element | None:
    answers = (f.element for f in frames if f.sent and f.element.get("type") == "result")
    return next((answer for answer in answers if answer.find("{*}query") is not None), None)


def _advertised(name: str) -> ET.Element | None:
    """The answer that a client would have given, had it been asked."""
    known = advertised(name)
    if not known:
        return None
    answer = ET.Element("{jabber:client}iq", type="result")
    query = ET.SubElement(answer, "{http://jabber.org/protocol/disco#info}query")
    for feature in known:
        ET.SubElement(query, "{http://jabber.org/protocol/disco#info}feature", var=feature)
    return answer


def _asked(stanzas: Sequence[ET.Element], payload: str) -> ET.Element:
    """The last request with such a payload."""
    requests = (s for s in reversed(stanzas) if s.get("type") in {"get", "set"})
    return next(request for request in requests if local(request[0]) == payload)


def label(element: ET.Element, nick: str) -> str:
    """What a frame is, in words that are the same for both."""
    name, kind = local(element), element.get("type", "")
    if name == "features":
        return (
            f"features with {local(element[0])}"
            if local(element[0]) == "mechanisms"
            else "features after the login"
        )
    if name == "message":
        return f"message of {local(element[0])}"
    if name == "iq" and kind in {"get", "set"}:
        return f"focus asks {element[0].get('action') or 'disco'}"
    if name == "iq":
        what = local(element[0]) if len(element) else "nothing"
        where = element.get("from", "").partition("@")[2] or element.get("from", "")
        return f"{kind} with {what} from {where}"
    if name == "presence":
        return " ".join(f"presence {kind} {_whose(element, nick)}".split())
    return name


def _whose(element: ET.Element, nick: str) -> str:
    sender = element.get("from", "").partition("/")[2]
    if sender == "focus":
        bridges = element.find("{*}conference-properties/{*}property[@key='bridge-count']")
        return "of the focus" + (" with a bridge" if bridges is not None else "")
    if sender != nick:
        return "of another" if "@muc." in element.get("from", "") else "of the session"
    owner = next(iter(element.findall(".//{*}actor")), None)
    return (
        "of oneself"
        + (" as owner" if owner is not None else "")
        + ("" if "100" not in codes(element) else " first")
    )


# --- the comparison -----------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def transport() -> AsyncIterator[Transport]:
    """The transport of the embedded bridge as it offers it."""
    bridge = Bridge(("127.0.0.1",), base_url="ws://localhost:8000")
    yield await bridge.open("room", "endpoint", "sid", Features(), bridge_sources(random.Random(1)))
    await bridge.close()


def replayed(name: str, transport: Transport) -> Replay:
    """A replay that has run; where the real bridge had no WebSocket, ours has none either."""
    offers = [frame.element for frame in dialogue(name) if frame.element.find("{*}jingle") is not None]
    if offers[0].find(".//{http://jitsi.org/protocol/colibri}web-socket") is None:
        transport = replace(transport, web_socket_url=None)
    replay = Replay(name, transport)
    replay.run()
    return replay


def labels(stanzas: Sequence[ET.Element], nick: str) -> list[str]:
    """What was said, in its order, acknowledgements left out."""
    return [label(stanza, nick) for stanza in stanzas if local(stanza) not in {"a", "r"}]


def shapes(stanzas: Sequence[ET.Element], nick: str) -> dict[str, str]:
    """The shape of the first frame of each kind."""
    found: dict[str, str] = {}
    for stanza in stanzas:
        if local(stanza) not in {"a", "r"}:
            found.setdefault(label(stanza, nick), shape(stanza))
    return found


def differing(real: Sequence[str], ours: Sequence[str]) -> list[str]:
    """Lines of a comparison, without namespaces and indentation: "-" real, "+" ours."""
    lines = difflib.unified_diff(real, ours, lineterm="", n=0)
    kept = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
    return [line[0] + line[1:].strip().rpartition("}")[2] for line in kept]


@pytest.mark.parametrize("name", DIALOGUES)
async def test_the_same_is_said_in_the_same_shape(name: str, transport: Transport) -> None:
    replay = replayed(name, transport)
    real, ours = shapes(replay.real, replay.nick), shapes(replay.ours, replay.nick)
    if name in WITHOUT_SCTP:
        offer = ours["focus asks session-initiate"]
        assert "sctpmap" in offer
        ours["focus asks session-initiate"] = without_data(offer)
    found = {
        (frame, line)
        for frame in real.keys() & ours.keys()
        for line in differing(real[frame].splitlines(), ours[frame].splitlines())
    }
    counted = differing(sorted(labels(replay.real, replay.nick)), sorted(labels(replay.ours, replay.nick)))
    found |= {("", line) for line in counted}
    expected = {(frame, line) for where, frame, line in DELIBERATE if name.startswith(where)}
    assert found == expected


def without_data(offer: str) -> str:
    """The shape of an offer less its content for the bridge channel over SCTP."""
    lines = offer.splitlines()
    start = next(at for at, line in enumerate(lines) if "}content " in line and "name=data" in line)
    end = next(at for at, line in enumerate(lines) if at > start and "}group " in line)
    kept = lines[:start] + lines[end:]
    return "\n".join(line for line in kept if not line.endswith("}content name=data"))


@pytest.mark.parametrize("name", DIALOGUES)
async def test_the_join_has_its_order(name: str, transport: Transport) -> None:
    replay = replayed(name, transport)
    for stanzas in (replay.real, replay.ours):
        said = labels(stanzas, replay.nick)
        first = list(dict.fromkeys(step for step in said if step in ORDER))
        assert first == [step for step in ORDER if step in said]
        assert len([step for step in ORDER if step in said]) >= len(ORDER) - 1


@pytest.mark.parametrize("name", [name for name in DIALOGUES if name.endswith(("alice", "0-xmpp"))])
async def test_ownership_comes_by_a_second_presence_after_the_first(name: str, transport: Transport) -> None:
    replay = replayed(name, transport)
    for stanzas in (replay.real, replay.ours):
        own = [step for step in labels(stanzas, replay.nick) if step.startswith("presence of oneself")]
        assert own[:2] == ["presence of oneself first", "presence of oneself as owner"]


# --- what no recording has: a shared screen, after Jicofo's JingleSession -----------------------------------


def test_a_screen_added_as_jicofo_writes_them() -> None:
    """``createAddSourceIq``: no initiator; JSON without contents where the client knows it."""
    stage = two_in_a_call(two=BASIC)
    stage.opened(*stage.enter("three"))
    stage.accept("three")
    told = {
        stanza.get("to", "").partition("/")[2]: stanza
        for stanza in iqs(stage.jingle("one", "source-add", DESKTOP))
    }
    sources_of_one = {"sources": {"one": [[{"m": "str", "n": "str", "s": "int", "v": "str"}], [], []]}}
    assert shape(told["three"][0]).splitlines() == [
        "{urn:xmpp:jingle:1}jingle action=source-add sid=…",
        f"  {{http://jitsi.org/jitmeet}}json-message  {json.dumps(sources_of_one)}",
    ]
    # Jicofo leaves creator and senders out of these contents, which XEP-0166 section 7.3 does not allow.
    assert shape(told["two"][0]).splitlines() == [
        "{urn:xmpp:jingle:1}jingle action=source-add sid=…",
        "  {urn:xmpp:jingle:1}content creator=initiator name=video senders=both",
        "    {urn:xmpp:jingle:apps:rtp:1}description media=video",
        "      {urn:xmpp:jingle:apps:rtp:ssma:0}source name=one-v1 ssrc=… videoType=desktop",
        "        {http://jitsi.org/jitmeet}ssrc-info owner=…",
        "        {urn:xmpp:jingle:apps:rtp:1}parameter name=msid value=one-video-1 d",
    ]


# --- the bridge channel -------------------------------------------------------------------------------------

BRIDGES = ["web-client-0-bridge", "web-client-1-bridge", *(name for name in DIALOGUES if "media" in name)]
#: With constraints of other heights, and less of the speaker.
BRIDGES_OF_BOTS = [f"{name}-bridge" for name in DIALOGUES if name.startswith("bot-") and "race" not in name]
#: What the other endpoint sends itself is only passed on.
PASSED_ON = {"EndpointMessage", "EndpointStats"}


def said_by_our_bridge(*, web_socket: bool) -> list[Message]:
    """A life on the channel as in the recordings: opened, constraints, speaker, messages, statistics."""
    hub = ChannelHub()
    said: list[Message] = []

    def keep(messages: Messages) -> None:
        said.extend(message for endpoint, message in messages if endpoint == "me")

    for name in ("me", "other"):
        hub.add(name, rewriting=True)
    keep(hub.set_sources("me", sources("me", 10)))
    keep(hub.opened("other", 0.0, web_socket=True))
    keep(hub.opened("me", 0.0, web_socket=web_socket))
    keep(hub.set_sources("other", sources("other", 20)))
    keep(hub.speaker("other"))
    keep(hub.speaker("me"))
    for name in ("me", "other"):
        wanted = {
            "colibriClass": "ReceiverVideoConstraints",
            "lastN": -1,
            "defaultConstraints": {"maxHeight": 180},
        }
        keep(hub.feed(name, wanted))
    keep(hub.feed("other", {"colibriClass": "EndpointMessage", "to": "me", "msgPayload": {"hello": "bob"}}))
    keep(hub.feed("other", RECORDED_STATS))
    keep(hub.statistics("me", 10.0, 1_867_571))
    keep(hub.remove("other"))
    return said


RECORDED_STATS = next(m for m in bridge_messages("web-client-0-bridge") if m["colibriClass"] == "EndpointStats")


def kind(message: Message) -> str:
    """Names and types of all that is in a message; of a list's entries those that differ."""
    shapes = {key: json_shape(value) for key, value in message.items() if key != "colibriClass"}
    alike = {
        key: [item for at, item in enumerate(value) if item not in value[:at]]
        if isinstance(value, list)
        else value
        for key, value in shapes.items()
    }
    return json.dumps(alike, sort_keys=True)


def by_class(messages: Sequence[Message]) -> dict[str, set[str]]:
    """Shapes by class; an empty list says nothing of what would be in it."""
    found: dict[str, set[str]] = {}
    for message in messages:
        if (
            message.get("forwardedSources") != []
            and message.get("mappedSources") != []
            and message.get("previousSpeakers") != []
        ):
            found.setdefault(str(message["colibriClass"]), set()).add(kind(message))
    return found


@pytest.mark.parametrize("name", BRIDGES + BRIDGES_OF_BOTS)
def test_bridge_messages_have_the_recorded_shape(name: str) -> None:
    real, ours = by_class(bridge_messages(name)), by_class(said_by_our_bridge(web_socket=True))
    assert real.keys() <= ours.keys()
    for what in real.keys() - PASSED_ON:
        assert real[what] == ours[what], what


@pytest.mark.parametrize("name", BRIDGES)
def test_bridge_messages_come_in_the_recorded_course(name: str) -> None:
    real = bridge_messages(name)
    web_socket = any(message["colibriClass"] == "ServerHello" for message in real)
    ours = said_by_our_bridge(web_socket=web_socket)
    for messages in (real, ours):
        classes = [message["colibriClass"] for message in messages]
        assert classes.count("ServerHello") == web_socket
        forwarded = [message["forwardedSources"] for message in messages if "forwardedSources" in message]
        assert [len(names) for names in forwarded][:2] == [0, 1]
        heights = [message["maxHeight"] for message in messages if "maxHeight" in message]
        assert 180 in heights
        assert all(height in {0, 180} for height in heights)
        first = {what: classes.index(what) for what in classes[::-1]}
        assert first["VideoSourcesMap"] < classes.index("ForwardedSources", first["ForwardedSources"] + 1)
