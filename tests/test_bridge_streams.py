"""Remote sources: names by Jingle and by the bridge's maps, and what a snapshot says of each."""

import json

import pytest

from bot.bridge.payloads import PayloadFormat, payload_formats
from bot.bridge.receive import MAX_STREAMS, ReceiveStatistics
from bot.bridge.rtp import build, parse_header
from bot.bridge.streams import MAX_NAMES, NamedSource, RemoteSources, jingle_names, mapped_names
from bot.jingle.model import (
    EXT_TRANSPORT_CC,
    Content,
    HeaderExtension,
    Jingle,
    Media,
    MediaSources,
    PayloadType,
    RtcpFeedback,
    Source,
    SourceGroup,
    SourceMap,
)
from tests.conftest import CAPTURES

VP8 = PayloadFormat(100, "video", "vp8", 90_000)
AV1 = PayloadFormat(41, "video", "av1", 90_000)


class Bench:
    """Sources of a session that began at 50 s."""

    def __init__(self) -> None:
        self.statistics = ReceiveStatistics()
        self.sources = RemoteSources(50.0)

    def receive(
        self, ssrc: int, sequence: int, now: float, *, marker: bool = False, fmt: PayloadFormat = VP8
    ) -> None:
        data = build(payload_type=fmt.id, sequence=sequence, timestamp=0, ssrc=ssrc, body=b"x" * 88, marker=marker)
        stats = self.statistics.count(parse_header(data), len(data), now, fmt.clock_rate)
        assert stats is not None
        self.sources.received(stats, fmt)


def test_a_snapshot_names_what_was_received_whichever_came_first() -> None:
    bench = Bench()
    bench.receive(1, 10, 51.0)
    (stream,) = bench.sources.snapshot(51.5)
    assert (stream.ssrc, stream.media, stream.codec, stream.source, stream.owner) == (
        1,
        "video",
        "vp8",
        None,
        None,
    )
    assert stream.first_frame is None
    bench.sources.name(
        [NamedSource(1, "video", "abc-v0", "abc", rtx=2, video_type="camera"), NamedSource(3, "audio")]
    )
    bench.receive(1, 12, 52.0, marker=True)
    (stream,) = bench.sources.snapshot(52.25)
    assert (stream.source, stream.owner, stream.video_type) == ("abc-v0", "abc", "camera")
    assert (stream.packets, stream.bytes, stream.frames, stream.lost, stream.missing) == (2, 200, 1, 1, 1)
    assert (stream.first_frame, stream.idle) == (2.0, 0.25)
    assert bench.sources.ssrc_of("abc-v0") == 1
    assert bench.sources.ssrc_of("nobody-v0") is None
    named = bench.sources.named(3)
    assert named is not None
    assert named.media == "audio"


def test_another_source_on_an_ssrc_is_counted_anew() -> None:
    bench = Bench()
    bench.sources.name([NamedSource(1, "video", "abc-v0", "abc", rtx=2)])
    bench.receive(1, 10, 51.0, marker=True)
    bench.receive(1, 13, 51.1, marker=True)
    assert bench.sources.name([NamedSource(1, "video", "abc-v0", "abc", rtx=2)]) == []
    assert bench.sources.snapshot(52.0)[0].packets == 2
    assert bench.sources.name([NamedSource(1, "video", "xyz-v0", "xyz", rtx=4)]) == [1]
    assert bench.sources.repaired_by(2) is None
    assert bench.sources.repaired_by(4) is not None
    (stream,) = bench.sources.snapshot(52.0)
    assert (stream.source, stream.packets, stream.bytes, stream.frames, stream.lost) == ("xyz-v0", 0, 0, 0, 0)
    assert stream.first_frame is None
    bench.receive(1, 14, 53.0, marker=True)
    (stream,) = bench.sources.snapshot(53.0)
    assert (stream.packets, stream.frames, stream.lost, stream.first_frame) == (1, 1, 0, 3.0)


def test_what_is_gone_is_not_shown_until_it_comes_again() -> None:
    bench = Bench()
    bench.sources.name([NamedSource(1, "video", "abc-v0", "abc", rtx=2)])
    bench.receive(1, 10, 51.0)
    bench.sources.forget([1, 77])
    assert bench.sources.snapshot(52.0) == ()
    assert bench.sources.repaired_by(2) is None
    assert bench.sources.ssrc_of("abc-v0") is None
    bench.receive(1, 11, 53.0)
    (stream,) = bench.sources.snapshot(53.0)
    assert (stream.source, stream.packets) == (None, 1)


def test_a_name_on_several_ssrcs_is_the_one_heard_last() -> None:
    bench = Bench()
    bench.sources.name(NamedSource(ssrc, "video", "abc-v0", "abc") for ssrc in (1, 2, 3))
    bench.receive(1, 1, 51.0)
    bench.receive(2, 1, 52.0)
    assert bench.sources.ssrc_of("abc-v0") == 2
    bench.receive(1, 2, 53.0)
    assert bench.sources.ssrc_of("abc-v0") == 1


