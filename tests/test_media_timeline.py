"""One line of time stamps out of those of several tracks."""

from hypothesis import given
from hypothesis import strategies as st

from bot.media.timeline import Timeline


def test_a_track_keeps_its_own_distances() -> None:
    line = Timeline(90_000)
    assert [line.place(stamp, now) for stamp, now in ((500, 10.0), (3500, 10.1), (6499, 10.9))] == [0, 3000, 5999]


def test_another_track_goes_on_by_the_time_that_passed() -> None:
    line = Timeline(90_000)
    line.place(500, 10.0)
    line.cut()
    assert line.place(0, 10.5) == 45_000
    assert line.place(3000, 10.5) == 48_000


def test_a_track_that_jumps_back_or_tells_no_time_goes_on_as_well() -> None:
    line = Timeline(48_000)
    line.place(48_000, 1.0)
    assert line.place(0, 1.02, step=960) == 960
    assert line.place(None, 1.02, step=960) == 1920
    assert line.place(None, 2.02, step=960) == 1920 + 48_000


@given(
    st.lists(st.tuples(st.none() | st.integers(-(2**40), 2**40), st.floats(0, 1e5), st.booleans()), max_size=50)
)
def test_the_line_never_goes_back(frames: list[tuple[int | None, float, bool]]) -> None:
    line, now, last = Timeline(90_000), 0.0, -1
    for stamp, passed, cut in frames:
        now += passed
        if cut:
            line.cut()
        placed = line.place(stamp, now)
        assert placed > last
        last = placed
