"""Matroska files: written whole, and made whole wherever they were cut off. FFmpeg (PyAV) is who reads them."""

import struct
from pathlib import Path

import av
import pytest
from av.container import InputContainer
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.recording import ebml
from bot.recording.ebml import EbmlError
from bot.recording.matroska import CLUSTER_BYTES, Muxer, TrackFormat, repair, suffix_of
from tests.recording_support import STARTED, decoded, pictures, read, sound, vp8_and_opus, write


def test_a_file_has_all_packets_its_duration_and_its_dates(tmp_path: Path) -> None:
    muxer, frames = vp8_and_opus()
    path = tmp_path / "a.webm"
    ends = write(path, muxer, frames)
    found = read(path)
    assert sorted(found.packets) == sorted((when, data, key) for _, when, data, key in frames)
    assert found.codecs == ["vp8", "opus"]
    assert found.duration == 3000
    assert len(ends) == 4  # the head, and three clusters of a second
    with av.open(str(path)) as container:
        assert container.metadata["title"] == "Füchse & Co"
        assert container.metadata["creation_time"].startswith("2026-01-02T03:04:05.678")
    assert len(decoded(path)) == 90 + 150


def test_a_player_seeks_by_the_cues(tmp_path: Path) -> None:
    muxer, frames = vp8_and_opus()
    path = tmp_path / "a.webm"
    write(path, muxer, frames)
    with av.open(str(path)) as container:
        assert isinstance(container, InputContainer)
        video = container.streams.video[0]
        container.seek(2100, stream=video)
        first = next(packet for packet in container.demux(video))
    assert first.is_keyframe
    assert first.pts == 2000
    assert path.read_bytes().count(bytes.fromhex("1c53bb6b")) == 2  # once named in the seek head, once there


def test_sound_alone_has_a_cue_each_ten_seconds(tmp_path: Path) -> None:
    muxer = Muxer([TrackFormat("opus")], started=STARTED)
    data = sound(50)
    write(tmp_path / "a.webm", muxer, [(1, number * 20, data[number % 50], True) for number in range(50 * 31)])
    assert read(tmp_path / "a.webm").duration == 31_000
    raw = (tmp_path / "a.webm").read_bytes()
    cues = raw[raw.rindex(bytes.fromhex("1c53bb6b")) :]
    assert cues.count(b"\xb7") == 4


def test_a_gap_is_a_gap_and_not_an_endless_cluster(tmp_path: Path) -> None:
    muxer = Muxer([TrackFormat("opus")], started=STARTED)
    data = sound(4)
    times = [0, 20, 3_600_000, 3_600_020]
    write(tmp_path / "a.webm", muxer, [(1, when, item, True) for when, item in zip(times, data, strict=True)])
    assert read(tmp_path / "a.webm").times == times


