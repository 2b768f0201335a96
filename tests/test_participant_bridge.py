"""The talk with the bridge: what is said when a channel opens and later, and what is made of what it tells."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from bot import events
from bot.bridge.channel import Message, deliver
from bot.bridge.messages import EndpointStatistics, SourcesMapped
from bot.bridge.session import MediaSession, MediaTotals
from bot.bridge.streams import NamedSource
from bot.errors import BridgeMessageError
from bot.participant import bridge
from bot.participant.bridge import BridgeDialogue, video_types
from bot.participant.config import expand
from bot.participant.layout import Wishes
from bot.participant.own import OwnMedia
from bot.participant.sources import RemoteSources
from bot.participant.stay import Stay
from bot.settings import load

ME = "0me00000"


class Channel:
    """A bridge channel whose other end is the test."""

    name = "websocket"

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.opened = 0
        self.gone = asyncio.Event()
        self.opening: Callable[[], None] = lambda: None

    async def open(self, timeout: float) -> None:
        assert timeout > 0
        self.opening()
        self.opened += 1
        self.gone.clear()

    async def wait_closed(self) -> None:
        await self.gone.wait()

    def send(self, message: Message) -> None:
        self.sent.append(message)

    async def close(self) -> None:
        self.gone.set()

    def constraints(self) -> list[Message]:
        return [item for item in self.sent if item["colibriClass"] == "ReceiverVideoConstraints"]


class Media:
    """The part of a media session that the dialogue uses."""

    def __init__(self, channel: Channel | None) -> None:
        self.channel = channel
        self.sent = 0

    def totals(self) -> MediaTotals:
        self.sent += 1000
        return MediaTotals(audio_sent=self.sent)


class Own:
    """What we publish."""

    def __init__(self) -> None:
        self.source_info: dict[str, object] = {"me-a0": {"muted": False}, "me-v0": {"muted": False}}


class Bench:
    """A dialogue with its surroundings, and a clock that the test sets."""

    def __init__(self, **settings: Any) -> None:
        self.now = 100.0
        self.said: list[tuple[type[events.Event], dict[str, Any]]] = []
        self.maps: list[SourcesMapped] = []
        self.sources = RemoteSources()
        self.own = Own()
        self.channel = Channel()
        connection = type("Connection", (), {"endpoint_id": ME})()
        config = expand(load(**settings))[0]
        self.wishes = Wishes.of(config.settings)
        stay = Stay(
            config=config,
            connection=connection,
            emit=lambda kind, **fields: self.said.append((kind, fields)),
            on_phase=lambda _: None,
            on_state=lambda _: None,
            timer=cast("Any", None),
            own=cast("OwnMedia", self.own),
            wishes=self.wishes,
            clock=lambda: self.now,
        )
        self.dialogue = BridgeDialogue(stay, cast("OwnMedia", self.own), self.sources, on_map=self.maps.append)

    def look(self, **changes: Any) -> None:
        """Wish for another layout, as a participant does."""
        self.wishes.set_layout(**changes)
        self.dialogue.refresh()

    async def hold(self) -> asyncio.Task[None]:
        """Hold a session's channel until it is open."""
        task = asyncio.create_task(self.dialogue.hold(cast("MediaSession", Media(self.channel))))
        await until(lambda: self.dialogue.is_open)
        return task

    def tell(self, kind: str, **fields: Any) -> None:
        deliver(json.dumps({"colibriClass": kind, **fields}), self.dialogue.take)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - of states that nobody announces
            await asyncio.sleep(0.001)


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def test_an_open_channel_is_told_everything_and_so_is_the_next() -> None:
    bench = Bench(receive_height=720, receive_audio=False, last_n=7)
    bench.own.source_info["me-v1"] = {"muted": True, "videoType": "desktop"}
    task = await bench.hold()
    kinds = [item["colibriClass"] for item in bench.channel.sent]
    assert kinds == ["SourceVideoTypeMessage"] * 2 + ["ReceiverAudioSubscription", "ReceiverVideoConstraints"]
    assert [item["videoType"] for item in bench.channel.sent[:2]] == ["camera", "none"]
    assert bench.channel.sent[-1]["lastN"] == 7
    assert bench.channel.sent[-1]["defaultConstraints"] == {"maxHeight": 720}
    first = list(bench.channel.sent)

    def three_seconds() -> None:
        bench.now += 3.0

    bench.channel.opening = three_seconds
    bench.channel.gone.set()
    await until(lambda: bench.channel.opened == 2)
    await until(lambda: len(bench.channel.sent) == 2 * len(first))
    assert bench.channel.sent[len(first) :] == first
    names = [(kind.name, fields.get("seconds")) for kind, fields in bench.said]
    assert names == [("bridge_channel_degraded", None), ("bridge_channel_recovered", 3.0)]
    await end(task)
    assert not bench.dialogue.is_open
    assert repr(bench.dialogue) == "<BridgeDialogue tile closed>"


