"""Layouts: what the bridge is asked for."""

from typing import Any

import pytest

from bot.participant.layout import AudioSubscription, Layout, Scene, Wishes, constraints, tile_height
from bot.settings import load

SOURCES = {"abc": ["abc-v0"], "def": ["def-v0", "def-v1"]}


def scene(**more: Any) -> Scene:
    return Scene(sources_of=lambda endpoint: SOURCES.get(endpoint, ()), **more)


def asked(layout: Layout, seen: Scene) -> dict[str, Any]:
    """The message, with the heights alone of what is named."""
    message = dict(constraints(layout, seen))
    assert message.pop("colibriClass") == "ReceiverVideoConstraints"
    assert message.pop("assumedBandwidthBps") == layout.assumed_bandwidth
    message["constraints"] = {name: item["maxHeight"] for name, item in message["constraints"].items()}
    message["default"] = message.pop("defaultConstraints")["maxHeight"]
    return message


def wanted(**fields: Any) -> dict[str, Any]:
    return {"constraints": {}, "default": 0, "lastN": -1, "onStageSources": [], "selectedSources": [], **fields}


@pytest.mark.parametrize(
    ("tiles", "height", "expected"),
    [(0, 720, 720), (1, 720, 720), (2, 720, 720), (3, 720, 360), (9, 720, 360), (10, 720, 180), (3, 180, 180)],
)
def test_the_more_tiles_the_smaller(tiles: int, height: int, expected: int) -> None:
    assert tile_height(tiles, height) == expected


def test_tiles_prefer_shared_screens() -> None:
    found = asked(Layout(height=720), scene(others=2, desktops=["def-v1"]))
    assert found == wanted(default=360, selectedSources=["def-v1"])
    chosen = asked(Layout(height=720, selected=("abc",), last_n=4), scene(others=2, desktops=["def-v1"]))
    assert chosen == wanted(default=360, selectedSources=["abc-v0"], lastN=4)


def test_the_stage_follows_the_speaker() -> None:
    stage = Layout(mode="stage", height=720)
    assert asked(stage, scene(others=5)) == wanted(default=180)
    assert asked(stage, scene(others=5, speaker="abc")) == wanted(
        default=180, constraints={"abc-v0": 720}, onStageSources=["abc-v0"]
    )
    # What an endpoint shares is shown before its camera; who is not signalled yet has Jitsi's name.
    shared = asked(stage, scene(others=5, speaker="def", desktops=["def-v1"]))
    assert shared["onStageSources"] == ["def-v1"]
    assert asked(stage, scene(speaker="new"))["onStageSources"] == ["new-v0"]


def test_several_on_stage_are_selected_ones() -> None:
    """On stage the bridge would serve the first alone before the second gets anything."""
    found = asked(Layout(mode="stage", height=720, stage=("abc", "xyz-v0"), selected=("def-v0",)), scene())
    assert found == wanted(
        default=180, constraints={"abc-v0": 720, "xyz-v0": 720}, selectedSources=["abc-v0", "xyz-v0", "def-v0"]
    )


def test_a_screen_on_stage_may_be_as_tall_as_it_is() -> None:
    seen = scene(speaker="def", desktops=["def-v1"])
    assert asked(Layout(mode="stage", height=2160), seen)["constraints"] == {"def-v1": -1}
    assert asked(Layout(mode="stage", height=1080), seen)["constraints"] == {"def-v1": 1080}


def test_audio_only_asks_for_no_picture() -> None:
    found = asked(Layout(mode="audio-only", height=720, last_n=5), scene(others=3, desktops=["def-v1"]))
    assert found == wanted(lastN=0)


def test_custom_is_what_is_said() -> None:
    layout = Layout(
        mode="custom",
        height=360,
        heights={"abc": 720, "xyz-v0": 0},
        stage=("speaker",),
        selected=("xyz-v0",),
        assumed_bandwidth=2_000_000,
    )
    assert asked(layout, scene(others=50, speaker="def")) == wanted(
        default=360,
        constraints={"abc-v0": 720, "xyz-v0": 0},
        onStageSources=["def-v0"],
        selectedSources=["xyz-v0"],
    )
    assert asked(Layout(mode="custom"), scene(others=50, speaker="def")) == wanted(default=360)


def test_one_name_is_a_list_of_one() -> None:
    wishes = Wishes.of(load(layout="stage", receive_height=720, last_n=4, selected_sources="abc,xyz-v0"))
    assert wishes.audio is None
    assert asked(wishes.layout, scene(speaker="def"))["selectedSources"] == ["abc-v0", "xyz-v0"]
    wishes.set_layout(stage="speaker", selected=["abc"])
    assert (wishes.layout.stage, wishes.layout.selected) == (("speaker",), ("abc",))
    wishes.set_layout(stage="def-v1", height=360)
    assert asked(wishes.layout, scene())["onStageSources"] == ["def-v1"]
    assert Wishes.of(load(receive_audio=False)).audio == AudioSubscription(everyone=False)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"mode": "cinema"}, "known are tile, stage"),
        ({"height": "tall"}, "height must be a number"),
        ({"last_n": -2}, "last_n must be a number from -1 on, and not -2"),
        ({"heights": {"abc-v0": 1.5}}, "abc-v0 must be"),
    ],
)
def test_what_can_not_be_asked_for_is_refused(changes: dict[str, Any], told: str) -> None:
    wishes = Wishes()
    with pytest.raises(ValueError, match=told):
        wishes.set_layout(**changes)
    assert wishes.layout == Layout()


def test_a_message_does_not_grow_with_the_room() -> None:
    names = {f"e{number}": [f"e{number}-v0"] for number in range(500)}
    crowd = Scene(others=500, speaker="e7", sources_of=lambda endpoint: names.get(endpoint, ()))
    for mode in ("tile", "stage", "audio-only", "custom"):
        assert len(str(constraints(Layout(mode=mode), crowd))) < 400
