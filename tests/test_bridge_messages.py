"""What the bridge tells: the recorded messages are read, hostile ones change nothing and raise nothing else."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.bridge import messages
from bot.bridge.channel import Message, parse_message
from bot.bridge.messages import (
    ConnectionStatistics,
    DominantSpeaker,
    EndpointConnectivity,
    EndpointMessage,
    EndpointStatistics,
    ForwardedSources,
    MalformedMessageError,
    SenderConstraints,
    SourcesMapped,
    read,
)
from bot.bridge.streams import NamedSource
from tests.conftest import CAPTURES

CLASSES = sorted(messages._READERS)


def recorded() -> Iterator[Message]:
    """Every message that a real bridge sent to a web client."""
    for path in sorted(CAPTURES.glob("web-client-*-bridge.txt")):
        for line in re.findall(r"<<< (.*)", path.read_text()):
            message = parse_message(line)
            assert message is not None
            yield message


def test_every_recorded_message_has_its_type() -> None:
    found = {message["colibriClass"]: read(message) for message in recorded()}
    assert found.pop("ServerHello") is None  # tells nothing
    assert len(found) >= 6
    assert all(found.values())
    stats = found["EndpointStats"]
    assert isinstance(stats, EndpointStatistics)
    assert stats.connection_quality == 100
    assert stats.loss_upload == 0


def test_each_class_by_hand() -> None:
    speaker = {"dominantSpeakerEndpoint": "a", "previousSpeakers": ["b", "c"], "silence": True}
    mapped = [{"source": "a-v0", "owner": "a", "ssrc": 5, "rtx": 6, "videoType": "DESKTOP"}, {"ssrc": 7}, 5]
    told: list[tuple[str, dict[str, Any], object]] = [
        ("DominantSpeakerEndpointChangeEvent", speaker, DominantSpeaker("a", ("b", "c"), silence=True)),
        ("DominantSpeakerEndpointChangeEvent", {"dominantSpeakerEndpoint": "a"}, DominantSpeaker("a")),
        ("ForwardedSources", {"forwardedSources": ["a-v0"]}, ForwardedSources(("a-v0",))),
        (
            "EndpointConnectivityStatusChangeEvent",
            {"endpoint": "a", "active": "false"},
            EndpointConnectivity("a", active=False),
        ),
        ("EndpointMessage", {"from": "a", "msgPayload": {"x": [1]}, "to": ""}, EndpointMessage("a", {"x": [1]})),
        ("ConnectionStats", {"estimatedDownlinkBandwidth": 8_812_261}, ConnectionStatistics(8_812_261.0)),
        ("SenderSourceConstraints", {"sourceName": "a-v0", "maxHeight": 180}, SenderConstraints("a-v0", 180)),
        (
            "VideoSourcesMap",
            {"mappedSources": mapped},
            SourcesMapped("video", (NamedSource(5, "video", "a-v0", "a", 6, "desktop"),)),
        ),
        ("AudioSourcesMap", {"mappedSources": []}, SourcesMapped("audio", ())),
    ]
    for kind, fields, expected in told:
        assert read({"colibriClass": kind, **fields}) == expected
    assert read({"colibriClass": "SomethingNew"}) is None


def deep(levels: int) -> dict[str, Any]:
    return {"x": deep(levels - 1)} if levels else {}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("DominantSpeakerEndpointChangeEvent", {}),
        ("DominantSpeakerEndpointChangeEvent", {"dominantSpeakerEndpoint": "\ud800"}),  # no log could hold it
        ("DominantSpeakerEndpointChangeEvent", {"dominantSpeakerEndpoint": "a", "previousSpeakers": "abc"}),
        ("ForwardedSources", {"forwardedSources": None}),
        ("ForwardedSources", {"forwardedSources": ["a" * 1000]}),
        ("ForwardedSources", {"forwardedSources": ["a"] * 10_000}),
        ("EndpointConnectivityStatusChangeEvent", {"endpoint": "a", "active": 7}),
        ("EndpointMessage", {"from": "a", "msgPayload": "text"}),
        ("EndpointMessage", {"msgPayload": {}}),
        ("EndpointMessage", {"from": "a", "msgPayload": deep(100)}),
        ("EndpointStats", {"from": ["a"]}),
        ("ConnectionStats", {"estimatedDownlinkBandwidth": -1}),
        ("ConnectionStats", {"estimatedDownlinkBandwidth": True}),
        ("ConnectionStats", {"estimatedDownlinkBandwidth": float("nan")}),
        ("ConnectionStats", {"estimatedDownlinkBandwidth": 10**400}),
        ("SenderSourceConstraints", {"sourceName": "a-v0", "maxHeight": "tall"}),
        ("VideoSourcesMap", {"mappedSources": {}}),
        ("AudioSourcesMap", {"mappedSources": [{}] * 5000}),
    ],
)
def test_malformed_messages_are_refused(kind: str, fields: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessageError):
        read({"colibriClass": kind, **fields})


def test_statistics_of_others_hold_finite_numbers_only() -> None:
    told = {"bitrate": [], "packetLoss": {"upload": float("inf"), "download": 3}, "jvbRTT": "5", "serverRegion": 7}
    assert read({"colibriClass": "EndpointStats", "from": "a", **told}) == EndpointStatistics("a", loss_download=3)


_FIELDS = [
    *("dominantSpeakerEndpoint", "previousSpeakers", "silence", "forwardedSources", "endpoint", "active", "from"),
    *("msgPayload", "bitrate", "packetLoss", "connectionQuality", "estimatedDownlinkBandwidth", "sourceName"),
    *("maxHeight", "mappedSources", "source", "owner", "ssrc", "rtx"),
]
_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(_FIELDS) | st.text(), inner),
    max_leaves=10,
)


@given(kind=st.sampled_from(CLASSES), fields=st.dictionaries(st.sampled_from(_FIELDS), _VALUES))
def test_no_content_raises_anything_else(kind: str, fields: dict[str, Any]) -> None:
    told: object = None
    with suppress(MalformedMessageError):
        told = read({**fields, "colibriClass": kind})
    assert told is None or type(told).__module__ == messages.__name__


def test_what_we_say_has_the_recorded_shape() -> None:
    text = (CAPTURES / "web-client-0-bridge.txt").read_text()
    sent = {item["colibriClass"]: item for item in map(json.loads, re.findall(r">>> (\{.*)", text))}
    kind = messages.source_video_type("04280b68-v0", "camera")
    assert kind == sent["SourceVideoTypeMessage"]
    assert messages.endpoint_message("", {"a": 1}) == {
        "colibriClass": "EndpointMessage",
        "msgPayload": {"a": 1},
        "to": "",
    }
    assert messages.audio_subscription(everyone=False, include=["a-a0"]) == {
        "colibriClass": "ReceiverAudioSubscription",
        "all": False,
        "exclude": [],
        "include": ["a-a0"],
    }
