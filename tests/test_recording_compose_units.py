"""Composites without files: who is seen when and where, how sound is put together, and what names become."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bot.errors import ConfigurationError
from bot.recording.compose_layout import (
    MAX_TILES,
    STRIP_TILES,
    Rect,
    fitted,
    size_of,
    speaker_rects,
    tile_rects,
)
from bot.recording.compose_media import JUMP, NOISE, RATE, Limiter, Line, stretched
from bot.recording.compose_paint import Canvas, Letters, color_of, initials, shown_name
from bot.recording.compose_plan import Scene, Timeline, playing
from bot.recording.manifest import Cause, Manifest, ParticipantEntry, Segment, SourceEntry, Span, Speaker
from bot.recording.poster import best_moment
from tests.recording_support import STARTED


def segment(name: str, start: float, end: float, ended: Cause | None = "end") -> Segment:
    return Segment(file=f"{name}.webm", codec="vp8", start=start, end=end, ended=ended)


def someone(
    endpoint: str, start: float, end: float | None, *segments: Segment, video_type: str = "camera"
) -> ParticipantEntry:
    source = SourceEntry(name=f"{endpoint}-v0", media="video", video_type=video_type, segments=list(segments))
    return ParticipantEntry(
        endpoint=endpoint, name=endpoint.title(), present=[Span(start=start, end=end)], sources=[source]
    )


def meeting(*people: ParticipantEntry, speakers: list[tuple[float, str]] | None = None) -> Timeline:
    found = [Speaker(at=at, endpoint=who) for at, who in speakers or []]
    manifest = Manifest(program="p", room="r", started=STARTED, duration=10, state="finished")
    manifest.participants, manifest.dominant_speakers = list(people), found
    return Timeline(manifest)


def names(scene: Scene) -> list[tuple[str, str | None]]:
    return [(item.name, item.segment.file if item.segment else None) for item in scene.tiles]


# --- who is seen when -------------------------------------------------------------------------------------


def test_who_has_the_camera_off_is_an_avatar_and_who_left_is_gone() -> None:
    line = meeting(
        someone("ann", 0, 10, segment("a1", 0, 3, "muted"), segment("a2", 5, 10)),
        someone("bob", 1, 6, segment("b1", 1, 6, "left")),
    )
    assert names(line.scene(0.5, "tile", 9)) == [("Ann", "a1.webm")]
    assert names(line.scene(2, "tile", 9)) == [("Ann", "a1.webm"), ("Bob", "b1.webm")]
    assert names(line.scene(4, "tile", 9)) == [("Ann", None), ("Bob", "b1.webm")]
    assert names(line.scene(7, "tile", 9)) == [("Ann", "a2.webm")]
    assert [line.turn(at) for at in (0.5, 2, 4, 7)] == sorted({line.turn(at) for at in (0.5, 2, 4, 7)})


@pytest.mark.parametrize(
    ("ended", "seen"), [("format", True), ("rotation", True), ("moved", True), ("muted", False), ("silent", False)]
)
def test_between_files_of_a_source_that_goes_on_the_last_picture_stays(ended: Cause, seen: bool) -> None:
    line = meeting(someone("ann", 0, 10, segment("a1", 0, 3, ended), segment("a2", 3.4, 10)))
    [(_, file)] = names(line.scene(3.2, "tile", 9))
    assert (file == "a1.webm") == seen


def test_files_that_overlap_follow_each_other() -> None:
    source = SourceEntry(name="s", media="audio", segments=[segment("two", 2, 5), segment("one", 0, 2.5, "clock")])
    assert [(item.segment.file, item.start, item.end) for item in playing(source)] == [
        ("one.webm", 0, 2),
        ("two.webm", 2, 5),
    ]


def test_the_stage_follows_the_dominant_speaker() -> None:
    line = meeting(
        *(someone(who, 0, 10 if who != "cid" else 6, segment(who, 0, 10)) for who in ("ann", "bob", "cid")),
        speakers=[(1, "bob"), (4, "cid"), (8, "ghost")],
    )
    stages = [line.scene(at, "speaker", 5).stage for at in (0.5, 2, 5, 7, 9)]
    assert [item.name if item else None for item in stages] == ["Ann", "Bob", "Cid", "Bob", "Bob"]
    assert names(line.scene(2, "speaker", 5)) == [("Ann", "ann.webm"), ("Cid", "cid.webm")]
    assert line.scene(2, "tile", 5).speaker == "bob"


def test_a_shared_screen_is_on_the_stage_beside_its_owner() -> None:
    ann = someone("ann", 0, 10, segment("cam", 0, 10))
    shared = someone("ann", 0, 10, segment("desk", 2, 5, "removed"), video_type="desktop").sources
    ann.sources += [shared[0].model_copy(update={"name": "ann-v1"})]
    line = meeting(ann, someone("bob", 0, 10, segment("b", 0, 10)), speakers=[(0, "bob")])
    scene = line.scene(3, "speaker", 5)
    assert scene.stage is not None
    assert (scene.stage.name, scene.stage.screen) == ("Ann (screen)", True)
    assert [name for name, _ in names(scene)] == ["Ann", "Bob"]
    after = line.scene(6, "speaker", 5).stage
    assert after is not None
    assert after.name == "Bob"


def test_a_screen_without_a_camera_leaves_its_owner_an_avatar() -> None:
    line = meeting(someone("ann", 0, 10, segment("desk", 0, 10), video_type="desktop"))
    assert names(line.scene(1, "tile", 9)) == [("Ann (screen)", "desk.webm"), ("Ann", None)]


def test_too_many_leave_out_who_has_no_picture_and_spoke_longest_ago() -> None:
    people = [someone(f"p{number}", 0, 10) for number in range(6)] + [someone("cam", 0, 10, segment("c", 0, 10))]
    line = meeting(*people, speakers=[(1, "p4"), (2, "p1")])
    scene = line.scene(5, "tile", 3)
    assert [name for name, _ in names(scene)] == ["P1", "P4", "Cam"]
    assert scene.hidden == 4


def test_what_is_still_recorded_has_no_end() -> None:
    line = meeting(someone("ann", 0, None, segment("a", 0, 3, None)))
    assert names(line.scene(1000, "tile", 9)) == [("Ann", "a.webm")]


def test_a_meeting_that_nobody_came_to_has_an_empty_scene() -> None:
    assert meeting().scene(1, "speaker", 5) == Scene()


def test_the_poster_is_of_the_moment_with_most_pictures() -> None:
    line = meeting(someone("ann", 0, 10, segment("a", 0, 9)), someone("bob", 2, 10, segment("b", 4, 8)))
    assert best_moment(line, 9) == 6


# --- where ------------------------------------------------------------------------------------------------


def inside(places: list[Rect], width: int, height: int) -> bool:
    return all(
        item.x >= 0 and item.y >= 0 and item.x + item.width <= width and item.y + item.height <= height
        for item in places
    )


def apart(one: Rect, two: Rect) -> bool:
    return (
        one.x + one.width <= two.x
        or two.x + two.width <= one.x
        or one.y + one.height <= two.y
        or two.y + two.height <= one.y
    )


@given(st.integers(1, MAX_TILES), st.integers(144, 2160))
def test_tiles_have_places_of_their_own(count: int, height: int) -> None:
    width, high = size_of(height)
    places = tile_rects(count, width, high)
    assert len(places) == count
    assert inside(places, width, high)
    assert all(value % 2 == 0 for place in places for value in place)
    assert all(apart(*pair) for pair in combinations(places, 2))
    assert len({place[2:] for place in places}) == 1


@given(st.integers(0, STRIP_TILES), st.integers(144, 2160))
def test_the_stage_is_beside_the_strip_and_larger(count: int, height: int) -> None:
    width, high = size_of(height)
    stage, strip = speaker_rects(count, width, high)
    places = [stage, *strip]
    assert inside(places, width, high)
    assert all(value % 2 == 0 for place in places for value in place)
    assert all(apart(*pair) for pair in combinations(places, 2))
    assert all(stage.width > 3 * place.width for place in strip)


def test_one_alone_has_nearly_all_of_the_picture() -> None:
    [place] = tile_rects(1, 1280, 720)
    assert place.width * place.height > 0.9 * 1280 * 720


@pytest.mark.parametrize(
    ("width", "height", "whole", "size"),
    [
        (640, 360, False, (320, 180)),
        (640, 480, False, (320, 240)),  # cut above and below
        (640, 480, True, (240, 180)),  # all of it, with borders
        (360, 640, False, (102, 180)),  # cutting it would leave a third
        (2, 4000, True, (2, 180)),
    ],
)
def test_pictures_fill_their_tiles_unless_too_much_was_cut(
    width: int, height: int, whole: bool, size: tuple[int, int]
) -> None:
    assert fitted(width, height, Rect(0, 0, 320, 180), whole=whole) == size


# --- sound ------------------------------------------------------------------------------------------------


def tone(count: int, at: int = 0) -> NDArray[np.float32]:
    wave = np.sin(np.arange(at, at + count) * 0.05).astype(np.float32) * 0.5
    return np.stack([wave, wave])


def test_blocks_that_follow_each_other_are_one_tone() -> None:
    line = Line()
    for number in range(50):
        line.feed(round(number * 0.02, 3), tone(960, number * 960))
    out = np.concatenate([line.read(start, 1600) for start in range(0, 48_000, 1600)], axis=1)
    assert np.array_equal(out[:, 96:], tone(48_000)[:, 96:])
    assert not line.waiting


def test_a_clock_that_drifts_is_followed_without_a_jump() -> None:
    line, worst = Line(), 0
    for number in range(3000):  # a minute of a clock that is 100 ppm slow
        at = number * 0.02 * 1.0001
        line.feed(round(at, 3), tone(960))
        worst = max(worst, abs(line.end - 960 - round(at * RATE)))
        line.read((number - 5) * 960, 960)
    assert worst <= NOISE + 48


def test_what_is_missing_is_silence_and_what_comes_after_is_in_its_place() -> None:
    line = Line()
    line.feed(0.0, tone(960))
    line.feed(1.0, tone(960))
    out = line.read(0, 2 * RATE)
    assert not out[:, 960:RATE].any()
    assert out[:, RATE + 96 : RATE + 960].any()
    assert not out[:, RATE + 960 :].any()


def test_what_comes_twice_is_heard_once() -> None:
    line = Line()
    line.feed(0.0, tone(4800))
    line.feed(0.0, tone(9600))
    assert line.end == 9600
    line.feed(0.0, tone(960))
    assert line.end == 9600
    assert float(np.abs(line.read(0, 9600)).max()) <= 0.5


def test_stretched_sound_is_the_same_sound() -> None:
    for by in (-5, 5):
        assert stretched(tone(960), by).shape == (2, 960 + by)
        assert float(np.abs(stretched(tone(960), by)[:, 0] - tone(960)[:, 0]).max()) < 1e-6
    assert JUMP > 2 * NOISE


def test_many_voices_stay_below_full_scale_and_one_stays_as_it_is() -> None:
    limiter = Limiter()
    quiet = tone(1600)
    assert limiter.feed(quiet) is quiet
    loud = [limiter.feed(tone(1600, number * 1600) * 8) for number in range(10)]
    assert max(float(np.abs(item).max()) for item in loud) <= 1.0
    assert float(np.abs(loud[-1]).max()) == pytest.approx(0.97, abs=0.01)
    after = [limiter.feed(quiet) for _ in range(300)]
    assert float(np.abs(after[0]).max()) < 0.2
    assert float(np.abs(after[-1]).max()) == pytest.approx(0.5, abs=0.01)


# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shown", "letters"),
    [
        ("Ann", "Ann", "A"),
        ("ann  mary\nSmith", "ann mary Smith", "AS"),
        ("\u202egnp.exe", "gnp.exe", "GE"),
        ("Жанна Д'Арк", "Жанна Д'Арк", "ЖА"),
        ("\x00\x1b[31m", "[31m", "3"),
        ("", "?", "?"),
        ("🙂", "🙂", "?"),
    ],
)
def test_names_are_one_line_without_tricks(name: str, shown: str, letters: str) -> None:
    assert (shown_name(name), initials(name)) == (shown, letters)


def test_long_names_end_in_the_tile() -> None:
    label = Letters().label("W" * 60, 160, 90)
    assert label.y.shape[1] <= 160
    assert Letters().label("W" * 60, 160, 90).y.shape == label.y.shape


def test_a_label_darkens_its_place_alone() -> None:
    canvas = Canvas(320, 180)
    canvas.planes[0][:] = 200
    label = Letters().label("Ann", 320, 180)
    high, wide = label.y.shape
    canvas.put(label, Rect(10, 20, wide, high))
    changed = np.argwhere(canvas.planes[0] != 200)
    assert changed.min(axis=0).tolist() >= [20, 10]
    assert (changed.max(axis=0) < [20 + high, 10 + wide]).all()
    assert canvas.planes[0][20 + high // 2, 12] < 120


def test_avatars_have_a_color_of_their_own() -> None:
    canvas = Canvas(320, 180)
    canvas.put(Letters().avatar("Ann", "e1", 320, 180), Rect(0, 0, 320, 180))
    seen = np.asarray(canvas.image())[90, 125].astype(int)
    assert np.abs(seen - np.array(color_of("e1"))).max() < 12
    assert color_of("e1") == color_of("e1") != color_of("e2")


def test_pictures_larger_than_their_place_are_cut_on_both_sides() -> None:
    canvas = Canvas(320, 180)
    before = canvas.planes[0].copy()
    picture = Letters().avatar("Ann", "e1", 320, 180)
    canvas.put(picture, Rect(100, 40, 40, 40))
    assert np.array_equal(canvas.planes[0][40:80, 100:140], picture.y[70:110, 140:180])
    canvas.planes[0][40:80, 100:140] = before[40:80, 100:140]
    assert np.array_equal(canvas.planes[0], before)


def test_a_font_that_is_none_is_named() -> None:
    with pytest.raises(ConfigurationError, match="compose font: "):
        Letters(Path("pyproject.toml"))
