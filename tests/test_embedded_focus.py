"""The focus by an injected clock: requests for a conference, sessions, sources, restarts, and being alone."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bot.embedded.conference import Conference
from bot.embedded.focus import Focus
from bot.embedded.offer import BRIDGE, Features, ssrcs
from bot.embedded.orders import (
    CloseEndpoint,
    ConnectEndpoint,
    FocusConfig,
    Member,
    OpenEndpoint,
    Output,
    Send,
    SetSources,
)
from bot.embedded.stanza import error_reply, parse_frame
from bot.jingle.codec import build_jingle, parse_jingle
from bot.jingle.model import Action, Content, Jingle, Media, MediaSources, Source, SourceGroup, SourceMap
from tests.embedded_support import ROOM, condition, local
from tests.jingle_support import audio_video, own_transport

ME = "focus@auth.meet.jitsi/focus"
JSON = "http://jitsi.org/json-encoded-sources"
REWRITING = "http://jitsi.org/ssrc-rewriting-1"
BASIC = ("urn:xmpp:jingle:apps:rtp:audio", "urn:xmpp:jingle:apps:rtp:video", "urn:ietf:rfc:4588")
MODERN = (*BASIC, "http://jitsi.org/tcc", JSON, "urn:xmpp:jingle:transports:dtls-sctp:1")


MEDIA: tuple[Media, ...] = ("audio", "video")
CONTENTS = tuple(Content(kind, kind, creator="responder", transport=own_transport("active")) for kind in MEDIA)
NOTHING = SourceMap()


class Stage:
    """A focus with one room. Each method returns what the focus wants done; ``now`` is the clock."""

    def __init__(self, config: FocusConfig | None = None) -> None:
        self.config = config or FocusConfig()
        self.focus = Focus(self.config, rng=random.Random(7))
        self.now = 0.0
        self.numbers = itertools.count(1)
        self.ask()

    def feed(self, text: str) -> list[Output]:
        return self.focus.feed(parse_frame(text), self.now)

    def ask(self, room: str = ROOM) -> list[Output]:
        return self.feed(
            f'<iq type="set" id="c1" from="a@meet.jitsi/r" to="focus.meet.jitsi">'
            f'<conference xmlns="http://jitsi.org/protocol/focus" room="{room}"/></iq>'
        )

    @property
    def conference(self) -> Conference:
        return self.focus.conferences[ROOM]

    def member(self, nick: str) -> Member:
        return self.conference.members[nick]

    def presence(self, nick: str, affiliation: str = "none", kind: str = "", more: str = "") -> list[Output]:
        return self.feed(
            f'<presence from="{ROOM}/{nick}" to="{ME}"{kind}>{more}<x xmlns="http://jabber.org/protocol/muc#user">'
            f'<item affiliation="{affiliation}" role="participant" jid="{nick}@meet.jitsi/r"/></x></presence>'
        )

    def leave(self, nick: str) -> list[Output]:
        return self.presence(nick, kind=' type="unavailable"')

    def tick(self, seconds: float) -> list[Output]:
        self.now += seconds
        return self.focus.tick(self.now)

    def answer(self, request: ET.Element, *features: str, kind: str = "result") -> list[Output]:
        query = "".join(f'<feature var="{feature}"/>' for feature in features)
        content = f'<query xmlns="http://jabber.org/protocol/disco#info">{query}</query>' if features else ""
        return self.feed(
            f'<iq type="{kind}" id="{request.get("id")}" from="{request.get("to")}" to="{ME}">{content}</iq>'
        )

    def enter(self, nick: str, *features: str) -> list[Output]:
        """Join, and answer the focus's question for features."""
        [request] = iqs(self.presence(nick))
        return self.answer(request, *(features or MODERN))

    def opened(self, *outputs: Output) -> list[Output]:
        """The bridge opens what it is told to."""
        found = []
        for order in outputs:
            if isinstance(order, OpenEndpoint):
                found += self.focus.opened(order.room, order.endpoint, order.sid, own_transport(), self.now)
        return found

    def jingle(self, nick: str, action: str, sources: SourceMap = NOTHING, **fields: object) -> list[Output]:
        """A Jingle request of ``nick``."""
        fields = {"sid": self.member(nick).sid or "none", "contents": CONTENTS} | fields
        payload = build_jingle(Jingle(action=action, sources=sources, **fields))  # type: ignore[arg-type]
        return self.request(nick, ET.tostring(payload, encoding="unicode"))

    def request(self, nick: str, payload: str, kind: str = "set") -> list[Output]:
        number = next(self.numbers)
        return self.feed(f'<iq type="{kind}" id="j{number}" from="{ROOM}/{nick}" to="{ME}">{payload}</iq>')

    def accept(self, nick: str, sources: SourceMap = NOTHING) -> list[Output]:
        return self.jingle(nick, Action.SESSION_ACCEPT, sources)


