from __future__ import annotations

import itertools
import subprocess
import sys
import time

import numpy as np
import pytest

from bot.media.speech import (
    DOUBLE_TALK,
    MUTUAL_SILENCE,
    P59,
    P59_GENERATOR,
    PAUSE,
    PIECE,
    TALKSPURT,
    Conversation,
    Rates,
    Spurt,
    Talk,
)

NOW = 1_700_000_000.0
HOURS = 20 * 3600.0


def _lengths(spurts: list[Spurt]) -> tuple[list[float], list[float]]:
    talk = [spurt.end - spurt.start for spurt in spurts]
    pauses = [after.start - before.end for before, after in itertools.pairwise(spurts)]
    return talk, pauses


def _intervals(talks: list[Talk]) -> list[tuple[int, float]]:
    """How many talk at once, and for how long, over twenty hours."""
    steps = []
    for talk in talks:
        for spurt in talk.spurts(NOW, NOW + HOURS):
            steps += [(spurt.start, 1), (spurt.end, -1)]
    steps.sort()
    counts = itertools.accumulate(step for _, step in steps)
    return [(count, b[0] - a[0]) for count, (a, b) in zip(counts, itertools.pairwise(steps), strict=False)]


def test_two_members_hold_the_conversation_of_p59() -> None:
    """Twenty hours, some 28000 talkspurts: the standard error of the means is below 1 %."""
    talks = [Conversation("room", ("a", "b")).talk(name) for name in "ab"]
    for talk in talks:
        spurts, pauses = _lengths(list(talk.spurts(NOW, NOW + HOURS)))
        assert np.mean(spurts) == pytest.approx(TALKSPURT, rel=0.03)
        assert np.mean(pauses) == pytest.approx(PAUSE, rel=0.03)
    intervals = _intervals(talks)
    double = [length for count, length in intervals if count == 2]
    silence = [length for count, length in intervals if count == 0]
    assert np.mean(double) == pytest.approx(DOUBLE_TALK, rel=0.03)
    assert np.mean(silence) == pytest.approx(MUTUAL_SILENCE, rel=0.03)
    assert {count for count, _ in intervals} == {0, 1, 2}


def test_the_states_last_exponentially_long() -> None:
    intervals = _intervals([Conversation("room", ("a", "b")).talk(name) for name in "ab"])
    for count, mean in ((0, P59.silence), (1, P59.single), (2, P59.double)):
        lengths = np.array([length for talkers, length in intervals if talkers == count])
        for share in (0.1, 0.5, 0.9):
            assert np.quantile(lengths, share) == pytest.approx(-mean * np.log(1 - share), rel=0.06, abs=0.003)


def test_the_generator_of_p59_has_the_shares_of_time_of_its_table() -> None:
    """Single talk goes to silence with 60 %: the table has 6.59 % double talk and 22.48 % mutual silence."""
    members = ("a", "b")
    conversation = Conversation("room", members, rates=P59_GENERATOR)
    intervals = _intervals([conversation.talk(name) for name in members])
    total = sum(length for _, length in intervals)
    shares = [sum(length for count, length in intervals if count == kind) / total for kind in range(3)]
    assert shares[0] == pytest.approx(0.2248, abs=0.01)
    assert shares[2] == pytest.approx(0.0659, abs=0.012)
    spurts, _ = _lengths(list(conversation.talk("a").spurts(NOW, NOW + HOURS)))
    assert np.mean(spurts) == pytest.approx(P59_GENERATOR.talkspurt, rel=0.03)


def test_rates_follow_from_means_and_give_them_back() -> None:
    assert (P59.talkspurt, P59.pause) == pytest.approx((TALKSPURT, PAUSE))
    again = Rates.of_means(P59_GENERATOR.talkspurt, P59_GENERATOR.pause, 0.226, 0.456)
    assert again.single == pytest.approx(0.854)
    assert again.interruption == pytest.approx(0.4)
    with pytest.raises(ValueError, match="pauses of 9 s"):
        Rates.of_means(1, 9, 0.2, 0.5)


def _talk_time(conversation: Conversation) -> list[float]:
    return [
        sum(spurt.end - spurt.start for spurt in conversation.talk(name).spurts(NOW, NOW + HOURS))
        for name in conversation.members
    ]


def test_the_room_is_one_conversation_however_many_are_in_it() -> None:
    conversation = Conversation.of_size("all hands", 40)
    intervals = _intervals([conversation.talk(name) for name in conversation.members])
    assert {count for count, _ in intervals} == {0, 1, 2}
    assert np.mean([length for count, length in intervals if count == 0]) == pytest.approx(0.508, rel=0.03)
    times = _talk_time(conversation)
    assert min(times) > 0.5 * np.mean(times)
    assert sum(times) / HOURS == pytest.approx(2 * TALKSPURT / (TALKSPURT + PAUSE), rel=0.03)


def test_talk_share_says_who_talks() -> None:
    conversation = Conversation.of_size("lecture", 10, talk_share=(0.6, 0.2, 0.0))
    assert conversation.shares == pytest.approx((0.6, 0.2, 0.0) + (0.2 / 7,) * 7)
    times = _talk_time(conversation)
    assert times[0] > 1.5 * times[1]
    assert times[1] > 2 * times[3]
    assert times[2] == 0