def test_much_data_ends_a_cluster(tmp_path: Path) -> None:
    muxer = Muxer([TrackFormat("vp8", 96, 64)], started=STARTED)
    assert muxer.add(1, 0, bytes(CLUSTER_BYTES // 2), key=True) == b""
    assert len(muxer.add(1, 1, bytes(CLUSTER_BYTES // 2), key=False)) > CLUSTER_BYTES
    assert muxer.flush() == b""


def test_time_never_goes_back() -> None:
    muxer = Muxer([TrackFormat("opus")], started=STARTED)
    muxer.add(1, 20, b"a", key=True)
    with pytest.raises(ValueError, match="comes after one at 20 ms"):
        muxer.add(1, 19, b"b", key=True)


def test_h264_is_no_webm() -> None:
    assert suffix_of([TrackFormat("h264", 1, 1)]) == ".mkv"
    assert suffix_of([TrackFormat("av1", 1, 1), TrackFormat("opus")]) == ".webm"


# --- cut off ----------------------------------------------------------------------------------------------


def test_what_was_whole_is_left_alone(tmp_path: Path) -> None:
    muxer, frames = vp8_and_opus()
    path = tmp_path / "a.webm"
    write(path, muxer, frames)
    before = path.read_bytes()
    assert repair(path).outcome == "whole"
    assert repair(path).duration == 3000
    assert path.read_bytes() == before


def test_cut_off_at_each_byte_of_the_last_clusters_a_file_keeps_its_whole_clusters(tmp_path: Path) -> None:
    muxer = Muxer([TrackFormat("vp8", 32, 32)], started=STARTED)
    data = pictures("vp8", 30, width=32, height=32, gop=10, plain=True)
    frames = [(1, number * 100, item, number % 10 == 0) for number, item in enumerate(data)]
    path = tmp_path / "a.webm"
    ends = write(path, muxer, frames)
    whole = path.read_bytes()
    last_whole = None
    for cut in range(ends[1], len(whole)):
        # What reached the disk before the end was written: the reserved space is as it was.
        path.write_bytes(muxer.header + whole[ends[0] : cut])
        done = repair(path)
        kept = sum(end <= cut for end in ends[1:])
        assert done.outcome == "recovered"
        assert done.dropped == cut - ends[kept]
        assert done.duration == kept * 1000
        after = path.read_bytes()
        assert repair(path).outcome == "whole"
        if kept != last_whole or cut % 97 == 0:  # FFmpeg takes ten times as long as all of the above
            last_whole = kept
            found = read(path)
            assert found.packets == [(when, item, key) for _, when, item, key in frames[: 10 * kept]]
            assert found.duration == kept * 1000
            assert b"RECOVERED" in after


@settings(max_examples=60)
@given(data=st.data())
def test_cut_off_anywhere_players_read_it_before_and_after_the_repair(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    muxer, frames = vp8_and_opus()
    path = tmp_path_factory.mktemp("cut") / "a.webm"
    ends = write(path, muxer, frames, end=False)
    cut = data.draw(st.integers(ends[1], ends[-1]))
    path.write_bytes(path.read_bytes()[:cut])
    kept = sum(end <= cut for end in ends[1:])
    played = read(path)
    assert len([when for when in played.times if when < kept * 1000]) >= kept * 80
    assert repair(path).outcome == "recovered"
    repaired = read(path)
    assert sorted(repaired.packets) == sorted(
        (when, item, key) for _, when, item, key in frames if when < kept * 1000
    )
    assert repaired.duration == kept * 1000


@pytest.mark.parametrize("codec", ["vp8", "h264"])
def test_of_a_head_alone_nothing_can_be_played(tmp_path: Path, codec: str) -> None:
    header = Muxer([TrackFormat(codec, 96, 64)], started=STARTED).header
    path = tmp_path / "a.webm"
    for cut in range(len(header) + 1):
        path.write_bytes(header[:cut])
        assert repair(path).outcome == "empty"
        assert path.read_bytes() == header[:cut]


def test_a_crash_of_the_repair_is_repaired(tmp_path: Path) -> None:
    muxer, frames = vp8_and_opus()
    path = tmp_path / "a.webm"
    ends = write(path, muxer, frames)
    raw = bytearray(path.read_bytes())
    at = raw.index(b"\x18\x53\x80\x67") + 4
    raw[at : at + 8] = b"\x01" + b"\xff" * 7  # all of the end was written but what says so
    path.write_bytes(raw)
    done = repair(path)
    assert (done.outcome, done.dropped) == ("recovered", len(raw) - ends[-1])
    assert read(path).duration == 3000


def test_a_cluster_of_zeros_or_with_a_wrong_byte_is_not_kept(tmp_path: Path) -> None:
    muxer, frames = vp8_and_opus()
    path = tmp_path / "a.webm"
    ends = write(path, muxer, frames, end=False)
    raw = path.read_bytes()
    path.write_bytes(raw[: ends[2]] + bytes(ends[3] - ends[2]))
    assert repair(path).duration == 2000
    broken = bytearray(raw)
    broken[ends[2] - 5] ^= 1
    path.write_bytes(broken)
    assert repair(path).duration == 1000


@pytest.mark.parametrize("content", [b"hello", b"\x1a\x45\xdf\xa3\xff", b"\0" * 100, b"RIFF" + bytes(100_000)])
def test_what_is_no_file_of_ours_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.webm"
    path.write_bytes(content)
    with pytest.raises(EbmlError):
        repair(path)
    assert path.read_bytes() == content


@settings(max_examples=200)
@given(at=st.integers(0, 4000), value=st.binary(min_size=1, max_size=8))
def test_whatever_a_file_holds_the_repair_ends_and_says_what_it_found(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: bytes
) -> None:
    muxer, frames = vp8_and_opus()
    path = tmp_path_factory.mktemp("fuzz") / "a.webm"
    write(path, muxer, frames, end=False)
    raw = bytearray(path.read_bytes())
    raw[at : at + len(value)] = value
    path.write_bytes(raw)
    try:
        done = repair(path)
    except EbmlError:
        assert path.read_bytes() == raw
    else:
        assert done.duration <= 3000 + 32_767
        if done.outcome == "recovered":
            assert repair(path).outcome == "whole"


# --- EBML -------------------------------------------------------------------------------------------------


@given(value=st.integers(0, 2**56 - 2))
def test_sizes_are_read_as_they_were_written(value: int) -> None:
    found = ebml.parse_element(b"\xec" + ebml.size(value), 0)
    assert found.end is not None
    assert found.end - found.data == value


@given(length=st.integers(2, 400))
def test_a_void_is_as_long_as_asked_for(length: int) -> None:
    data = ebml.void(length)
    assert len(data) == length
    assert ebml.parse_element(data, 0).end == length


def test_an_unknown_size_has_no_end() -> None:
    assert ebml.parse_element(b"\x18\x53\x80\x67\x01" + b"\xff" * 7, 0).end is None


@pytest.mark.parametrize("data", [b"", b"\x00\x81", b"\x1a\x45", b"\xec", b"\xec\x40", b"\x08\x81"])
def test_broken_heads_are_refused(data: bytes) -> None:
    with pytest.raises(EbmlError):
        ebml.parse_element(data, 0)


def test_a_checksum_that_does_not_fit_is_seen() -> None:
    whole = ebml.checked(0x1F43B675, b"\xe7\x81\x00")
    data = whole[12:]
    assert ebml.is_whole(data)
    assert not ebml.is_whole(data[:-1] + b"\x01")
    assert not ebml.is_whole(data[:5])
    assert struct.unpack(">I", whole[:4])[0] == 0x1F43B675
