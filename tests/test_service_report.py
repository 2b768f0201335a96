"""Traffic in intervals, rows, statistics events and the live table; time is a parameter."""

import io
from dataclasses import dataclass, replace

from rich.console import Console

from bot import events
from bot.bridge.streams import RemoteStream
from bot.participant.config import ParticipantConfig, expand
from bot.participant.participant import Traffic
from bot.participant.states import State
from bot.service.live import MAX_ROWS, LiveTable, table
from bot.service.metrics import Metrics
from bot.service.report import Sampler, emit_statistics
from bot.service.traffic import TrafficMeter
from bot.settings import load


@dataclass
class Still:
    """A participant whose numbers the test sets."""

    config: ParticipantConfig
    traffic: Traffic
    state: State = State.ACTIVE
    streams: tuple[RemoteStream, ...] = ()

    def sample(self) -> tuple[Traffic, tuple[RemoteStream, ...]]:
        return self.traffic, self.streams


def moved(session: str | None = "s1", packets: int = 100, lost: int = 0) -> Traffic:
    return Traffic(session, packets, packets * 1000, 2 * packets, 2000 * packets, lost, 2)


def test_an_interval_is_the_difference_of_two_totals() -> None:
    meter = TrafficMeter(10.0)
    meter.feed(moved(packets=100, lost=3), 12.0)
    found = meter.feed(moved(packets=150, lost=4), 14.0)
    assert (found.seconds, found.packets_sent, found.packets_received, found.lost) == (2.0, 50, 100, 1)
    assert (found.bitrate_sent, found.bitrate_received) == (200_000.0, 400_000.0)


def test_a_new_session_counts_from_zero() -> None:
    meter = TrafficMeter(0.0)
    meter.feed(moved("old", 1000, 50), 1.0)
    found = meter.feed(moved("new", 10, 1), 2.0)
    assert (found.packets_sent, found.lost) == (10, 1)


def test_a_late_packet_is_no_negative_loss_and_no_time_is_no_bit_rate() -> None:
    meter = TrafficMeter(0.0)
    meter.feed(moved(lost=5), 0.0)
    found = meter.feed(moved(packets=200, lost=4), 0.0)
    assert (found.lost, found.bitrate_sent, found.bitrate_received) == (0, 0.0, 0.0)


def test_only_who_holds_a_session_has_statistics_and_metrics_add_them_up() -> None:
    configs = expand(load(bots=2, room="r"))
    sampler, metrics = Sampler(0.0), Metrics()
    said: list[events.Event] = []
    still = [Still(configs[0], moved()), Still(configs[1], Traffic(None), State.WAITING_FOR_PEERS)]
    for now in (10.0, 20.0):
        emit_statistics(sampler.rows(still, now), said.append)
        still[0].traffic = moved(packets=300, lost=7)
    assert [event.participant for event in said] == ["jitsi-bot-1", "jitsi-bot-1"]
    assert isinstance(said[1], events.MediaStatistics)
    assert (said[1].packets_sent, said[1].packets_lost, said[1].seconds, said[1].streams) == (200, 7, 10.0, 2)
    assert said[1].message == "Sent 200 packets, received 400 of 2 streams, lost 7"
    for event in said:
        metrics.on_event(event)
    text = metrics.render().decode()
    assert 'jitsi_bot_packets_total{direction="sent"} 300.0' in text
    assert 'jitsi_bot_bytes_total{direction="received"} 600000.0' in text
    assert "jitsi_bot_packets_lost_total 7.0" in text


def test_who_drops_frames_can_not_keep_up_until_he_does_or_goes() -> None:
    sampler, metrics = Sampler(0.0), Metrics()
    still = [Still(config, moved()) for config in expand(load(bots=2, room="r"))]

    def behind(*dropped: int) -> str:
        for item, count in zip(still, dropped, strict=True):
            item.traffic = replace(moved(), decoded=10 * count, dropped=count)
        emit_statistics(sampler.rows(still, 10.0), metrics.on_event)
        return metrics.render().decode()

    assert "jitsi_bot_participants_behind 1.0" in behind(0, 3)
    assert "jitsi_bot_participants_behind 2.0" in behind(5, 4)
    text = behind(5, 6)
    assert "jitsi_bot_participants_behind 1.0" in text
    assert 'jitsi_bot_frames_total{result="dropped"} 11.0' in text
    assert 'jitsi_bot_frames_total{result="decoded"} 110.0' in text
    left = events.StateChanged(room="r", participant=still[1].config.name, previous=State.ACTIVE, state=State.LEFT)
    metrics.on_event(left)
    assert "jitsi_bot_participants_behind 0.0" in metrics.render().decode()


def test_each_source_has_a_line_of_its_own() -> None:
    stream = RemoteStream(
        ssrc=7,
        media="video",
        codec="vp8",
        source="a-v0",
        owner="a",
        video_type="camera",
        packets=100,
        bytes=90_000,
        frames=50,
        lost=3,
        reordered=1,
        repaired=2,
        rtx=2,
        jitter=0.002,
        bitrate=500_000.0,
        first_frame=None,
        idle=0.01,
    )
    said: list[events.Event] = []
    (config,) = expand(load(room="r"))
    emit_statistics(Sampler(0.0).rows([Still(config, moved(), streams=(stream,))], 10.0), said.append)
    assert isinstance(said[1], events.StreamStatistics)
    assert said[1].message == "Received 100 packets of video source a-v0"
    assert "first_frame" not in said[1].as_dict()
    assert (said[1].lost, said[1].repaired, said[1].jitter) == (3, 2, 0.002)


def shown(bots: int) -> str:
    configs = expand(load(bots=bots, room="blue"))
    rows = Sampler(0.0).rows([Still(config, moved(packets=1000)) for config in configs], 10.0)
    out = io.StringIO()
    console = Console(file=out, width=140)
    console.print(table(rows))
    with LiveTable(console) as live:
        live.show(rows)
    return out.getvalue()


def test_the_table_shows_each_participant_both_ways_and_the_sum() -> None:
    text = shown(2)
    (line,) = {line for line in text.splitlines() if "jitsi-bot-2" in line}
    assert [cell.strip() for cell in line.strip("│").split("│")] == [
        *("jitsi-bot-2", "blue", "active"),
        *("1,000", "800", "2,000", "1,600", "0", "2"),
    ]
    (sums,) = {line for line in text.splitlines() if "all 2" in line}
    assert "4,000" in sums
    assert "3,200" in sums


def test_one_participant_needs_no_sum_and_a_crowd_is_cut_short() -> None:
    assert "all 1" not in shown(1)
    crowd = shown(MAX_ROWS + 5)
    assert f"all {MAX_ROWS + 5} (5 not shown)" in crowd
    assert f"jitsi-bot-{MAX_ROWS} " in crowd
    assert f"jitsi-bot-{MAX_ROWS + 1} " not in crowd
