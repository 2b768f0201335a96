"""``jitsi-bot watch``: quality by packets alone, who is worse, what is printed, and a meeting watched."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from bot import events, logs
from bot.api import Participant
from bot.bridge.messages import EndpointStatistics
from bot.bridge.payloads import PayloadFormat
from bot.bridge.rtp import is_rtcp, parse_header
from bot.bridge.streams import NamedSource, RemoteStream
from bot.cli import app
from bot.embedded.bridge import Endpoint
from bot.embedded.server import EmbeddedServer
from bot.errors import ConfigurationError
from bot.monitor import watch_settings
from bot.monitor.flow import PictureFlow, SoundFlow
from bot.monitor.meeting import CALM, MeetingSeen, MeetingWatch, ParticipantSeen, Quality
from bot.monitor.meeting_metrics import MeetingMetrics
from bot.monitor.meeting_report import lines, summary, table, title
from bot.monitor.watch_command import Printed
from bot.monitor.watcher import Watcher, monitor_config
from bot.participant.sources import SourceState
from bot.settings import environment_name, load
from bot.xmpp.occupants import Occupant
from tests.bridge_support import until

VP8 = PayloadFormat(100, "video", "vp8", 90_000)
OPUS = PayloadFormat(111, "audio", "opus", 48_000, audio_level=1)
FRAME = 1 / 30


# --- flow ----------------------------------------------------------------------------------------------------


def frames(flow: PictureFlow, count: int, now: float = 0.0, stamp: int = 0, ssrc: int = 1) -> float:
    """Feed ``count`` frames of two packets each, 30 a second; the time of the last one."""
    for number in range(count):
        for _ in range(2):
            flow.packet(ssrc, (stamp + 3000 * number) % 2**32, now + number * FRAME)
    return now + (count - 1) * FRAME


def test_a_steady_picture_has_its_frames_and_no_freeze() -> None:
    flow = PictureFlow()
    last = frames(flow, 90, stamp=2**32 - 60_000)  # over the end of the timestamps
    found = flow.take(last)
    assert (found.frames, found.freezes, found.frozen) == (90, 0, 0.0)
    assert flow.take(last).frames == 0


def test_a_gap_is_one_freeze_however_often_it_is_looked_at() -> None:
    flow = PictureFlow()
    last = frames(flow, 60)
    flow.take(last)
    during = [flow.take(last + at) for at in (0.1, 0.5, 1.0)]
    frames(flow, 2, now=last + 2.0, stamp=60 * 3000)
    after = flow.take(last + 2.1)
    assert [item.freezes for item in during] == [0, 1, 0]
    assert [item.frozen for item in during] == pytest.approx([0.0, 0.5, 0.5])
    assert after.freezes == 0
    assert after.frozen == pytest.approx(1.0)


def test_a_freeze_between_two_looks_is_counted() -> None:
    flow = PictureFlow()
    last = frames(flow, 60)
    frames(flow, 30, now=last + 0.4, stamp=60 * 3000)
    found = flow.take(last + 1.5)
    assert found.freezes == 1
    assert found.frozen == pytest.approx(0.4)


def test_nothing_is_due_in_a_pause() -> None:
    flow = PictureFlow()
    last = frames(flow, 60)
    flow.pause()
    assert flow.take(last + 30).frozen == 0.0
    frames(flow, 5, now=last + 60, stamp=60 * 3000)
    assert flow.take(last + 60.2).freezes == 0


def test_late_packets_are_no_frames_and_another_ssrc_begins_anew() -> None:
    flow = PictureFlow()
    last = frames(flow, 10, stamp=90_000)
    flow.packet(1, 90_000, last)
    assert flow.take(last).frames == 10
    frames(flow, 3, now=last + FRAME, stamp=7, ssrc=2)
    frames(flow, 3, now=last + 4 * FRAME, stamp=2**31, ssrc=2)  # the sender began anew
    assert flow.take(last + 7 * FRAME).frames == 6


def test_voice_is_sound_that_is_loud() -> None:
    flow = SoundFlow()
    for level in (30, 50, 51, 127, None):
        flow.packet(level)
    assert flow.take().voice == pytest.approx(0.04)
    assert flow.take().voice == 0.0


# --- the meeting ---------------------------------------------------------------------------------------------


def stream(ssrc: int, owner: str, packets: int, lost: int = 0, media: Any = "audio") -> RemoteStream:
    codec = "opus" if media == "audio" else "vp8"
    fields: dict[str, Any] = dict.fromkeys(
        ("reordered", "repaired", "rtx", "jitter", "bitrate", "idle", "frames"), 0
    )
    return RemoteStream(
        **fields,
        ssrc=ssrc,
        media=media,
        codec=codec,
        source=f"{owner}-{media[0]}0",
        owner=owner,
        video_type=None,
        packets=packets,
        bytes=100 * packets,
        lost=lost,
        first_frame=None,
    )


class Meeting:
    """A watch with people whose packets and losses are given, an interval of ten seconds after the other."""

    def __init__(self, *people: str, **limits: str) -> None:
        self.people = people
        self.now = 0.0
        self.totals = dict.fromkeys(people, (0, 0))
        self.muted: set[str] = set()
        self.told: dict[str, EndpointStatistics] = {}
        self.watch = MeetingWatch("room", watch_settings.limits(tuple(limits.values())), 0.0)
        self.seen: MeetingSeen | None = None

    def states(self) -> dict[str, SourceState]:
        found = {}
        for number, who in enumerate(self.people):
            packets, lost = self.totals[who]
            name = f"{who}-a0"
            found[name] = SourceState(
                name, who, "audio", None, name in self.muted, (number,), stream(number, who, packets, lost)
            )
        return found

    def look(self) -> list[Any]:
        occupants = [Occupant(endpoint=who, nick=who.title()) for who in self.people]
        return self.watch.look(occupants, self.states(), self.now)

    def interval(self, connected: bool = True, **lost: int) -> list[Mapping[str, Any]]:
        """500 packets of each are due, of which so many are lost. What changed by it."""
        for who in self.people:
            packets, before = self.totals[who]
            self.totals[who] = packets + 500 - lost.get(who, 0), before + lost.get(who, 0)
        self.look()
        self.now += 10
        streams = [state.stream for state in self.states().values() if state.stream is not None]
        self.seen, changes = self.watch.report(
            self.states(), streams, self.told, now=self.now, at=1e9 + self.now, connected=connected
        )
        assert {change.kind for change in changes} <= {events.QualityChanged}
        return [change.fields for change in changes]

    def of(self, who: str) -> ParticipantSeen:
        assert self.seen is not None
        [found] = [item for item in self.seen.participants if item.endpoint == who]
        return found


def test_who_loses_packets_is_worse_at_once_and_better_when_it_lasts() -> None:
    meeting = Meeting("ann", "bob")
    assert meeting.interval() == []
    assert meeting.of("ann").quality is Quality.GOOD
    [poor] = meeting.interval(ann=25)
    assert (poor["endpoint"], poor["nick"], poor["quality"], poor["previous"]) == ("ann", "Ann", "poor", "good")
    assert poor["cause"] == "loss 5.0 % is not below 2.0 %"
    assert not poor["own"]
    [bad] = meeting.interval(ann=100)
    assert (bad["quality"], bad["previous"]) == ("bad", "poor")
    changes = [meeting.interval() for _ in range(CALM)]
    assert [len(item) for item in changes] == [0] * (CALM - 1) + [1]
    assert meeting.of("ann").qualities == {"good": 20.0, "poor": 10.0, "bad": 10.0 * CALM}
    assert meeting.of("ann").lost == 125
    assert meeting.of("bob").qualities == {"good": 10.0 * (3 + CALM)}


def test_where_all_are_bad_the_monitor_itself_is_suspected() -> None:
    meeting = Meeting("ann", "bob")
    meeting.interval()
    changes = meeting.interval(ann=100, bob=100)
    assert [item["own"] for item in changes] == [True, True]
    assert meeting.seen is not None
    assert meeting.seen.own
    assert "the monitor's own way" in title(meeting.seen)


def test_limits_are_given() -> None:
    meeting = Meeting("ann", loss="loss < 20%")
    meeting.interval()
    assert meeting.interval(ann=60) == []


def test_counters_that_begin_anew_are_no_loss() -> None:
    meeting = Meeting("ann")
    meeting.interval(ann=5)
    meeting.interval(ann=5)
    meeting.totals["ann"] = (0, 0)
    meeting.interval()
    [source] = meeting.of("ann").sources
    assert (source.packets, source.lost, source.bitrate) == (500, 0, 8 * 50_000 / 10)


def test_what_a_client_tells_counts_too() -> None:
    meeting = Meeting("ann")
    meeting.interval()
    meeting.told["ann"] = EndpointStatistics(
        "ann", connection_quality=30, round_trip=1500, loss_upload=1, upload=80
    )
    [change] = meeting.interval()
    assert change["cause"] == "round_trip 1.50 s is not below 1.00 s"
    told = meeting.of("ann").told
    assert told is not None
    assert told.quality == pytest.approx(0.3)
    assert (told.round_trip, told.bitrate_up) == (1.5, 80_000)


def test_an_endpoint_that_the_bridge_does_not_hear_is_lost() -> None:
    meeting = Meeting("ann")
    meeting.interval()
    who: dict[str, Any] = {"room": "room", "participant": "Monitor", "endpoint": "ann"}
    meeting.watch.on_event(events.EndpointConnectivityChanged(**who, active=False))
    [lost] = meeting.interval()
    assert lost["quality"] == "lost"
    meeting.watch.on_event(events.EndpointConnectivityChanged(**who, active=True))
    meeting.interval()
    assert [item["quality"] for item in meeting.interval()] == ["good"]


def test_without_media_nobody_is_judged() -> None:
    meeting = Meeting("ann")
    meeting.interval()
    assert meeting.interval(connected=False, ann=400) == []
    assert meeting.of("ann").quality is Quality.GOOD


def test_mutes_are_told_but_not_those_that_were_there() -> None:
    meeting = Meeting("ann", "bob")
    meeting.muted = {"ann-a0"}
    assert meeting.look() == []
    meeting.muted = {"bob-a0"}
    assert [(change.fields["source"], change.fields["muted"]) for change in meeting.look()] == [
        ("ann-a0", False),
        ("bob-a0", True),
    ]
    assert meeting.look() == []


def test_who_left_is_in_the_end_all_the_same() -> None:
    meeting = Meeting("ann", "bob")
    meeting.interval(ann=50)
    meeting.people = ("bob",)
    meeting.look()
    people = meeting.watch.everybody(meeting.now)
    assert [(item.endpoint, item.present, item.lost) for item in people] == [("ann", 10.0, 50), ("bob", 10.0, 0)]
    assert summary(people).splitlines()[1] == (
        "  Ann (ann): 10 s, bad 100%; lost 10.0 %, 0 freezes of 0.0 s, voice 0 s"
    )


def packet(ssrc: int, stamp: int) -> bytes:
    return bytes((0x80, 100)) + (1).to_bytes(2) + stamp.to_bytes(4) + ssrc.to_bytes(4) + b"picture"


def feed(watch: MeetingWatch, seconds: float, now: float, stamp: int) -> float:
    for number in range(int(seconds * 30)):
        data = packet(1, stamp + number * 3000)
        named = NamedSource(1, "video", "ann-v0", "ann")
        watch.packet(named, VP8, parse_header(data), data, now + number * FRAME)
    return now + seconds


def test_a_picture_that_is_not_forwarded_does_not_freeze() -> None:
    watch = MeetingWatch("room", watch_settings.limits(()), 0.0)
    state = SourceState("ann-v0", "ann", "video", "camera", False, (1,), stream(1, "ann", 60, media="video"))
    watch.look([Occupant(endpoint="ann")], {"ann-v0": state}, 0.0)

    def report(now: float) -> ParticipantSeen:
        streams = [stream(1, "ann", int(now * 30), media="video")]
        seen, _ = watch.report({"ann-v0": state}, streams, {}, now=now, at=now, connected=True)
        return seen.participants[0]

    now = feed(watch, 5.0, 0.0, 0)
    assert report(5.0).sources[0].frame_rate == pytest.approx(30)
    who: dict[str, Any] = {"room": "room", "participant": "Monitor"}
    watch.on_event(events.ForwardedSourcesChanged(**who, sources=(), gone=("ann-v0",)))
    feed(watch, 0.2, now, 5 * 90_000)  # what was on its way
    assert report(15.0).freezes == 0
    watch.on_event(events.ForwardedSourcesChanged(**who, sources=("ann-v0",), entered=("ann-v0",)))
    feed(watch, 2.0, 15.0, 15 * 90_000)
    found = report(27.0)  # forwarded, and it stops
    assert found.freezes == 1
    assert found.frozen == pytest.approx(10.0, abs=0.1)
    assert found.quality is Quality.BAD
    assert found.cause.startswith("frozen 83")


def test_reports_for_people_hold_what_others_write() -> None:
    meeting = Meeting("ann", "bob")
    meeting.interval()
    meeting.interval(bob=100)
    meeting.watch.look([Occupant("ann", "[red]\x1b[0mAnn"), Occupant("bob", "Bob")], meeting.states(), meeting.now)
    meeting.interval(bob=100)
    assert meeting.seen is not None
    text = lines(meeting.seen).splitlines()
    assert text[0] == "room: 2 participants (1 good, 1 bad)"
    assert text[1].startswith("  Bob (bob): bad, loss 20.0 % is not below 10.0 %; audio opus")
    assert "\x1b" not in "".join(text)
    assert table(meeting.seen).row_count == 2


def test_metrics_have_no_participants() -> None:
    meeting = Meeting("ann", "bob")
    meeting.interval()
    meeting.interval(bob=100)
    assert meeting.seen is not None
    metrics = MeetingMetrics()
    metrics.show(meeting.seen)
    metrics.changed("bad")
    text = metrics.render().decode()
    assert "bob" not in text.lower()
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["jitsi_bot_watch_participants", "good"] == found["jitsi_bot_watch_participants", "bad"] == 1
    assert found["jitsi_bot_watch_packets_lost_total", "audio"] == 100
    assert found["jitsi_bot_watch_worst_loss_ratio", "audio"] == pytest.approx(0.2)
    assert found["jitsi_bot_watch_quality_changes_total", "bad"] == 1


# --- settings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"thresholds": ("delay < 1s",)}, "a participant has no delay; known are loss, frozen, round_trip"),
        ({"thresholds": ("loss > 1%",)}, "loss is better low"),
        ({"interval": 0.1}, "watch.interval"),
    ],
)
def test_wrong_settings_are_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        watch_settings.load(**given)


def test_settings_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JITSI_WATCH_INTERVAL", "5")
    monkeypatch.setenv("JITSI_WATCH_THRESHOLDS", "loss < 1%; frozen < 10%, 30%")
    found = watch_settings.load()
    assert found.interval == 5
    assert [item.warning for item in found.limits] == [0.01, 0.1, 0.4]


def test_a_monitor_sends_and_decodes_nothing() -> None:
    config = monitor_config(load(room="room", bots=3))
    assert (config.name, config.audio, config.video, config.settings.decode) == ("Monitor", "none", "none", "none")
    assert monitor_config(load(name="Eve")).name == "Eve"


# --- as a whole ----------------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def server() -> AsyncIterator[EmbeddedServer]:
    found = EmbeddedServer(port=0)
    await found.start()
    yield found
    await found.stop()


class Kept:
    """All that a watch tells."""

    def __init__(self) -> None:
        self.reports: list[MeetingSeen] = []
        self.events: list[events.Event] = []
        self.people: Sequence[ParticipantSeen] = ()

    def report(self, seen: MeetingSeen) -> None:
        self.reports.append(seen)

    def event(self, event: events.Event) -> None:
        self.events.append(event)

    def ended(self, people: Sequence[ParticipantSeen]) -> None:
        self.people = people

    def flows(self, nick: str) -> bool:
        """Whether sound and picture of ``nick`` were in the last report."""
        people = self.reports[-1].participants if self.reports else ()
        return any(all(item.packets for item in who.sources) and who.sources for who in people if who.nick == nick)

    def changes(self, nick: str) -> list[str]:
        return [
            item.quality for item in self.events if isinstance(item, events.QualityChanged) and item.nick == nick
        ]


async def test_a_meeting_is_watched_without_decoding(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ann and Bob flow, a loss on the way to the monitor is seen and suspected, a mute is told; others see it."""
    rng, put, victim = random.Random(3), Endpoint.put, ""

    def lossy(endpoint: Endpoint, data: bytes) -> None:
        if endpoint.name != victim or is_rtcp(data) or rng.random() > 0.5:
            put(endpoint, data)

    monkeypatch.setattr(Endpoint, "put", lossy)
    small: dict[str, Any] = {"ice_addresses": "127.0.0.1", "width": 320, "height": 180, "talk": "always"}
    settings = load(ws_url=server.url, room="room", ice_addresses="127.0.0.1")
    kept = Kept()
    watcher = Watcher(monitor_config(settings), watch_settings.load(interval=0.5), output=kept)
    async with (
        Participant(server.url, "room", name="Ann", **small) as ann,
        Participant(server.url, "room", name="Bob", **small),
    ):
        running = asyncio.create_task(watcher.run())
        try:
            await until(lambda: kept.flows("Ann") and kept.flows("Bob"), 30)
            assert "Monitor" in [item.nick for item in ann.others.values()]
            conference = watcher.participant.conference
            assert conference is not None
            victim = conference.room.own.partition("/")[2]
            await until(lambda: "bad" in kept.changes("Ann") and "bad" in kept.changes("Bob"), 20)
            await until(lambda: kept.reports[-1].own, 20)
            ann.own.mute("audio")
            muted = events.RemoteMuteChanged
            await until(lambda: any(isinstance(item, muted) and item.muted for item in kept.events))
            assert watcher.participant.traffic.decoded == 0
            assert watcher.participant.own.sources == ()
        finally:
            watcher.stop()
            await running
    assert {item.nick for item in kept.people} == {"Ann", "Bob"}
    assert all(item.lost for item in kept.people)


