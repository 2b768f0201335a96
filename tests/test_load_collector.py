"""Events and samples of participants as measures: loss, streams that end, whose limit a failure was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot import events
from bot.load.collector import Collector, Sample, StreamSample, Tally
from bot.load.measures import Measures
from bot.load.moments import moments_of
from bot.load.overload import reasons


def collector(*, warm_up: float = 0, overloaded: bool = False) -> Collector:
    found = Collector(warm_up, lambda: overloaded)
    found.add(0, "r", "p", observer=True)
    return found


def stream(packets: int, missing: int = 0, *, ssrc: int = 1, freezes: int = 0, frozen: float = 0) -> StreamSample:
    return StreamSample(
        ssrc,
        "video",
        "other",
        packets,
        missing,
        0.002,
        500e3,
        fps=30,
        height=360,
        freezes=freezes,
        frozen=frozen,
        first_frame=1.5,
    )


def joined(endpoint: str = "me") -> events.ConferenceJoined:
    return events.ConferenceJoined(
        room="r", participant="p", endpoint=endpoint, occupants=2, versions={"jicofo": "1"}, seconds=0.5
    )


def quantile(measures: Measures, name: str, share: float = 1) -> float | None:
    return measures.values[name].quantile(share)


def test_a_join_is_counted_with_its_phases() -> None:
    found = collector()
    found.event(0, events.PhaseDone(room="r", participant="p", phase="sasl", seconds=0.1), 1)
    found.event(0, joined(), 1)
    assert (found.tally.tried, found.tally.joined, found.tally.versions) == (1, 1, {"jicofo": "1"})
    assert found.measures.total("success") == 1
    assert quantile(found.measures, "join") == pytest.approx(0.5)
    assert quantile(found.measures, "join.sasl") == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("code", "cause", "overloaded", "whose"),
    [
        ("connection_refused", "no", False, "server"),
        ("connect_timeout", "late", True, "client"),
        ("process_died", "killed", False, "client"),
        ("rate_limited", "too fast", True, "rate limit"),
        ("protocol_error", "policy-violation", False, "rate limit"),
    ],
)
def test_failures_say_whose_limit_it_was(code: str, cause: str, overloaded: bool, whose: str) -> None:
    found = collector(overloaded=overloaded)
    found.event(0, events.JoinFailed(room="r", participant="p", code=code, cause=cause, attempts=4), 1)
    assert found.tally.failures[code].whose == whose
    assert found.measures.total("success") == 0
    assert found.measures.total("failures") == 1
    assert found.measures.total("rate_limited") == (1 if whose == "rate limit" else None)


def test_an_attempt_that_is_followed_by_another_is_no_failure() -> None:
    found = collector()
    found.event(0, events.AttemptFailed(room="r", participant="p", code="rate_limited", cause="429", delay=1.0), 1)
    assert found.measures.total("failures") is None
    assert found.measures.total("rate_limited") == 1
    assert found.tally.failures["rate_limited, tried again"].count == 1


def test_what_is_repaired_within_a_second_is_not_lost() -> None:
    found = collector()
    for at, (packets, missing) in enumerate([(100, 0), (190, 10), (300, 0), (390, 10), (490, 10)], 1):
        found.sample(0, Sample("s", streams=[stream(packets, missing)]), at)
    assert found.measures.shares["loss"] == (10, 500)


def test_a_stream_that_ends_tells_its_loss_and_freezes() -> None:
    found = collector()
    found.sample(0, Sample("s", streams=[stream(90, 10)]), 1)
    worst = found.sample(0, Sample("s", streams=[stream(180, 20, freezes=2, frozen=1.0)]), 2)
    assert worst[0].loss == pytest.approx(10 / 100)
    found.sample(0, Sample("s", streams=[]), 3)
    assert quantile(found.measures, "loss") == pytest.approx(20 / 200)
    assert found.measures.total("freezes") == 2
    assert quantile(found.measures, "freeze") == pytest.approx(0.5)


def test_another_source_on_the_same_ssrc_is_another_stream() -> None:
    found = collector()
    found.sample(0, Sample("s", streams=[stream(100, 5)]), 1)
    found.sample(0, Sample("s", streams=[stream(10)]), 2)
    found.left(0, 3)
    assert found.measures.values["loss"].count == 2
    assert found.measures.shares["loss"] == (5, 115)


def test_bitrates_and_the_first_key_frame() -> None:
    found = collector()
    found.event(0, events.PhaseDone(room="r", participant="p", phase="first_packet_in", seconds=0.1), 1.2)
    found.sample(0, Sample("s", bytes_sent=1000, streams=[stream(10)]), 2)
    found.sample(0, Sample("s", bytes_sent=126_000, round_trip=0.02, bandwidth=1e6, streams=[stream(20)]), 3)
    assert quantile(found.measures, "bitrate.sent") == 1_000_000
    assert quantile(found.measures, "join.first_key_frame") == pytest.approx(0.3)
    assert (quantile(found.measures, "rtt"), quantile(found.measures, "height")) == (0.02, 360)


def test_who_speaks_is_counted_once_and_timed_by_himself() -> None:
    found = collector()
    found.event(0, joined("me"), 1)
    found.unmuted(0, 4)
    for endpoint in ("other", "me", "me"):
        found.event(0, events.DominantSpeakerChanged(room="r", participant="p", endpoint=endpoint), 5)
    assert found.measures.total("speaker_changes") == 3
    assert found.measures.values["speaker_change"].count == 1
    assert quantile(found.measures, "speaker_change") == 1


def test_warm_up_does_not_count_but_is_told() -> None:
    found = collector(warm_up=10)
    found.event(0, joined(), 5)
    assert (found.measures.total("success"), found.tally.joined) == (None, 1)
    assert found.measures.series["joins"].values() == [0, 0, 0, 0, 0, 1]


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(-20, 20)), max_size=30), st.integers(0, 29))
def test_loss_is_the_same_however_it_is_cut_into_reports(steps: list[tuple[int, int]], cut: int) -> None:
    whole, parts, sums = collector(), collector(), Measures()
    packets = missing = 0
    for at, (more, change) in enumerate(steps):
        packets, missing = packets + more, max(0, missing + change)
        sample = Sample("s", streams=[stream(packets, missing)])
        whole.sample(0, sample, at)
        parts.sample(0, sample, at)
        if at == cut:
            sums.merge(parts.take()[0])
    for item in (whole, parts):
        item.left(0, len(steps))
    sums.merge(parts.take()[0])
    lost, total = whole.measures.shares.get("loss", (0, 0))
    assert sums.shares.get("loss", (0, 0)) == (lost, total)
    assert lost >= 0
    assert total - lost == packets
    assert lost >= (missing if packets else 0)  # what never came at the end is lost


def test_tallies_add_up() -> None:
    one, two = Tally(tried=1, joined=1), Tally(tried=2, overflow=3)
    one.fail("a", "first", "server")
    two.fail("a", "second", "client", 2)
    one.merge(two)
    assert (one.tried, one.joined, one.overflow) == (3, 1, 3)
    assert (one.failures["a"].count, one.failures["a"].example, one.failures["a"].whose) == (3, "first", "unknown")


def test_a_hostile_server_fills_no_memory() -> None:
    found = Tally()
    for number in range(1000):
        found.fail(f"cause {number}", "x" * 10_000, "server")
    assert len(found.failures) == 101
    assert len(found.failures["other"].example) == 300
    assert sum(item.count for item in found.failures.values()) == 1000


def test_a_server_that_is_away_is_one_moment() -> None:
    found = Collector()
    for seat in range(8):
        found.add(seat, "r", f"p{seat}")
        found.event(seat, events.ConnectionDegraded(room="r", participant="p", cause="gone"), 60 + seat / 10)
        found.event(
            seat,
            events.ConnectionRecovered(room="r", participant="p", how="rejoined", seconds=2 + seat),
            63 + seat,
        )
    gone, came = moments_of(found.tally.notes)
    assert (gone.at, gone.what) == (60, "connection_lost")
    assert gone.text.startswith("8 participants lost the connection to the server (gone): p0 of r, p1 of r")
    assert "and 3 more" in gone.text
    assert "8 participants came back (rejoined; after 2 s to 9 s)" in came.text
    assert found.measures.total("reconnects") == 8
    assert quantile(found.measures, "reconnect") == 9


def test_an_overloaded_client_says_so() -> None:
    found = Measures()
    assert reasons(found) == []
    found.value("client.loop_lag", 0.001, 1, 90)
    found.value("client.loop_lag", 0.3, 1, 10)
    found.value("client.pacing_late", 0.2, 1, 100)
    found.value("client.cpu", 0.99, 1, 100)
    texts = reasons(found, overflow=20, received=1000, dead=1)
    assert [text.split()[0:3] for text in texts[:3]] == [
        ["the", "event", "loop"],
        ["packets", "were", "sent"],
        ["a", "process", "used"],
    ]
    assert texts[3:] == ["20 datagrams were turned away by full socket buffers", "1 of its processes died"]
    assert reasons(Measures(), overflow=1, received=100_000) == []