ONE, TWO = audio_video(11, 12, 13), audio_video(21, 22, 23)


def stanzas(outputs: Sequence[Output]) -> list[ET.Element]:
    return [output.stanza for output in outputs if isinstance(output, Send)]


def iqs(outputs: Sequence[Output]) -> list[ET.Element]:
    return [stanza for stanza in stanzas(outputs) if local(stanza) == "iq"]


def jingles(outputs: Sequence[Output]) -> list[tuple[str, Jingle]]:
    """Nick and Jingle of each that the focus sends."""
    return [
        (stanza.get("to", "").partition("/")[2], parse_jingle(stanza[0]))
        for stanza in iqs(outputs)
        if stanza.get("type") == "set" and local(stanza[0]) == "jingle"
    ]


def refused(outputs: Sequence[Output]) -> tuple[str, str]:
    """Type and condition of the one error; nothing else may be wanted."""
    [output] = outputs
    assert isinstance(output, Send)
    return condition(output.stanza)


def two_in_a_call(one: Sequence[str] = MODERN, two: Sequence[str] = MODERN) -> Stage:
    stage = Stage()
    stage.enter("one", *one)
    stage.opened(*stage.enter("two", *two))
    stage.accept("one", ONE)
    stage.accept("two", TWO)
    return stage


# --- the way in --------------------------------------------------------------------------------------------


def test_a_conference_request_brings_the_focus_into_the_room() -> None:
    focus = Stage().focus
    outputs = focus.feed(
        parse_frame(
            '<iq type="set" id="c1" from="a@meet.jitsi/r" to="focus.meet.jitsi">'
            '<conference xmlns="http://jitsi.org/protocol/focus" room="Other@muc.meet.jitsi"/></iq>'
        ),
        0.0,
    )
    join, answer = stanzas(outputs)
    assert (join.get("from"), join.get("to")) == (ME, "other@muc.meet.jitsi/focus")
    assert join.find("{http://jabber.org/protocol/muc}x") is not None
    assert (answer.get("type"), answer.get("to"), answer.get("from")) == (
        "result",
        "a@meet.jitsi/r",
        "focus.meet.jitsi",
    )
    assert answer[0].get("ready") == "true"
    assert answer[0].get("focusjid") == "focus@auth.meet.jitsi"


def test_a_second_request_is_only_answered() -> None:
    [answer] = Stage().ask()
    assert isinstance(answer, Send)
    assert local(answer.stanza) == "iq"


@pytest.mark.parametrize("room", ["", "room", "room@other.example", "muc.meet.jitsi"])
def test_a_request_for_what_is_no_room(room: str) -> None:
    assert refused(Stage().ask(room)) == ("modify", "bad-request")


def test_a_room_that_nobody_enters_is_left_after_a_while() -> None:
    stage = Stage()
    assert stage.focus.next_deadline() == 15.0
    assert stage.tick(14.9) == []
    [left] = stanzas(stage.tick(0.1))
    assert (left.get("type"), left.get("to")) == ("unavailable", f"{ROOM}/focus")
    assert stage.focus.conferences == {}
    assert stage.focus.next_deadline() is None


def test_the_first_one_is_made_owner_after_30_ms() -> None:
    stage = Stage()
    stage.presence("one")
    stage.presence("two")
    assert stage.focus.next_deadline() == 0.03
    [grant] = iqs(stage.tick(0.03))
    item = grant[0][0]
    assert (grant.get("to"), item.get("affiliation"), item.get("jid")) == (ROOM, "owner", "one@meet.jitsi")
    assert stage.tick(0.03) == []


def test_nobody_is_made_owner_where_there_is_one_and_the_next_one_is_when_he_left() -> None:
    stage = Stage()
    stage.presence("one", "owner")
    stage.presence("two")
    assert stage.tick(1.0) == []
    stage.leave("one")
    [grant] = iqs(stage.tick(0.03))
    assert grant[0][0].get("jid") == "two@meet.jitsi"


def test_a_later_presence_may_bring_ownership_and_asks_nothing_again() -> None:
    stage = Stage()
    stage.presence("one")
    assert stage.presence("one", "owner") == []
    assert stage.member("one").affiliation == "owner"


def test_features_are_asked_for_by_the_node_of_the_capabilities() -> None:
    stage = Stage()
    caps = (
        '<c xmlns="http://jabber.org/protocol/caps" node="https://jitsi.org/jitsi-meet" ver="abc" hash="sha-1"/>'
    )
    [request] = iqs(stage.presence("one", more=caps))
    assert (request.get("type"), request.get("to")) == ("get", f"{ROOM}/one")
    assert request[0].get("node") == "https://jitsi.org/jitsi-meet#abc"


