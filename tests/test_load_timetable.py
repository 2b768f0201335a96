"""Timetables: who sits where, who comes and goes when, and the same again for the same seed."""

from collections import Counter
from itertools import pairwise

from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from bot.load.scenario import Scenario
from bot.load.seating import config_of
from bot.load.timetable import Timetable, is_silent, timetable
from bot.settings import load


def plan(**values: object) -> Timetable:
    return timetable(Scenario.model_validate(values))


def joins(found: Timetable) -> list[float]:
    return [action.at for action in found.actions if action.what == "join"]


def leaves(found: Timetable) -> list[float]:
    return [action.at for action in found.actions if action.what == "leave"]


def test_a_pace_or_all_at_once() -> None:
    assert joins(plan(participants=4, join_delay=0.5)) == [0, 0.5, 1, 1.5]
    assert joins(plan(participants=4, join_rate=4)) == [0, 0.25, 0.5, 0.75]
    assert joins(plan(participants=3, join_delay=0)) == [0, 0, 0]
    assert joins(plan(participants=1)) == [0]


def test_ramps() -> None:
    assert joins(plan(participants=5, ramp={"up": 8})) == [0, 2, 4, 6, 8]
    stepped = plan(participants=5, join_delay=0, duration=60, ramp={"shape": "steps", "up": 30, "steps": 3})
    assert joins(stepped) == [0, 0, 10, 10, 20]
    up_down = plan(participants=4, duration=60, ramp={"shape": "up-down", "up": 9, "down": 8})
    assert (joins(up_down), leaves(up_down)) == ([0, 3, 6, 9], [54, 56, 58, 60])
    assert leaves(plan(participants=3)) == [60, 60, 60]


def test_rooms_are_filled_in_turn_or_one_after_the_other() -> None:
    assert [seat.conference for seat in plan(conferences=2).seats] == [0, 1, 0, 1]
    assert [seat.conference for seat in plan(conferences=2, join_order="fill").seats] == [0, 0, 1, 1]
    assert [seat.room for seat in plan(conferences=2, room_prefix="x").seats] == ["x-1", "x-2", "x-1", "x-2"]


def test_the_scenarios_senders_are_those_of_no_group_first() -> None:
    found = plan(
        participants=8,
        senders=3,
        audio_senders=6,
        groups=[
            {"name": "two", "participants": 2},
            {"name": "own", "participants": 3, "senders": 2, "audio_senders": 0, "layout": "stage", "last_n": 0},
        ],
    ).seats
    assert [(seat.group, seat.video, seat.audio) for seat in found] == [
        ("", True, True),
        ("", True, True),
        ("", True, True),
        ("two", False, True),
        ("two", False, True),
        ("own", True, False),
        ("own", True, False),
        ("own", False, False),
    ]
    assert [(seat.layout, seat.last_n) for seat in found][-4:] == [("tile", -1), *[("stage", 0)] * 3]


def test_a_group_has_its_own_network_region_and_height() -> None:
    group = {"name": "far", "participants": 1, "shaping": {"seed": 9}, "region": "us", "receive_height": 180}
    near, far = plan(region="eu", shaping={"loss": 0.1}, groups=[group]).seats
    assert (near.region, near.receive_height, near.shaping and near.shaping.loss) == ("eu", 720, 0.1)
    assert (far.region, far.receive_height) == ("us", 180)
    assert near.shaping_seed("up", 1) == "1/jitsi-bot-load-1/bot-1-1/up"
    assert far.shaping_seed("down", 1) == "9/jitsi-bot-load-1/bot-1-2/down"


def test_processes_share_evenly_and_have_all_together() -> None:
    found = timetable(Scenario(conferences=3, participants=3), processes=2)
    parts = [found.of_process(process) for process in range(2)]
    assert [len(part.seats) for part in parts] == [5, 4]
    together = [*parts[0].actions, *parts[1].actions]
    assert sorted(together, key=lambda action: (action.at, action.seat)) == list(found.actions)


def test_peak_and_busiest_second() -> None:
    found = plan(participants=10, join_rate=4)
    assert found.peak == 10
    assert found.joins_per_second() == 4
    assert (Timetable([], []).peak, Timetable([], []).joins_per_second()) == (0, 0)


