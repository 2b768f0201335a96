"""Which streams are decoded: K at a time, in a fixed order, picture and sound of an endpoint together."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from bot.bridge.rotation import Rotation

ENDPOINTS = {1: "a", 2: "b", 3: "c", 11: "a", 12: "b", 13: "c", 14: "d"}


def rotation(limit: int, *ssrcs: int, dwell: float = 10.0) -> Rotation:
    """Pictures have numbers below 10."""
    made = Rotation(limit, dwell=dwell, endpoint_of=ENDPOINTS.get)
    for ssrc in ssrcs:
        made.add(ssrc, "video" if ssrc < 10 else "audio", 100.0)
    return made


def turns(made: Rotation, count: int) -> list[list[int]]:
    found = []
    for _ in range(count):
        found.append(sorted(made.chosen))
        assert made.turn(made.next_deadline())
    return found


def test_a_picture_comes_with_the_sound_of_its_endpoint() -> None:
    made = rotation(2, 1, 11, 2, 12, 3, 13, 14)
    assert turns(made, 6) == [[1, 11], [2, 12], [3, 13], [1, 14], [1, 11], [2, 12]]


def test_each_has_its_turn_where_a_pair_does_not_fit() -> None:
    made = rotation(3, 1, 2, 3, 11, 12, 13)
    seen = turns(made, 4)
    assert seen[0] == [1, 2, 3]
    assert all(len(chosen) == 3 for chosen in seen)
    assert {ssrc for chosen in seen for ssrc in chosen} == {1, 2, 3, 11, 12, 13}


def test_one_at_a_time_is_a_picture_first_and_a_sound_where_there_is_none() -> None:
    made = rotation(1, 14, 11, 1, 2)
    assert list(made.chosen) == [1]  # a sound without a picture makes room
    assert turns(made, 5)[1:] == [[2], [14], [1], [2]]


def test_nothing_turns_while_all_are_chosen() -> None:
    made = rotation(4, 1, 2, 11)
    assert (made.waiting, made.next_deadline()) == (False, inf)
    assert not made.turn(1e9)
    made.add(3, "video", 200.0)
    made.add(12, "audio", 200.0)
    assert made.waiting
    assert made.next_deadline() == 110.0  # who waits is chosen as soon as the others had their time
    assert not made.turn(109.9)
    assert made.turn(110.0)
    assert made.next_deadline() == 120.0


def test_without_a_dwell_nobody_makes_room_before_he_goes() -> None:
    made = rotation(2, 11, 12, 1, dwell=inf)
    assert (list(made.chosen), made.next_deadline()) == ([11, 12], inf)
    made.remove(11)
    made.remove(99)
    assert list(made.chosen) == [12]
    made.fill()
    assert list(made.chosen) == [12, 1]
    made.fill()
    assert repr(made) == "<Rotation 2 of 2 turn 0>"


@given(
    st.integers(1, 5),
    st.lists(
        st.tuples(st.sampled_from(["add", "remove", "turn"]), st.sampled_from(sorted(ENDPOINTS))), max_size=60
    ),
)
def test_the_choice_is_of_those_that_are_there_and_no_place_stays_free(
    limit: int, steps: list[tuple[str, int]]
) -> None:
    made, there, now = rotation(limit), set[int](), 0.0
    for what, ssrc in steps:
        now += 1.0
        if what == "add" and ssrc not in made:
            made.add(ssrc, "video" if ssrc < 10 else "audio", now)
            there.add(ssrc)
        elif what == "remove":
            made.remove(ssrc)
            made.fill()
            there.discard(ssrc)
        elif what == "turn":
            made.turn(now)
        assert set(made.chosen) <= there
        assert len(made.chosen) == min(limit, len(there))
        assert len(made) == len(there)


@given(st.integers(1, 5), st.sets(st.sampled_from(sorted(ENDPOINTS)), min_size=1))
def test_every_picture_and_every_lone_sound_has_its_turn(limit: int, ssrcs: set[int]) -> None:
    made = rotation(limit, *ssrcs)
    pictures = {ENDPOINTS[ssrc] for ssrc in ssrcs if ssrc < 10}
    owed = {ssrc for ssrc in ssrcs if ssrc < 10 or ENDPOINTS[ssrc] not in pictures or limit > 1}
    seen = set(made.chosen)
    for _ in range(2 * len(ssrcs)):
        made.turn(made.next_deadline())
        seen |= set(made.chosen)
    assert owed <= seen
