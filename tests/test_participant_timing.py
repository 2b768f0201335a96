"""Phases on an injected clock."""

from bot.participant.timing import PHASES, PhaseTimer


def test_each_phase_begins_where_the_one_before_ended() -> None:
    now = [10.0]
    timer = PhaseTimer(lambda: now[0])
    now[0] = 10.5
    assert timer.done("websocket") == 0.5
    now[0] = 12.0
    assert timer.done("sasl") == 1.5
    assert timer.total == 2.0
    assert timer.picked("sasl", "bind") == {"sasl": 1.5}
    assert dict(timer.seconds) == {"websocket": 0.5, "sasl": 1.5}
    timer.restart()
    now[0] = 12.25
    assert timer.done("offer") == 0.25
    assert timer.total == 0.25
    assert repr(timer) == "<PhaseTimer {'websocket': 0.5, 'sasl': 1.5, 'offer': 0.25}>"


def test_the_phases_are_those_of_a_join() -> None:
    assert PHASES[:5] == ("websocket", "sasl", "bind", "focus", "muc")
    assert len(set(PHASES)) == len(PHASES)