def test_another_codec_in_the_middle_of_a_stream() -> None:
    bench = Bench()
    bench.receive(1, 1, 51.0)
    bench.receive(1, 2, 52.0, fmt=AV1)
    assert [stream.codec for stream in bench.sources.snapshot(52.0)] == ["av1"]


def test_names_are_bounded() -> None:
    sources = RemoteSources(0.0)
    sources.name(NamedSource(ssrc, "video", f"{ssrc}-v0", rtx=ssrc + 100_000) for ssrc in range(1, MAX_NAMES + 3))
    assert sources.ssrc_of("1-v0") is None
    assert sources.ssrc_of("3-v0") == 3
    assert MAX_STREAMS <= MAX_NAMES


def test_jingle_sources_with_their_repair_streams() -> None:
    sources = SourceMap(
        audio=MediaSources((Source(1, "abc-a0", "abc"),)),
        video=MediaSources(
            tuple(Source(ssrc, "abc-v0", "abc", video_type="desktop") for ssrc in (2, 3, 4, 5)),
            (
                SourceGroup("SIM", (2, 4)),
                SourceGroup("FID", (2, 3)),
                SourceGroup("FID", (4, 5)),
                SourceGroup("FID", (9,)),
            ),
        ),
    )
    assert jingle_names(sources) == [
        NamedSource(1, "audio", "abc-a0", "abc"),
        NamedSource(2, "video", "abc-v0", "abc", 3, "desktop"),
        NamedSource(4, "video", "abc-v0", "abc", 5, "desktop"),
    ]


def test_the_recorded_map_of_a_real_bridge() -> None:
    text = (CAPTURES / "probe-media-sctp-alice.xml").read_text()
    start = text.index('{"colibriClass":"VideoSourcesMap"')
    message = json.loads(text[start : text.index("</m>", start)])
    assert mapped_names(message) == [
        NamedSource(146482182, "video", "9263327a-v0", "9263327a", 1976515737, "camera")
    ]


@pytest.mark.parametrize(
    "entries",
    [None, "x", [1, "x", None, {}], [{"ssrc": "5"}, {"ssrc": True}, {"ssrc": 0}, {"ssrc": -1}, {"ssrc": 2**32}]],
)
def test_broken_maps_name_nothing(entries: object) -> None:
    assert mapped_names({"colibriClass": "VideoSourcesMap", "mappedSources": entries}) == []


def test_a_repair_stream_that_moved_stays_with_its_new_source() -> None:
    bench = Bench()
    bench.sources.name([NamedSource(1, "video", "a", rtx=9), NamedSource(2, "video", "b", rtx=9)])
    bench.receive(2, 1, 51.0)
    bench.sources.forget([1])
    repaired = bench.sources.repaired_by(9)
    assert repaired is not None
    assert repaired.stats.ssrc == 2


@pytest.mark.parametrize(("media", "rate"), [("audio", 48_000), ("video", 90_000)])
def test_an_offer_without_a_clock_rate_has_the_usual_one(media: Media, rate: int) -> None:
    offer = Jingle(
        "session-initiate", "s", contents=(Content("c", media, payload_types=(PayloadType(99, "x", 0),)),)
    )
    assert payload_formats(offer)[99].clock_rate == rate


def test_an_audio_map_without_extras() -> None:
    entry = {"ssrc": 5, "source": "abc-a0", "owner": 7, "rtx": -1, "videoType": None}
    found = mapped_names({"colibriClass": "AudioSourcesMap", "mappedSources": [entry]})
    assert found == [NamedSource(5, "audio", "abc-a0")]


def test_formats_are_those_of_the_offer_for_each_media() -> None:
    nack, pli, fir = RtcpFeedback("nack"), RtcpFeedback("nack", "pli"), RtcpFeedback("ccm", "fir")
    offer = Jingle(
        "session-initiate",
        "sid",
        contents=(
            Content("a", "audio", payload_types=(PayloadType(111, "opus", 48_000, 2),)),
            Content(
                "v",
                "video",
                payload_types=(
                    PayloadType(100, "VP8", 90_000, feedback=(nack, pli, fir)),
                    PayloadType(96, "rtx", 90_000, parameters={"apt": "100"}),
                ),
                header_extensions=(HeaderExtension(4, EXT_TRANSPORT_CC),),
            ),
            Content("data", "application", payload_types=(PayloadType(1, "x", 1),)),
        ),
    )
    assert payload_formats(offer) == {
        111: PayloadFormat(111, "audio", "opus", 48_000),
        100: PayloadFormat(100, "video", "vp8", 90_000, None, 4, nack=True, pli=True, fir=True),
        96: PayloadFormat(96, "video", "rtx", 90_000, 100, 4),
    }