def test_churn_is_of_a_share_and_of_the_times_asked_for() -> None:
    found = plan(participants=100, duration=600, join_delay=0, churn={"share": 0.3, "stay": 60, "away": 10})
    stays = Counter(action.seat for action in found.actions if action.what == "join")
    assert sum(number > 1 for number in stays.values()) == 30
    by_seat: dict[int, list[float]] = {}
    for action in found.actions:
        by_seat.setdefault(action.seat, []).append(action.at)
    of_one = next(times for seat, times in by_seat.items() if stays[seat] > 2)
    gaps = [later - earlier for earlier, later in pairwise(of_one)]
    assert all(30 <= stay <= 90 for stay in gaps[:-1:2])
    assert all(5 <= away <= 15 for away in gaps[1::2])


def test_who_speaks() -> None:
    turns = Scenario(participants=3, audio_senders=2, switch_speakers=10)
    seats = timetable(turns).seats
    assert [(seat.voice, seat.voices) for seat in seats] == [(0, 2), (1, 2), (None, 2)]
    silent = [[is_silent(turns, seat, at) for seat in seats] for at in (-1, 9.9, 10, 25, 35)]
    assert silent == [[now != 0, now != 1, True] for now in (0, 0, 1, 0, 1)]
    for nobody in (Scenario(), Scenario(audio_senders=0, switch_speakers=10)):
        assert not is_silent(nobody, timetable(nobody).seats[0], 5)


def test_who_has_the_word_speaks_without_a_pause_and_others_hold_a_conversation() -> None:
    for scenario, talk in ((Scenario(switch_speakers=5), "always"), (Scenario(), "conversation")):
        configs = [config_of(load(), scenario, seat) for seat in timetable(scenario).seats]
        assert [config.settings.talk for config in configs] == [talk, talk]
        assert [(config.seat, config.seats) for config in configs] == [(0, 2), (1, 2)]


def test_all_voices_of_groups_have_their_turn() -> None:
    panel = {"name": "panel", "participants": 2, "audio_senders": 2}
    seats = timetable(Scenario.model_validate({"participants": 4, "audio_senders": 1, "groups": [panel]})).seats
    assert [(seat.voice, seat.voices) for seat in seats] == [(0, 3), (None, 3), (1, 3), (2, 3)]


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    values = {
        "conferences": draw(st.integers(1, 4)),
        "participants": draw(st.integers(1, 8)),
        "seed": draw(st.integers(0, 3)),
        "duration": draw(st.integers(10, 300)),
        "join_order": draw(st.sampled_from(["spread", "fill"])),
        "ramp": {
            "shape": draw(st.sampled_from(["linear", "steps", "up-down"])),
            "up": draw(st.one_of(st.none(), st.integers(0, 100))),
            "steps": draw(st.integers(2, 9)),
        },
        "churn": draw(st.one_of(st.none(), st.just({"share": 0.5, "stay": 20, "away": 0}))),
    }
    try:
        return Scenario.model_validate(values)
    except ValidationError:
        assume(condition=False)
        raise


@given(scenarios(), st.integers(1, 3))
def test_everybody_joins_and_leaves_in_turn_within_the_run_and_the_same_again(
    scenario: Scenario, processes: int
) -> None:
    found = timetable(scenario, processes)
    assert found == timetable(scenario, processes)
    assert [seat.index for seat in found.seats] == list(range(scenario.total))
    assert len({(seat.room, seat.name) for seat in found.seats}) == scenario.total
    assert [action.at for action in found.actions] == sorted(action.at for action in found.actions)
    for seat in found.seats:
        mine = [action for action in found.actions if action.seat == seat.index]
        assert [action.what for action in mine] == ["join", "leave"] * (len(mine) // 2)
        assert mine[0].at >= 0
        assert mine[-1].at <= scenario.duration
    numbers = [number for _, number in found.present()]
    assert min(numbers) >= 0
    assert numbers[-1] == 0
    assert max(joins(found)) <= scenario.duration
    without_churn = timetable(scenario.model_copy(update={"churn": None}), processes)
    assert without_churn.peak <= scenario.total