def test_the_command_prints_json_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WIDTH", "320"), ("HEIGHT", "180"), ("FPS", "10")):
        monkeypatch.setenv(f"JITSI_{name}", value)
    arguments = ["watch", "--embedded", "--embedded-port", "0", "--duration", "2.5", "--interval", "0.5"]
    found = CliRunner().invoke(app, [*arguments, "--format", "json", "--http-port", "0", "--log-level", "error"])
    assert found.exit_code == 0, found.output
    told = [json.loads(line) for line in found.stdout.splitlines()]
    assert {item["type"] for item in told} >= {"change", "summary"}
    assert told[-1]["type"] == "summary"
    assert {"conference_joined", "left"} <= {item["event_name"] for item in told if item["type"] == "change"}


def test_json_has_reports_changes_and_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    meeting = Meeting("ann")
    meeting.interval()
    meeting.interval(ann=50)
    assert meeting.seen is not None
    who: dict[str, Any] = {"room": "room", "participant": "Monitor"}
    logs.configure("error", "json")  # to the standard error
    with Printed("json") as out:
        out.report(meeting.seen)
        out.event(events.DominantSpeakerChanged(**who, endpoint="ann"))
        out.event(events.PhaseDone(**who, phase="ice"))
        out.ended(meeting.watch.everybody(meeting.now))
    report, change, end = map(json.loads, capsys.readouterr().out.splitlines())
    [ann] = report["participants"]
    assert (report["type"], report["room"], ann["quality"]) == ("statistics", "room", "bad")
    assert ann["sources"][0]["loss"] == 0.1
    assert (change["type"], change["event_name"], change["endpoint"]) == (
        "change",
        "dominant_speaker_changed",
        "ann",
    )
    assert end["type"] == "summary"
    assert end["participants"][0]["qualities"] == {"good": 10.0, "bad": 10.0}