async def test_a_session_without_a_channel_is_no_fault() -> None:
    bench = Bench()
    await bench.dialogue.hold(cast("MediaSession", Media(None)))
    assert bench.said == []


async def test_a_layout_goes_out_at_once_and_only_when_it_is_another() -> None:
    bench = Bench()
    task = await bench.hold()
    bench.look(mode="stage", height=720, stage=("abc",))
    bench.look(mode="stage")
    assert len(bench.channel.constraints()) == 2
    assert bench.channel.constraints()[-1]["onStageSources"] == ["abc-v0"]
    with pytest.raises(TypeError, match="nonsense"):
        bench.look(nonsense=1)
    with pytest.raises(ValueError, match="known are tile, stage"):
        bench.look(mode="cinema")
    await end(task)
    bench.look(mode="audio-only")  # nobody hears it now: the next channel does
    bench.channel = Channel()
    task = await bench.hold()
    assert [item["lastN"] for item in bench.channel.constraints()] == [0]
    await end(task)


async def test_layouts_that_change_all_the_time_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "PAUSE", 0.05)
    bench = Bench(layout="custom")
    task = await bench.hold()
    for height in range(1, 101):
        bench.look(height=height)
    assert len(bench.channel.constraints()) == 1 + bridge.MAX_CHANGES
    bench.now += 1.0
    await until(lambda: bench.channel.constraints()[-1]["defaultConstraints"] == {"maxHeight": 100})
    assert len(bench.channel.constraints()) == 2 + bridge.MAX_CHANGES
    await end(task)


async def test_the_stage_follows_whoever_speaks_but_not_ourselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "PAUSE", 0.0)
    bench = Bench(layout="stage")
    task = await bench.hold()
    bench.tell("DominantSpeakerEndpointChangeEvent", dominantSpeakerEndpoint="abc")
    bench.tell("DominantSpeakerEndpointChangeEvent", dominantSpeakerEndpoint=ME, previousSpeakers=["abc"])
    bench.tell("DominantSpeakerEndpointChangeEvent", dominantSpeakerEndpoint="def", silence=True)
    bench.dialogue.left("def")
    stages = [item["onStageSources"] for item in bench.channel.constraints()]
    assert stages == [[], ["abc-v0"], ["def-v0"], []]
    said = [(fields["endpoint"], fields["previous"], fields["silence"]) for _, fields in bench.said]
    assert said == [("abc", (), False), (ME, ("abc",), False), ("def", (), True)]
    assert bench.dialogue.speaker is not None
    await end(task)


async def test_quick_changes_are_sent_together_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "PAUSE", 0.05)
    bench = Bench(receive_height=720)
    task = await bench.hold()
    for others in range(1, 12):
        bench.dialogue.occupants(others)
    bench.sources.mapped("video", [NamedSource(1, "video", "abc-v1", "abc", video_type="desktop")])
    bench.dialogue.sources_changed()
    assert len(bench.channel.constraints()) == 1
    bench.now += 1
    await until(lambda: len(bench.channel.constraints()) == 2)
    last = bench.channel.constraints()[-1]
    assert (last["defaultConstraints"], last["selectedSources"]) == ({"maxHeight": 180}, ["abc-v1"])
    await end(task)


async def test_messages_to_others_and_their_limits() -> None:
    bench = Bench()
    with pytest.raises(BridgeMessageError, match="not open"):
        bench.dialogue.send_message({"a": 1})
    task = await bench.hold()
    bench.dialogue.send_message({"a": 1}, "abc")
    assert bench.channel.sent[-1] == {"colibriClass": "EndpointMessage", "msgPayload": {"a": 1}, "to": "abc"}
    with pytest.raises(BridgeMessageError, match="bytes"):
        bench.dialogue.send_message({"a": "x" * 70_000})
    for payload in ({"a": object()}, {"a": float("nan")}):
        with pytest.raises(BridgeMessageError, match="JSON"):
            bench.dialogue.send_message(payload)
    for _ in range(bridge.BURST - 1):
        bench.dialogue.send_message({})
    with pytest.raises(BridgeMessageError, match="10 messages a second"):
        bench.dialogue.send_message({})
    bench.now += 0.2
    bench.dialogue.send_message({})
    await end(task)


