"""The bad network: what is asked for comes out, the same seed the same fate, nothing overtakes unless it may."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bot.load.shaping import Shaper, Shaping


def run(
    shaping: Shaping, count: int, *, size: int = 1000, interval: float = 0.01, seed: str = "1"
) -> list[list[float]]:
    shaper = Shaper(shaping, seed)
    return [shaper.feed(size, number * interval) for number in range(count)]


def test_nothing_asked_for_changes_nothing() -> None:
    shaper = Shaper(Shaping(), "1")
    assert shaper.feed(1200, 3.5) == [3.5]
    assert repr(shaper) == "<Shaper 1 passed, 0 lost, 0 overflowed>"


@pytest.mark.parametrize("loss", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("burst", [1.0, 2.0, 5.0])
def test_losses_and_their_bursts_are_those_asked_for(loss: float, burst: float) -> None:
    lost = [not times for times in run(Shaping(loss=loss, burst=burst), 200_000)]
    assert sum(lost) / len(lost) == pytest.approx(loss, rel=0.1)
    starts = sum(now and not before for before, now in zip([False, *lost], lost, strict=False))
    assert sum(lost) / starts == pytest.approx(max(burst, 1 / (1 - loss)), rel=0.1)


def test_delay_and_jitter() -> None:
    shaping = Shaping.model_validate({"delay": "50ms", "jitter": "20ms", "reorder": True})
    delays = [times[0] - number * 0.01 for number, times in enumerate(run(shaping, 5000))]
    assert min(delays) == pytest.approx(0.03, abs=0.001)
    assert max(delays) == pytest.approx(0.07, abs=0.001)
    assert sum(delays) / len(delays) == pytest.approx(0.05, abs=0.001)
    assert all(delay >= 0 for times in run(Shaping(jitter=1), 500) for delay in times)


def test_packets_overtake_only_where_they_may() -> None:
    def arrivals(*, reorder: bool) -> list[float]:
        return [times[0] for times in run(Shaping(delay=0.05, jitter=0.04, reorder=reorder), 500)]

    assert arrivals(reorder=True) != sorted(arrivals(reorder=True))
    assert arrivals(reorder=False) == sorted(arrivals(reorder=False))


def test_the_bandwidth_is_kept_and_the_queue_bounds_the_wait() -> None:
    # 8 Mbit/s are offered to 1 Mbit/s: the queue fills, and then seven of eight are lost.
    shaping = Shaping.model_validate({"bandwidth": "1Mbit/s", "queue": "200ms", "allowance": "20ms"})
    shaper = Shaper(shaping, "1")
    waits = [at - now / 1000 for now in range(10_000) for at in shaper.feed(1000, now / 1000)]
    assert shaper.passed * 8000 / 10 == pytest.approx(1e6, rel=0.05)
    assert shaper.overflowed == 10_000 - shaper.passed
    assert max(waits) <= 0.2 + 0.008
    assert waits[0] == 0


def test_a_pause_gives_the_allowance_and_no_more() -> None:
    shaper = Shaper(Shaping(bandwidth=1e6, allowance=0.016), "1")
    assert [shaper.feed(1000, 5.0)[0] for _ in range(4)] == pytest.approx([5.0, 5.0, 5.008, 5.016])


def test_a_packet_longer_than_the_queue_passes_an_idle_link() -> None:
    shaper = Shaper(Shaping(bandwidth=1000, queue=0.1, allowance=0), "1")
    assert shaper.feed(1000, 0.0) == [8.0]
    assert shaper.feed(1000, 0.1) == []
    assert shaper.feed(1000, 7.95) == [16.0]


@given(
    st.builds(
        Shaping,
        loss=st.floats(0, 0.9),
        burst=st.floats(1, 20),
        delay=st.floats(0, 1),
        jitter=st.floats(0, 1),
        reorder=st.booleans(),
        bandwidth=st.sampled_from([0, 1e5, 1e7]),
    ),
    st.lists(st.tuples(st.integers(40, 1500), st.floats(0, 0.1)), max_size=60),
)
def test_the_same_seed_gives_the_same_fate_and_nothing_comes_before_it_was_sent(
    shaping: Shaping, packets: list[tuple[int, float]]
) -> None:
    def fates() -> list[list[float]]:
        shaper, now, found = Shaper(shaping, "a"), 0.0, []
        for size, pause in packets:
            now += pause
            found.append(shaper.feed(size, now))
            assert all(at >= now for at in found[-1])
        assert shaper.passed + shaper.lost + shaper.overflowed == len(packets)
        return found

    first = fates()
    assert first == fates()
    arrivals = [at for times in first for at in times]
    assert shaping.reorder or arrivals == sorted(arrivals)


def test_another_seed_gives_another_fate() -> None:
    shaping = Shaping(loss=0.5)
    assert run(shaping, 100, seed="1") != run(shaping, 100, seed="2")


def test_directions() -> None:
    assert Shaping().applies("up")
    assert Shaping().applies("down")
    assert not Shaping(direction="down").applies("up")


@pytest.mark.parametrize(
    "wrong",
    [
        {"loss": 1},
        {"loss": "200%"},
        {"delay": "-1s"},
        {"burst": 0.5},
        {"bandwidth": "fast"},
        {"lost": 0.1},
        {"seed": True},
    ],
)
def test_what_no_network_is(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Shaping.model_validate(wrong)
