"""The bridge channels of a room, and who speaks in it, by an injected clock."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.bridge.channel import parse_message
from bot.embedded.hub import ChannelHub, Message, Messages
from bot.embedded.speaker import SpeakerDetector
from bot.jingle.model import MediaSources, Source, SourceGroup, SourceMap


def sources(endpoint: str, first: int, video_type: str | None = None) -> SourceMap:
    """Audio, and simulcast video of two layers with RTX."""
    video = tuple(Source(first + number, f"{endpoint}-v0", video_type=video_type) for number in range(1, 5))
    groups = (
        SourceGroup("SIM", (first + 1, first + 2)),
        SourceGroup("FID", (first + 1, first + 3)),
        SourceGroup("FID", (first + 2, first + 4)),
    )
    return SourceMap(MediaSources((Source(first, f"{endpoint}-a0"),)), MediaSources(video, groups))


def room(*, rewriting: bool = False) -> ChannelHub:
    """Two endpoints with sources and open channels, told all that there is."""
    hub = ChannelHub()
    for number, name in enumerate(("one", "two")):
        hub.add(name, rewriting=rewriting)
        hub.set_sources(name, sources(name, 10 * number + 10))
        hub.opened(name, 0.0, web_socket=False)
    return hub


def kinds(messages: Messages, endpoint: str) -> list[str]:
    return [str(message["colibriClass"]) for name, message in messages if name == endpoint]


def the(messages: Messages, endpoint: str, kind: str) -> Message:
    [found] = [item for name, item in messages if name == endpoint and item["colibriClass"] == kind]
    return found


def constraints(**fields: object) -> Message:
    return {"colibriClass": "ReceiverVideoConstraints", **fields}


def height(hub: ChannelHub, **fields: object) -> object:
    """What ``one`` is asked to send when ``two`` wants this."""
    found = the(hub.feed("two", constraints(**fields)), "one", "SenderSourceConstraints")
    assert found["sourceName"] == "one-v0"
    return found["maxHeight"]


# --- opening and closing ------------------------------------------------------------------------------------


def test_only_the_web_socket_is_greeted_with_a_hello() -> None:
    hub = ChannelHub()
    hub.add("one", rewriting=False)
    hub.add("two", rewriting=False)
    assert kinds(hub.opened("one", 0.0, web_socket=True), "one") == ["ServerHello", "ForwardedSources"]
    assert kinds(hub.opened("two", 0.0, web_socket=False), "two") == ["ForwardedSources"]


def test_who_opens_late_is_told_who_speaks() -> None:
    hub = room()
    hub.speaker("one")
    hub.add("three", rewriting=False)
    greeting = hub.opened("three", 1.0, web_socket=True)
    assert kinds(greeting, "three") == ["ServerHello", "DominantSpeakerEndpointChangeEvent", "ForwardedSources"]


def test_a_channel_opened_anew_is_told_everything_anew() -> None:
    hub = room(rewriting=True)
    wanted = ["SenderSourceConstraints", "VideoSourcesMap", "AudioSourcesMap", "ForwardedSources"]
    hub.closed("one")
    assert kinds(hub.set_sources("two", sources("two", 50)), "one") == []
    assert kinds(hub.opened("one", 2.0, web_socket=False), "one") == wanted


def test_strangers_are_ignored() -> None:
    hub = room()
    assert hub.opened("x", 0.0, web_socket=True) == hub.closed("x") == hub.remove("x") == []
    assert hub.set_sources("x", sources("x", 90)) == hub.feed("x", constraints()) == []
    assert hub.statistics("x", 100.0, 1) == []


def test_an_unknown_message_is_ignored() -> None:
    assert room().feed("one", {"colibriClass": "SourceVideoTypeMessage", "sourceName": "one-v0"}) == []


def test_a_client_hello_is_answered() -> None:
    assert room().feed("one", {"colibriClass": "ClientHello"}) == [("one", {"colibriClass": "ServerHello"})]


# --- what is wanted and what is forwarded -------------------------------------------------------------------


def test_before_the_first_constraints_nothing_is_wanted_or_forwarded() -> None:
    hub = ChannelHub()
    hub.add("one", rewriting=False)
    hub.add("two", rewriting=False)
    hub.set_sources("one", sources("one", 10))
    hub.opened("two", 0.0, web_socket=False)
    told = hub.opened("one", 0.0, web_socket=False)
    assert the(told, "one", "SenderSourceConstraints")["maxHeight"] == 0
    assert the(told, "one", "ForwardedSources")["forwardedSources"] == []


def test_a_receiver_without_a_channel_wants_720_lines() -> None:
    hub = ChannelHub()
    hub.add("one", rewriting=False)
    hub.add("two", rewriting=False)
    hub.set_sources("one", sources("one", 10))
    told = hub.opened("one", 0.0, web_socket=False)
    assert the(told, "one", "SenderSourceConstraints")["maxHeight"] == 720


def test_constraints_bring_sources_and_ask_their_senders() -> None:
    hub = room()
    told = hub.feed("two", constraints(lastN=-1, defaultConstraints={"maxHeight": 360}))
    assert the(told, "two", "ForwardedSources")["forwardedSources"] == ["one-v0"]
    assert the(told, "one", "SenderSourceConstraints")["maxHeight"] == 360
    assert hub.feed("two", constraints(lastN=-1, defaultConstraints={"maxHeight": 360})) == []


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, 180),
        ({"defaultConstraints": {}}, 180),
        ({"defaultConstraints": {"maxHeight": 720.0}}, 720),
        ({"defaultConstraints": {"maxHeight": -1}}, 2160),
        ({"defaultConstraints": {"maxHeight": 99999}}, 2160),
        ({"defaultConstraints": {"maxHeight": "tall"}}, 180),
        ({"defaultConstraints": {"maxHeight": True}}, 180),
        ({"defaultConstraints": {"maxHeight": float("nan")}}, 180),
        ({"defaultConstraints": {"maxHeight": float("inf")}}, 180),
        ({"defaultConstraints": []}, 180),
        ({"constraints": {"one-v0": {"maxHeight": 90}}, "defaultConstraints": {"maxHeight": 720}}, 90),
        ({"constraints": {"one": {"maxHeight": 270}}}, 270),
        ({"constraints": {"other-v0": {"maxHeight": 90}}, "defaultConstraints": {"maxHeight": 360}}, 360),
        ({"constraints": {"one-v0": "all"}, "defaultConstraints": {"maxHeight": 360}}, 360),
        ({"constraints": "all"}, 180),
    ],
)
def test_heights(fields: dict[str, object], wanted: int) -> None:
    assert height(room(), **fields) == wanted


def test_who_wants_no_video_asks_for_none() -> None:
    hub = room()
    assert height(hub) == 180
    assert height(hub, lastN=0, defaultConstraints={"maxHeight": 720}) == 0


def test_the_tallest_wish_counts() -> None:
    hub = room()
    hub.add("three", rewriting=False)
    hub.opened("three", 0.0, web_socket=False)
    assert height(hub, defaultConstraints={"maxHeight": 360}) == 360
    hub.feed("three", constraints(defaultConstraints={"maxHeight": 720}))
    assert hub.feed("two", constraints(defaultConstraints={"maxHeight": 540})) == []
    assert the(hub.remove("three"), "one", "SenderSourceConstraints")["maxHeight"] == 540


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["one", "one-v0", "maxHeight", "to"]), inner)
    ),
    max_leaves=8,
)
classes = ["ReceiverVideoConstraints", "EndpointMessage", "EndpointStats", "ClientHello", "ForwardedSources"]
fields = ["lastN", "constraints", "defaultConstraints", "to", "from", "msgPayload"]


@given(
    st.lists(
        st.tuples(st.sampled_from(classes), st.dictionaries(st.sampled_from(fields), json_values)), max_size=5
    )
)
def test_whatever_json_a_client_sends_is_taken_or_ignored(messages: list[tuple[str, dict[str, object]]]) -> None:
    hub = room()
    for kind, content in messages:
        message = parse_message(json.dumps({**content, "colibriClass": kind}))
        assert message is not None
        for receiver, told in hub.feed("two", message):
            assert receiver in {"one", "two"}
            assert told["colibriClass"]


# --- SSRC rewriting -----------------------------------------------------------------------------------------


def test_maps_name_the_first_layer_of_each_source() -> None:
    hub = ChannelHub()
    for name in ("one", "two"):
        hub.add(name, rewriting=True)
        hub.opened(name, 0.0, web_socket=False)
    told = hub.set_sources("two", sources("two", 20, "desktop"))
    assert the(told, "one", "VideoSourcesMap")["mappedSources"] == [
        {"source": "two-v0", "owner": "two", "ssrc": 21, "rtx": 23, "videoType": "DESKTOP"}
    ]
    assert the(told, "one", "AudioSourcesMap")["mappedSources"] == [
        {"source": "two-a0", "owner": "two", "ssrc": 20}
    ]
    assert kinds(told, "two") == ["SenderSourceConstraints"]


def test_an_empty_map_is_told_only_after_one_that_was_not() -> None:
    hub = room(rewriting=True)
    told = hub.set_sources("two", SourceMap())
    assert the(told, "one", "VideoSourcesMap")["mappedSources"] == []
    assert the(told, "one", "AudioSourcesMap")["mappedSources"] == []
    assert hub.set_sources("two", SourceMap()) == []


def test_a_source_without_rtx_or_name() -> None:
    hub = room(rewriting=True)
    told = hub.set_sources("two", SourceMap(video=MediaSources((Source(7),))))
    assert the(told, "one", "VideoSourcesMap")["mappedSources"] == [
        {"source": "", "owner": "two", "ssrc": 7, "rtx": 0, "videoType": "CAMERA"}
    ]


# --- between endpoints --------------------------------------------------------------------------------------


def test_an_endpoint_message_goes_to_one_or_to_all_others() -> None:
    hub = room()
    hub.add("three", rewriting=False)
    hub.opened("three", 0.0, web_socket=False)
    message = {"colibriClass": "EndpointMessage", "to": "two", "from": "forged", "msgPayload": {"hello": 1}}
    assert hub.feed("one", message) == [("two", {**message, "from": "one"})]
    assert [name for name, _ in hub.feed("one", {**message, "to": ""})] == ["two", "three"]
    assert hub.feed("one", {**message, "to": "nobody"}) == []
    assert hub.feed("one", {**message, "to": ["two"]}) == []
    hub.closed("two")
    assert hub.feed("one", message) == []
    assert [name for name, _ in hub.feed("one", {**message, "to": ""})] == ["three"]


def test_statistics_of_an_endpoint_go_to_all_others() -> None:
    hub = room()
    stats = {"colibriClass": "EndpointStats", "jvbRTT": 3}
    assert hub.feed("one", stats) == [("two", {**stats, "from": "one"})]


def test_statistics_of_the_connection_come_every_ten_seconds() -> None:
    hub = room()
    assert hub.statistics("one", 9.9, 1000) == []
    assert hub.statistics("one", 10.0, 1000) == [
        ("one", {"colibriClass": "ConnectionStats", "estimatedDownlinkBandwidth": 1000})
    ]
    assert hub.statistics("one", 19.9, 1000) == []
    hub.closed("one")
    assert hub.statistics("one", 30.0, 1000) == []


# --- the speaker --------------------------------------------------------------------------------------------


def test_everybody_hears_who_speaks_with_those_before() -> None:
    hub = room()
    hub.speaker("one")
    told = hub.speaker("two")
    assert the(told, "one", "DominantSpeakerEndpointChangeEvent") == {
        "colibriClass": "DominantSpeakerEndpointChangeEvent",
        "dominantSpeakerEndpoint": "two",
        "previousSpeakers": ["one"],
        "silence": False,
    }
    again = the(hub.speaker("one"), "two", "DominantSpeakerEndpointChangeEvent")
    assert (again["dominantSpeakerEndpoint"], again["previousSpeakers"]) == ("one", ["two"])


def test_those_before_are_few_and_present() -> None:
    hub = room()
    for number in range(20):
        hub.speaker(f"guest{number}")
    hub.remove("guest19")
    told = the(hub.speaker("one"), "two", "DominantSpeakerEndpointChangeEvent")
    assert told["previousSpeakers"] == [f"guest{number}" for number in range(18, 9, -1)]


def feed(detector: SpeakerDetector, endpoint: str, level: int, start: float, count: int = 50) -> list[float]:
    """When the speaker changes, with a packet every 20 ms."""
    times = [start + 0.02 * number for number in range(count)]
    return [at for at in times if detector.feed(endpoint, level, at)]


def test_the_first_one_who_is_heard_speaks() -> None:
    detector = SpeakerDetector()
    assert feed(detector, "one", 127, 0.0) == []
    assert feed(detector, "two", 30, 1.0) == [1.0]
    assert detector.dominant == "two"


def test_a_louder_one_takes_over_after_a_second() -> None:
    detector = SpeakerDetector()
    feed(detector, "one", 40, 0.0, 20)
    [at] = feed(detector, "two", 20, 0.4, 100)
    assert 1.0 <= at < 1.1
    assert detector.dominant == "two"


def test_one_as_loud_as_the_speaker_does_not() -> None:
    detector = SpeakerDetector()
    feed(detector, "one", 40, 0.0, 200)
    assert feed(detector, "two", 38, 4.0, 200) == []


def test_who_left_is_forgotten() -> None:
    detector = SpeakerDetector()
    feed(detector, "one", 20, 0.0)
    detector.remove("two")
    speakers = [detector.dominant]
    detector.remove("one")
    assert [*speakers, detector.dominant] == ["one", None]
    assert feed(detector, "two", 60, 1.0) != []