async def test_who_is_heard_can_be_chosen() -> None:
    bench = Bench()
    bench.wishes.subscribe_audio(exclude=["abc-a0"])
    bench.dialogue.refresh()
    task = await bench.hold()
    heard = [item for item in bench.channel.sent if item["colibriClass"] == "ReceiverAudioSubscription"]
    assert [(item["all"], item["exclude"]) for item in heard] == [(True, ["abc-a0"])]
    bench.wishes.subscribe_audio(everyone=False, include=["abc-a0"])
    bench.dialogue.refresh()
    bench.dialogue.refresh()
    told = [item["all"] for item in bench.channel.sent if item["colibriClass"] == "ReceiverAudioSubscription"]
    assert told == [True, False]
    assert bench.channel.sent[-1]["include"] == ["abc-a0"]
    await end(task)


async def test_the_others_hear_how_our_connection_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "INTERVAL", 0.01)
    bench = Bench()
    task = await bench.hold()
    bench.now += 1.0
    await until(lambda: bench.channel.sent[-1]["colibriClass"] == "EndpointStats")
    assert bench.channel.sent[-1]["bitrate"]["audio"] == {"download": 0, "upload": 8}
    await end(task)


async def test_a_source_that_is_muted_shows_nothing() -> None:
    bench = Bench()
    task = await bench.hold()
    bench.own.source_info["me-v0"] = {"muted": True}
    bench.dialogue.published()
    bench.dialogue.published()
    told = [item["videoType"] for item in bench.channel.sent if item["colibriClass"] == "SourceVideoTypeMessage"]
    assert told == ["camera", "none"]
    await end(task)
    assert video_types({"a-a0": {}, "a-v1": {"videoType": "desktop"}, "a-v2": 5}) == {"a-v1": "desktop"}


async def test_what_the_bridge_tells_is_kept_and_reported() -> None:
    bench = Bench()
    bench.tell("ForwardedSources", forwardedSources=["abc-v0", "def-v0"])
    bench.tell("ForwardedSources", forwardedSources=["def-v0", "abc-v0"])  # in another order: nothing new
    bench.tell("ForwardedSources", forwardedSources=["def-v0"])
    bench.tell("ConnectionStats", estimatedDownlinkBandwidth=5_000_000)
    bench.tell("EndpointConnectivityStatusChangeEvent", endpoint="abc", active="false")
    bench.tell("EndpointMessage", **{"from": "abc", "msgPayload": {"x": 1}})
    bench.tell("EndpointStats", **{"from": "abc", "connectionQuality": 50})
    bench.tell("VideoSourcesMap", mappedSources=[{"source": "abc-v0", "owner": "abc", "ssrc": 5}])
    bench.tell("SenderSourceConstraints", sourceName="me-v0", maxHeight=180)
    bench.tell("SomethingNew", x=1)
    assert [(kind.name, fields) for kind, fields in bench.said] == [
        (
            "forwarded_sources_changed",
            {"sources": ("abc-v0", "def-v0"), "entered": ("abc-v0", "def-v0"), "gone": ()},
        ),
        ("forwarded_sources_changed", {"sources": ("def-v0",), "entered": (), "gone": ("abc-v0",)}),
        ("endpoint_connectivity_changed", {"endpoint": "abc", "active": False}),
        ("endpoint_message", {"endpoint": "abc", "payload": {"x": 1}}),
    ]
    assert bench.dialogue.downlink == 5_000_000
    assert bench.dialogue.statistics == {"abc": EndpointStatistics("abc", connection_quality=50)}
    assert [item.sources[0].name for item in bench.maps] == ["abc-v0"]
    bench.dialogue.left("abc")
    bench.dialogue.ended()
    state = vars(bench.dialogue)
    assert [state[name] for name in ("statistics", "downlink", "forwarded")] == [{}, None, ()]


async def test_statistics_of_others_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "MAX_STATISTICS", 2)
    bench = Bench()
    for name in ("a", "b", "a", "c"):
        bench.tell("EndpointStats", **{"from": name})
    assert list(bench.dialogue.statistics) == ["a", "c"]


async def test_hostile_messages_cost_one_line_each() -> None:
    bench = Bench()
    hostile: list[str | bytes] = [
        '{"colibriClass": "ConnectionStats", "estimatedDownlinkBandwidth": NaN}',
        "[[",
        b"\xff",
    ]
    hostile.append('{"colibriClass": "ForwardedSources", "forwardedSources": [[]]}')
    hostile.append(
        '{"colibriClass": "EndpointMessage", "from": "abc", "msgPayload": ' + '{"x":' * 99 + "1" + "}" * 100
    )
    with capture_logs() as lines:
        for data in hostile:
            deliver(data, bench.dialogue.take)
    assert len(lines) == len(hostile)
    assert {line["log_level"] for line in lines} == {"warning"}
    assert bench.said == []