def test_a_main_speaker_can_keep_the_word() -> None:
    members = ("teacher", "a", "b", "c")
    lecture = _talk_time(Conversation("room", members, talk_share=(1.0,), main_share=0.9))
    talk = _talk_time(Conversation("room", members, talk_share=(1.0,)))
    assert lecture[0] > 3 * sum(lecture[1:])
    assert talk[0] == pytest.approx(sum(talk[1:]), rel=0.05)
    assert min(talk[1:]) > 0.7 * max(talk[1:])


def test_the_main_speaker_changes() -> None:
    conversation = Conversation.of_size("room", 5, talk_share=(0.2,) * 5)
    loudest = set()
    for number in range(30):
        start = NOW + number * 20
        times = [
            sum(spurt.end - spurt.start for spurt in conversation.talk(name).spurts(start, start + 20))
            for name in conversation.members
        ]
        loudest.add(int(np.argmax(times)))
    assert len(loudest) >= 4


def test_is_talking_agrees_with_the_spurts() -> None:
    talk = Conversation.of_size("room", 3).talk("1")
    spurts = list(talk.spurts(NOW, NOW + 1000))
    for step in range(50_000):
        moment = NOW + step / 50
        while spurts and spurts[0].end <= moment:
            spurts.pop(0)
        talking = bool(spurts) and spurts[0].start <= moment
        assert talk.is_talking(moment) == talking
        assert talk.next_change(moment) > moment
    for moment in (NOW + 900, NOW + 3, NOW + 5000, NOW):  # any order will do
        assert talk.is_talking(moment) == any(
            s.start <= moment < s.end for s in talk.spurts(moment - 1, moment + 1)
        )


def test_nothing_changes_before_next_change() -> None:
    talk = Conversation("room", ("a", "b")).talk("a")
    moment, end = NOW, NOW + 2 * PIECE
    changes = []
    while moment < end:
        changes.append((moment, talk.is_talking(moment)))
        moment = talk.next_change(moment)
    on = [time for time, talking in changes if talking and time > NOW]
    assert len(on) > 100
    assert on == [spurt.start for spurt in talk.spurts(NOW, end) if spurt.start > NOW]


def test_another_process_computes_the_same() -> None:
    program = (
        "from bot.media.speech import Conversation\n"
        f"print(list(Conversation('r', ('a', 'b', 'c'), 7).talk('b').spurts({NOW}, {NOW + 700})))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    here = list(Conversation("r", ("a", "b", "c"), 7).talk("b").spurts(NOW, NOW + 700))
    assert run.stdout.strip() == str(here)


def test_seed_room_and_member_matter() -> None:
    base = Conversation("room", ("a", "b", "c"))
    others = [Conversation("room", base.members, seed=1), Conversation("other", base.members)]
    spurts = [list(conv.talk("a").spurts(NOW, NOW + 60)) for conv in (base, *others)]
    spurts.append(list(base.talk("b").spurts(NOW, NOW + 60)))
    assert all(one != two for one, two in itertools.combinations(spurts, 2))


def test_one_alone_talks_as_a_party_of_two() -> None:
    talk = Conversation("room", ("only",)).talk("only")
    spurts, pauses = _lengths(list(talk.spurts(NOW, NOW + HOURS)))
    assert np.mean(spurts) == pytest.approx(TALKSPURT, rel=0.03)
    assert np.mean(pauses) == pytest.approx(PAUSE, rel=0.03)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"members": ()}, "members"),
        ({"members": ("a", "a")}, "different"),
        ({"talk_share": (0.5, 0.6)}, "at most 1"),
        ({"talk_share": (0.1, 0.1, 0.1)}, "3 members"),
        ({"talk_share": (-0.1,)}, "0 or more"),
        ({"talk_share": (float("nan"),)}, "0 or more"),
        ({"talk_share": (0.0, 0.0)}, "nobody"),
        ({"main_share": 0.0}, "main_share"),
        ({"turn": 0.0}, "turn"),
    ],
)
def test_nonsense_is_refused(arguments: dict[str, tuple[str, ...]], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Conversation(**({"room": "r", "members": ("a", "b")} | arguments))  # type: ignore[arg-type]


def test_a_stranger_has_no_part() -> None:
    with pytest.raises(ValueError, match="'c' is no member"):
        Conversation("room", ("a", "b")).talk("c")


def test_a_query_is_cheap() -> None:
    """200 members, asked every 20 ms: below a microsecond each, the drawing included."""
    talks = [talk for conv in [Conversation.of_size("cost", 200)] for talk in map(conv.talk, conv.members)]
    costs = []
    for run in range(3):
        start = NOW + run * 60
        before = time.thread_time()
        for frame in range(500):
            moment = start + frame / 50
            for talk in talks:
                talk.is_talking(moment)
        costs.append((time.thread_time() - before) / (500 * len(talks)))
    assert min(costs) < 1e-6