def test_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    meeting = Meeting("ann")
    meeting.interval()
    assert meeting.seen is not None
    with Printed("auto") as out:
        out.report(meeting.seen)
        out.ended(meeting.watch.everybody(meeting.now))
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "room: 1 participants (1 good)"
    assert printed[2] == "In all:"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--format", "xml"], 2, "--format is auto, text or json"),
        (["--embedded", "--url", "ws://x"], 2, "exclude each other"),
        (["--url", "ftp://x"], 2, "does not begin with ws://"),
        (["--threshold", "delay < 1"], 2, "a participant has no delay"),
    ],
)
def test_wrong_usage(arguments: list[str], code: int, said: str) -> None:
    found = CliRunner().invoke(app, ["watch", *arguments])
    assert (found.exit_code, said in found.output) == (code, True), found.output


def test_the_page_has_every_setting() -> None:
    page = (Path(__file__).parents[1] / "docs" / "watch.md").read_text()
    rows = []
    for name, field in watch_settings.WatchSettings.model_fields.items():
        limits = "; ".join(f"`{text}`" for text in watch_settings.DEFAULTS)
        default = limits if name == "thresholds" else f"`{field.default}`"
        rows.append(f"| `{name}` | `{environment_name(f'watch_{name}')}` | {default} | {field.description} |")
    assert [line for line in page.splitlines() if line.startswith("| `")] == rows