def test_presence_that_concerns_nobody() -> None:
    stage = Stage()
    assert stage.feed(f'<presence from="{ROOM}/focus" to="{ME}"/>') == []
    assert stage.feed(f'<presence from="{ROOM}/one" type="error" to="{ME}"/>') == []
    assert stage.feed(f'<presence from="other@muc.meet.jitsi/one" to="{ME}"/>') == []
    assert stage.feed(f'<message from="{ROOM}/one" to="{ME}"><body>hi</body></message>') == []
    assert stage.leave("nobody") == []
    assert stage.feed(f'<presence from="{ROOM}/plain" to="{ME}"/>') != []
    assert stage.member("plain").jid == ""


# --- sessions ----------------------------------------------------------------------------------------------


def test_nobody_alone_gets_a_session() -> None:
    stage = Stage()
    assert stage.enter("one") == []
    assert [local(stanza[0]) for stanza in stanzas(stage.tick(100.0))] == ["query"]  # ownership, and no more
    assert stage.tick(1000.0) == []
    assert stage.member("one").sid is None


def test_the_second_one_brings_a_session_for_both() -> None:
    stage = Stage()
    stage.enter("one")
    outputs = stage.enter("two")
    orders = [output for output in outputs if isinstance(output, OpenEndpoint)]
    assert [order.endpoint for order in orders] == ["one", "two"]
    [presence] = stanzas(outputs)
    properties = {node.get("key"): node.get("value") for node in presence.findall(".//{*}property")}
    assert properties == {"support-terminate-restart": "true", "bridge-count": "1"}
    offers = jingles(stage.opened(*orders))
    assert [(nick, offer.action, offer.initiator) for nick, offer in offers] == [
        ("one", "session-initiate", ME),
        ("two", "session-initiate", ME),
    ]
    assert offers[0][1].sid != offers[1][1].sid
    assert offers[0][1].bundle == ("audio", "video", "data")
    assert offers[0][1].bridge_session_id == offers[1][1].bridge_session_id


def test_a_third_one_is_offered_what_is_there_and_no_second_bridge() -> None:
    stage = two_in_a_call()
    outputs = stage.enter("three")
    assert [type(output) for output in outputs] == [OpenEndpoint]
    [(nick, offer)] = jingles(stage.opened(*outputs))
    assert nick == "three"
    assert ssrcs(offer.sources) - ssrcs(bridges_own(offer)) == {11, 12, 13, 21, 22, 23}


def bridges_own(offer: Jingle) -> SourceMap:
    """The sources of the bridge, one of each kind."""
    [audio] = [source for source in offer.sources.audio.sources if source.owner == BRIDGE]
    [video] = [source for source in offer.sources.video.sources if source.owner == BRIDGE]
    return SourceMap(MediaSources((audio,)), MediaSources((video,)))


@pytest.mark.parametrize(("kind", "features"), [("result", ()), ("error", ())])
def test_who_does_not_tell_his_features_gets_audio_and_video(kind: str, features: Sequence[str]) -> None:
    stage = Stage()
    stage.enter("one")
    [request] = iqs(stage.presence("two"))
    [_, (nick, offer)] = jingles(stage.opened(*stage.answer(request, *features, kind=kind)))
    assert (nick, offer.bundle) == ("two", ("audio", "video"))


def test_who_never_answers_is_taken_as_plain_after_five_seconds() -> None:
    stage = Stage()
    stage.enter("one")
    [request] = iqs(stage.presence("two"))
    assert not [output for output in stage.tick(4.9) if isinstance(output, OpenEndpoint)]
    outputs = [output for output in stage.tick(0.1) if isinstance(output, OpenEndpoint)]
    assert [order.endpoint for order in outputs] == ["one", "two"]
    assert stage.answer(request, *MODERN) == []


def test_an_answer_of_somebody_else_is_not_taken() -> None:
    stage = Stage()
    [request] = iqs(stage.presence("one"))
    stage.presence("two")
    request.set("to", f"{ROOM}/two")
    assert stage.answer(request, *MODERN) == []
    assert stage.member("one").features is None
    request.set("to", f"{ROOM}/one")
    stage.answer(request, *MODERN)
    assert stage.member("one").features is not None


