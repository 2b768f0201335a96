"""From settings to participants."""

from pathlib import Path

from bot.participant.config import expand
from bot.settings import load


def test_one_participant_keeps_its_name_several_are_numbered() -> None:
    assert [item.name for item in expand(load(name="probe"))] == ["probe"]
    several = expand(load(name="probe", bots=3, room="Lobby"))
    assert [item.name for item in several] == ["probe-1", "probe-2", "probe-3"]
    assert several[0].room_jid == "lobby@muc.meet.jitsi"
    assert several[0].retry.retries == 3


def test_a_group_overrides_what_it_names(tmp_path: Path) -> None:
    file = tmp_path / "bot.toml"
    file.write_text('video = "none"\n[[participants]]\nroom = "a"\nname = "x"\naudio = "tone"\ncount = 2\n')
    first, second = expand(load(file))
    assert (first.name, first.audio, first.video) == ("x-1", "tone", "none")
    assert second.name == "x-2"