@pytest.mark.parametrize(
    ("features", "contents", "types", "feedback"),
    [
        ((), (), {}, False),
        (BASIC[:1], ("audio",), {"audio": [111, 126]}, False),
        (BASIC[1:2], ("video",), {"video": [41, 100, 107, 101]}, False),
        (BASIC, ("audio", "video"), {"video": [41, 100, 107, 101, 42, 96, 97, 99]}, False),
        ((*BASIC, "urn:xmpp:jingle:transports:dtls-sctp:1"), ("audio", "video"), {}, False),
        (MODERN, ("audio", "video", "data"), {}, True),
    ],
)
def test_what_is_not_advertised_is_not_offered(
    features: Sequence[str], contents: Sequence[str], types: dict[str, list[int]], feedback: bool
) -> None:
    stage = Stage()
    stage.enter("one")
    [_, (_, offer)] = jingles(stage.opened(*stage.enter("two", "urn:some:feature", *features)))
    assert tuple(content.name for content in offer.contents) == contents
    by_name = {content.name: content for content in offer.contents}
    for name, numbers in types.items():
        assert [payload_type.id for payload_type in by_name[name].payload_types] == numbers
    for content in offer.contents:
        for payload_type in content.payload_types:
            allowed = feedback and payload_type.name not in {"rtx", "telephone-event"}
            assert ("transport-cc" in {item.type for item in payload_type.feedback}) is allowed


def test_an_accepted_session_connects_the_bridge_and_tells_the_sources() -> None:
    stage = Stage()
    stage.enter("one")
    stage.opened(*stage.enter("two"))
    stage.accept("one", ONE)
    answer, sources, connect, *more = stage.accept("two", TWO)
    assert isinstance(answer, Send)
    assert answer.stanza.get("type") == "result"
    assert isinstance(sources, SetSources)
    assert sources.endpoint == "two"
    assert {source.owner for source in sources.sources.video.sources} == {"two"}
    assert isinstance(connect, ConnectEndpoint)
    assert (connect.sid, connect.transport.ufrag) == (stage.member("two").sid, "ufrg")
    assert [(nick, jingle.action, ssrcs(jingle.sources)) for nick, jingle in jingles(more)] == [
        ("one", "source-add", {21, 22, 23}),
        ("two", "source-add", {11, 12, 13}),
    ]


def test_sources_in_the_offer_are_not_told_twice() -> None:
    stage = two_in_a_call()
    stage.opened(*stage.enter("three"))
    news = jingles(stage.accept("three", audio_video(31, 32, 33)))
    assert [nick for nick, _ in news] == ["one", "two"]


def test_with_rewriting_only_the_bridges_own_sources_are_told() -> None:
    stage = Stage()
    stage.enter("one", *MODERN, REWRITING)
    offers = jingles(stage.opened(*stage.enter("two", *MODERN, REWRITING)))
    owners = {source.owner for _, offer in offers for source in offer.sources.video.sources}
    assert owners == {BRIDGE}
    stage.accept("one", ONE)
    assert jingles(stage.accept("two", TWO)) == []


def test_names_are_given_where_a_client_gives_none() -> None:
    stage = Stage()
    stage.enter("one")
    stage.opened(*stage.enter("two"))
    stage.accept("one", SourceMap(audio=MediaSources((Source(1),)), video=MediaSources((Source(2),))))
    assert stage.member("one").sources.audio.sources[0].name == "one-a0"
    assert stage.member("one").sources.video.sources[0].name == "one-v0"


# --- sources -----------------------------------------------------------------------------------------------

DESKTOP = SourceMap(video=MediaSources((Source(14, "one-v1", None, "one-video-1 d", "desktop"),)))


def test_sources_are_added_and_removed_in_both_encodings() -> None:
    stage = two_in_a_call(two=BASIC)
    stage.opened(*stage.enter("three"))
    stage.accept("three")
    answer, changed, *more = stage.jingle("one", Action.SOURCE_ADD, DESKTOP)
    assert isinstance(answer, Send)
    assert isinstance(changed, SetSources)
    assert ssrcs(changed.sources) == {11, 12, 13, 14}
    told = dict(jingles(more))
    assert {jingle.action for jingle in told.values()} == {"source-add"}
    assert (told["two"].json_sources, told["three"].json_sources) == (False, True)
    elements = next(stanza for stanza in iqs(more) if stanza.get("to") == f"{ROOM}/two")
    assert [info.get("owner") for info in elements.findall(".//{*}ssrc-info")] == ["one"]
    assert told["three"].sources.video.sources[0].owner == "one"
    assert all(ssrcs(jingle.sources) == {14} for jingle in told.values())
    _, changed, *more = stage.jingle("one", Action.SOURCE_REMOVE, DESKTOP)
    assert isinstance(changed, SetSources)
    assert ssrcs(changed.sources) == {11, 12, 13}
    assert [(nick, jingle.action, ssrcs(jingle.sources)) for nick, jingle in jingles(more)] == [
        ("two", "source-remove", {14}),
        ("three", "source-remove", {14}),
    ]


def test_json_sources_of_a_client_are_taken() -> None:
    stage = two_in_a_call()
    outputs = stage.jingle("one", Action.SOURCE_ADD, DESKTOP, json_sources=True, contents=())
    [(_, told)] = jingles(outputs)
    assert told.sources.video.sources[0].video_type == "desktop"


def test_a_source_goes_with_its_groups() -> None:
    stage = two_in_a_call()
    stage.jingle("one", Action.SOURCE_REMOVE, SourceMap(video=MediaSources((Source(13),))))
    assert stage.member("one").sources.video.groups == ()
    assert ssrcs(stage.member("one").sources) == {11, 12}


def test_of_simulcast_only_the_first_layer_is_told() -> None:
    stage = two_in_a_call()
    layers = tuple(Source(number, "one-v1", None, "m 1") for number in range(41, 47))
    groups = tuple(SourceGroup("FID", pair) for pair in ((41, 44), (42, 45), (43, 46)))
    video = MediaSources(layers, (SourceGroup("SIM", (41, 42, 43)), *groups))
    [(_, told)] = jingles(stage.jingle("one", Action.SOURCE_ADD, SourceMap(video=video)))
    assert ssrcs(told.sources) == {41, 44}
    assert told.sources.video.groups == (groups[0],)
    assert len(stage.member("one").sources.video.groups) == 5


@pytest.mark.parametrize(
    ("sources", "why"),
    [
        (audio_video(21, 31, 32), "SSRC 21 is used by two"),
        (audio_video(11, 31, 32), "SSRC 11 is used by one"),
        (SourceMap(audio=MediaSources(tuple(Source(number) for number in range(100, 600)))), "More than 20"),
        (SourceMap(audio=MediaSources((Source(9),) * 18)), "More than 20"),
        (SourceMap(video=MediaSources((), (SourceGroup("FID", (12, 13)),) * 20)), "More than 20"),
        (SourceMap(video=MediaSources((Source(9),), (SourceGroup("FID", (9, 10)),))), "without a source"),
        (SourceMap(video=MediaSources((Source(9),), (SourceGroup("FID", (9,)),))), "has 1 SSRCs"),
    ],
)
def test_sources_that_may_not_be_added(sources: SourceMap, why: str) -> None:
    stage = two_in_a_call()
    before = stage.member("one").sources
    outputs = stage.jingle("one", Action.SOURCE_ADD, sources)
    assert refused(outputs) == ("modify", "bad-request")
    assert why in (stanzas(outputs)[0][-1].findtext("{*}text") or "")
    assert stage.member("one").sources == before


def test_sources_that_are_not_ones_own_can_not_be_removed() -> None:
    stage = two_in_a_call()
    outputs = stage.jingle("one", Action.SOURCE_REMOVE, audio_video(21, 22, 23))
    assert refused(outputs) == ("modify", "bad-request")
    assert ssrcs(stage.member("two").sources) == {21, 22, 23}


def test_an_accept_with_the_ssrc_of_another_is_refused_and_may_be_tried_again() -> None:
    stage = Stage()
    stage.enter("one")
    stage.opened(*stage.enter("two"))
    stage.accept("one", ONE)
    assert refused(stage.accept("two", audio_video(11, 31, 32))) == ("modify", "bad-request")
    assert any(isinstance(output, ConnectEndpoint) for output in stage.accept("two", TWO))


class Sources(RuleBasedStateMachine):
    """Whatever is added and removed, each knows in the end exactly what the others have."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = two_in_a_call()
        self.known: dict[str, set[int]] = {"one": ssrcs(TWO), "two": ssrcs(ONE)}

    @rule(
        nick=st.sampled_from(["one", "two"]),
        numbers=st.sets(st.integers(1, 40), min_size=1, max_size=4),
        add=st.booleans(),
    )
    def change(self, nick: str, numbers: set[int], add: bool) -> None:
        sources = SourceMap(video=MediaSources(tuple(Source(number, "n") for number in sorted(numbers))))
        action = Action.SOURCE_ADD if add else Action.SOURCE_REMOVE
        for receiver, jingle in jingles(self.stage.jingle(nick, action, sources)):
            if jingle.action == "source-add":
                self.known[receiver] |= ssrcs(jingle.sources)
            else:
                self.known[receiver] -= ssrcs(jingle.sources)

    @invariant()
    def each_knows_the_other(self) -> None:
        assert self.known["one"] == ssrcs(self.stage.member("two").sources)
        assert self.known["two"] == ssrcs(self.stage.member("one").sources)


TestSources = Sources.TestCase


# --- the end of sessions -------------------------------------------------------------------------------------


def test_who_is_left_alone_keeps_his_session_for_20_seconds_and_gets_another_later() -> None:
    stage = two_in_a_call()
    sid = stage.member("one").sid
    assert sid is not None
    stage.tick(1.0)
    outputs = stage.leave("two")
    # Whose sources are gone is told by his leave alone.
    assert [type(output) for output in outputs] == [CloseEndpoint]
    assert stage.focus.next_deadline() == 21.0
    assert stage.tick(19.9) == []
    outputs = stage.tick(0.2)
    [(_, end)] = jingles(outputs)
    assert (end.action, end.sid) == ("session-terminate", sid)
    assert end.reason is not None
    assert (end.reason.condition, end.reason.text) == ("expired", "Idle session timeout")
    # The transport goes when he has answered: whoever loses it before takes it for a failure.
    assert not any(isinstance(output, CloseEndpoint) for output in outputs)
    [request] = [stanza for stanza in iqs(outputs) if local(stanza[0]) == "jingle"]
    assert stage.answer(request) == [CloseEndpoint(ROOM, "one", sid)]
    presence = stanzas(outputs)[-1]
    assert {node.get("value") for node in presence.findall(".//{*}property")} == {"true", "0"}
    outputs = stage.enter("three")
    assert {order.endpoint for order in outputs if isinstance(order, OpenEndpoint)} == {"one", "three"}


def test_who_does_not_answer_the_end_loses_the_transport_after_a_second() -> None:
    stage = two_in_a_call()
    sid = stage.member("one").sid or ""
    stage.leave("two")
    [end] = [stanza for stanza in iqs(stage.tick(20.0)) if local(stanza[0]) == "jingle"]
    assert stage.focus.next_deadline() == 21.0
    assert stage.tick(0.9) == []
    assert stage.tick(0.1) == [CloseEndpoint(ROOM, "one", sid)]
    assert stage.answer(end) == []


def test_who_leaves_within_that_second_takes_the_transport_along() -> None:
    stage = two_in_a_call()
    sid = stage.member("one").sid or ""
    stage.leave("two")
    stage.tick(20.0)
    assert [type(output) for output in stage.leave("one")] == [CloseEndpoint, Send]
    assert stage.opened(OpenEndpoint(ROOM, "one", sid, Features(), SourceMap())) == []


def test_company_within_20_seconds_saves_the_session() -> None:
    stage = two_in_a_call()
    sid = stage.member("one").sid
    stage.leave("two")
    stage.tick(19.0)
    outputs = stage.enter("three")
    assert [order.endpoint for order in outputs if isinstance(order, OpenEndpoint)] == ["three"]
    assert not jingles(stage.tick(100.0))
    assert stage.member("one").sid == sid


def test_who_is_alone_when_the_bridge_is_ready_is_offered_for_the_same_20_seconds() -> None:
    stage = Stage()
    stage.enter("one")
    outputs = stage.enter("two")
    stage.leave("two")
    assert [(nick, jingle.action) for nick, jingle in jingles(stage.opened(*outputs))] == [
        ("one", "session-initiate")
    ]
    assert [jingle.action for _, jingle in jingles(stage.tick(20.0))] == ["session-terminate"]


def test_one_who_left_before_his_bridge_was_ready_gets_no_offer() -> None:
    stage = Stage()
    stage.enter("one")
    outputs = stage.enter("two")
    stage.leave("two")
    stage.leave("one")
    assert stage.opened(*outputs) == []
    assert stage.focus.failed(ROOM, "one", "x") == []


def test_the_last_one_out_takes_the_focus_along() -> None:
    stage = two_in_a_call()
    stage.leave("one")
    outputs = stage.leave("two")
    assert [type(output) for output in outputs] == [CloseEndpoint, Send]
    assert stanzas(outputs)[0].get("type") == "unavailable"
    assert stage.focus.conferences == {}


@pytest.mark.parametrize("kind", ["unavailable", "error"])
def test_a_focus_that_is_put_out_of_the_room_closes_everything(kind: str) -> None:
    stage = two_in_a_call()
    outputs = stage.feed(f'<presence from="{ROOM}/focus" to="{ME}" type="{kind}"/>')
    assert [type(output) for output in outputs] == [CloseEndpoint, CloseEndpoint]
    assert stage.focus.conferences == {}


def test_a_focus_that_goes_away_leaves_its_rooms() -> None:
    stage = two_in_a_call()
    outputs = stage.focus.leave_all()
    assert [type(output) for output in outputs] == [CloseEndpoint, CloseEndpoint, Send]
    assert stage.focus.conferences == {}


def test_a_restart_brings_a_new_session_at_most_every_five_seconds() -> None:
    stage = two_in_a_call()
    old = stage.member("one").sid
    answer, close, *more = stage.jingle("one", Action.SESSION_TERMINATE, restart=True)
    assert isinstance(answer, Send)
    assert answer.stanza.get("type") == "result"
    assert close == CloseEndpoint(ROOM, "one", old or "")
    assert [(nick, jingle.action) for nick, jingle in jingles(more)] == [("two", "source-remove")]
    stage.opened(*more)
    assert stage.member("one").sid not in {None, old}
    stage.tick(4.9)
    outputs = stage.jingle("one", Action.SESSION_TERMINATE, restart=True)
    assert condition(stanzas(outputs)[0]) == ("wait", "resource-constraint")
    # As Jicofo does it: the session is ended all the same.
    assert stage.member("one").sid is None
    assert not any(isinstance(output, OpenEndpoint) for output in outputs)


def test_restarts_are_limited_to_five_a_minute() -> None:
    stage = two_in_a_call()
    for _ in range(5):
        stage.now += 6.0
        stage.opened(*stage.jingle("one", Action.SESSION_TERMINATE, restart=True))
        assert stage.member("one").sid is not None
    assert stage.now == 30.0
    stage.now = 66.1  # a minute after the first one
    stage.opened(*stage.jingle("one", Action.SESSION_TERMINATE, restart=True))
    assert stage.member("one").sid is not None
    stage.now = 71.5
    outputs = stage.jingle("one", Action.SESSION_TERMINATE, restart=True)
    assert condition(stanzas(outputs)[0]) == ("wait", "resource-constraint")


def test_a_restart_of_another_bridge_session_is_refused() -> None:
    stage = two_in_a_call()
    outputs = stage.jingle("one", Action.SESSION_TERMINATE, restart=True, bridge_session_id="old")
    assert refused(outputs) == ("cancel", "item-not-found")
    assert stage.member("one").sid is not None


def test_who_ends_his_session_himself_gets_no_other() -> None:
    stage = two_in_a_call()
    stage.jingle("one", Action.SESSION_TERMINATE)
    outputs = stage.enter("three")
    assert [order.endpoint for order in outputs if isinstance(order, OpenEndpoint)] == ["three"]


def test_who_refuses_the_offer_gets_no_other() -> None:
    stage = Stage()
    stage.enter("one")
    offers = iqs(stage.opened(*stage.enter("two")))
    [close] = stage.answer(offers[0], kind="error")
    assert isinstance(close, CloseEndpoint)
    assert stage.answer(offers[1]) == []
    assert stage.member("one").refused
    outputs = stage.enter("three")
    assert [order.endpoint for order in outputs if isinstance(order, OpenEndpoint)] == ["three"]


def test_a_late_refusal_of_an_older_offer_does_not_touch_the_new_one() -> None:
    stage = Stage()
    stage.enter("one")
    [offer, _] = iqs(stage.opened(*stage.enter("two")))
    stage.opened(*stage.jingle("one", Action.SESSION_TERMINATE, restart=True))
    sid = stage.member("one").sid
    assert sid is not None
    assert stage.answer(offer, kind="error") == []
    assert stage.member("one").sid == sid


def test_a_session_outlives_its_transport_until_its_participant_asks_for_another() -> None:
    stage = two_in_a_call()
    sid = stage.member("one").sid
    assert stage.focus.failed(ROOM, "one", sid or "") == []
    assert stage.focus.failed("other@muc.meet.jitsi", "one", "") == []
    assert stage.member("one").sid == sid
    answer, *more = stage.jingle("one", Action.SESSION_TERMINATE, restart=True)
    assert isinstance(answer, Send)
    assert answer.stanza.get("type") == "result"
    [order] = [output for output in more if isinstance(output, OpenEndpoint)]
    assert order.sid == stage.member("one").sid != sid


def test_a_bridge_that_can_not_open_ends_what_was_never_offered_silently() -> None:
    stage = Stage()
    stage.enter("one")
    [order, *_] = [output for output in stage.enter("two") if isinstance(output, OpenEndpoint)]
    assert [type(output) for output in stage.focus.failed(ROOM, "one", order.sid)] == [CloseEndpoint]


# --- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "fields", "wanted"),
    [
        ("content-add", {}, ("cancel", "feature-not-implemented")),
        (Action.TRANSPORT_ACCEPT, {}, ("cancel", "feature-not-implemented")),
        (Action.SESSION_INFO, {"ice_restart": True}, ("cancel", "feature-not-implemented")),
        (Action.SESSION_ACCEPT, {}, ("wait", "unexpected-request")),
        (Action.SESSION_INFO, {"sid": "other"}, ("cancel", "item-not-found")),
    ],
)
def test_actions_that_are_refused(action: str, fields: dict[str, object], wanted: tuple[str, str]) -> None:
    stage = two_in_a_call()
    assert refused(stage.jingle("one", action, NOTHING, **fields)) == wanted
    assert stage.member("one").active


@pytest.mark.parametrize("action", [Action.SOURCE_ADD, Action.SOURCE_REMOVE])
def test_sources_before_the_accept_are_out_of_order(action: str) -> None:
    stage = Stage()
    stage.enter("one")
    stage.opened(*stage.enter("two"))
    outputs = stage.jingle("one", action, DESKTOP)
    assert refused(outputs) == ("wait", "unexpected-request")
    assert stanzas(outputs)[0].find(".//{urn:xmpp:jingle:errors:1}out-of-order") is not None


def test_an_accept_without_a_transport() -> None:
    stage = Stage()
    stage.enter("one")
    stage.opened(*stage.enter("two"))
    contents = tuple(replace(content, transport=None) for content in CONTENTS)
    assert refused(stage.jingle("one", Action.SESSION_ACCEPT, contents=contents)) == ("modify", "bad-request")


@pytest.mark.parametrize("action", [Action.SESSION_INFO, Action.TRANSPORT_INFO])
def test_information_is_taken(action: str) -> None:
    [answer] = two_in_a_call().jingle("one", action)
    assert isinstance(answer, Send)
    assert answer.stanza.get("type") == "result"


def test_requests_without_a_session() -> None:
    stage = Stage()
    stage.enter("one")
    outputs = stage.jingle("one", Action.SESSION_ACCEPT)
    assert refused(outputs) == ("cancel", "item-not-found")
    assert stanzas(outputs)[0].find(".//{urn:xmpp:jingle:errors:1}unknown-session") is not None
    outputs = stage.request("stranger", '<jingle xmlns="urn:xmpp:jingle:1" action="session-info" sid="x"/>')
    assert refused(outputs) == ("cancel", "item-not-found")


@pytest.mark.parametrize(
    ("payload", "kind", "wanted"),
    [
        ('<jingle xmlns="urn:xmpp:jingle:1"/>', "set", ("modify", "bad-request")),
        (
            '<jingle xmlns="urn:xmpp:jingle:1" action="source-add" sid="x"/>',
            "get",
            ("cancel", "service-unavailable"),
        ),
        ('<what xmlns="urn:what"/>', "set", ("cancel", "service-unavailable")),
        ("", "get", ("modify", "bad-request")),
    ],
)
def test_requests_that_are_none(payload: str, kind: str, wanted: tuple[str, str]) -> None:
    assert refused(two_in_a_call().request("one", payload, kind)) == wanted


def test_json_sources_that_are_too_long_are_refused_by_their_own_condition() -> None:
    text = "x" * 4_000_001
    payload = (
        '<jingle xmlns="urn:xmpp:jingle:1" action="source-add" sid="x">'
        f'<json-message xmlns="http://jitsi.org/jitmeet">{text}</json-message></jingle>'
    )
    assert refused(two_in_a_call().request("one", payload)) == ("wait", "resource-constraint")


def test_what_the_focus_says_of_itself() -> None:
    stage = Stage()
    disco = '<query xmlns="http://jabber.org/protocol/disco#info" node="n"/>'
    for sender in (f"{ROOM}/one", "stranger@meet.jitsi/r"):
        [answer] = iqs(stage.feed(f'<iq type="get" id="1" from="{sender}" to="{ME}">{disco}</iq>'))
        assert answer[0].get("node") == "n"
        assert "urn:xmpp:jingle:1" in {feature.get("var") for feature in answer[0]}
    [answer] = iqs(
        stage.feed(f'<iq type="get" id="1" from="{ROOM}/one" to="{ME}"><ping xmlns="urn:xmpp:ping"/></iq>')
    )
    assert answer.get("type") == "result"
    [answer] = iqs(stage.feed(f'<iq type="get" id="1" from="x@y/z" to="{ME}"><what xmlns="urn:what"/></iq>'))
    assert condition(answer) == ("cancel", "service-unavailable")
    assert stage.feed(f'<iq type="result" id="1" from="x@y/z" to="{ME}"/>') == []


def test_answers_to_nothing_and_requests_unanswered_cost_no_memory() -> None:
    stage = two_in_a_call()
    for number in range(50):
        stage.jingle("one", Action.SOURCE_ADD if number % 2 == 0 else Action.SOURCE_REMOVE, DESKTOP)
        error = error_reply(parse_frame(f'<iq id="z{number}" to="{ROOM}/one" from="{ME}"/>'), "forbidden")
        assert stage.focus.feed(error, stage.now) == []
    assert len(stage.conference._requests) <= 2
    for number in range(20):
        stage.presence(f"guest{number}")
        stage.leave(f"guest{number}")
    assert len(stage.conference._requests) <= 2
