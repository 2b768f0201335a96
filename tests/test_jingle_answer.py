"""Answers to recorded offers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bot.bridge.payloads import payload_formats
from bot.errors import UnsupportedMediaError
from bot.jingle.answer import UnsupportedOfferError, build_answer, bundle_transport, choose_payload_type
from bot.jingle.codec import build_jingle, parse_jingle
from bot.jingle.model import (
    Content,
    Jingle,
    PayloadType,
    RtcpFeedback,
    SctpMap,
    SourceMap,
    Transport,
)
from tests.jingle_support import audio_video, offer, own_transport

ME = "5ace3d7e-0000@meet.jitsi/abc"
OWN = audio_video(11, 12, 13)


def without(jingle: Jingle, *media: str) -> Jingle:
    return replace(jingle, contents=tuple(item for item in jingle.contents if item.media not in media))


def part(jingle: Jingle, name: str) -> Content:
    [found] = [item for item in jingle.contents if item.name == name]
    return found


def test_answer_has_the_shape_of_the_recorded_one() -> None:
    offered = offer()
    answer = build_answer(offered, responder=ME, transport=own_transport(), own=OWN)
    assert (answer.action, answer.sid, answer.responder) == ("session-accept", offered.sid, ME)
    assert answer.initiator == "focus@auth.meet.jitsi/focus"
    assert [(item.name, item.creator, item.senders) for item in answer.contents] == [
        ("audio", "responder", "both"),
        ("video", "responder", "both"),
        ("data", "responder", "both"),
    ]
    assert answer.bundle == ("audio", "video", "data")
    assert answer.sources == OWN
    assert parse_jingle(build_jingle(answer)) == answer


def test_sender_codec_leads_and_everything_offered_is_kept() -> None:
    offered = offer()
    answer = build_answer(offered, responder=ME, transport=own_transport(), own=OWN)
    video = part(answer, "video")
    assert [item.id for item in video.payload_types] == [100, 96, 41, 107, 101, 42, 97, 99]
    assert set(video.payload_types) == {
        replace(item, feedback=()) for item in part(offered, "video").payload_types
    }
    # All but the keys of telephones.
    assert [item.id for item in part(answer, "audio").payload_types] == [111]


def test_feedback_stands_once_for_all_payload_types() -> None:
    answer = build_answer(offer(), responder=ME, transport=own_transport(), own=OWN)
    assert set(part(answer, "video").feedback) == {
        RtcpFeedback("ccm", "fir"),
        RtcpFeedback("nack"),
        RtcpFeedback("nack", "pli"),
        RtcpFeedback("transport-cc"),
    }
    assert part(answer, "audio").feedback == (RtcpFeedback("transport-cc"),)
    formats = payload_formats(answer)
    assert all(
        formats[number].nack and formats[number].pli and formats[number].fir for number in (100, 41, 107, 101)
    )
    assert not formats[111].nack
    expected = {
        number: replace(item, transport_cc=None, audio_level=None)
        for number, item in payload_formats(offer()).items()
        if number != 126
    }
    assert formats == expected | {
        number: replace(formats[number], nack=True, pli=True, fir=True) for number in (42, 96, 97, 99)
    }


def test_codecs_are_taken_in_the_order_of_the_caller() -> None:
    codecs = ("vp10", "H264", "vp8")
    answer = build_answer(offer(), responder=ME, transport=own_transport(), own=OWN, video_codecs=codecs)
    assert [item.id for item in part(answer, "video").payload_types][:2] == [107, 99]
    chosen = choose_payload_type(part(offer(), "video"), codecs)
    assert chosen is not None
    assert chosen.id == 107
    assert choose_payload_type(part(offer(), "video"), ("vp10",)) is None


def test_received_codecs_can_be_restricted() -> None:
    answer = build_answer(
        offer(), responder=ME, transport=own_transport(), own=OWN, receive_codecs=("opus", "VP9"), data=False
    )
    assert [item.id for item in part(answer, "video").payload_types] == [100, 96, 101, 97]
    assert [item.id for item in part(answer, "audio").payload_types] == [111]


def test_a_receiver_needs_no_codec_of_its_own() -> None:
    answer = build_answer(
        offer(), responder=ME, transport=own_transport(), own=SourceMap(), audio_codecs=(), video_codecs=()
    )
    assert [item.id for item in part(answer, "video").payload_types] == [41, 100, 107, 101, 42, 96, 97, 99]
    assert not answer.sources


def test_a_codec_without_rtx() -> None:
    offered = offer()
    video = part(offered, "video")
    bare = replace(video, payload_types=(*video.payload_types[:2], PayloadType(50, "rtx", 90000)))
    contents = tuple(bare if item is video else item for item in offered.contents)
    answer = build_answer(replace(offered, contents=contents), responder=ME, transport=own_transport(), own=OWN)
    # RTX that does not say what it repairs is of no use.
    assert [item.id for item in part(answer, "video").payload_types] == [100, 41]


def test_what_jicofo_does_not_read_is_left_out() -> None:
    """It tells the bridge the header extensions of its own offer, and the bridge learns addresses from checks."""
    offered = offer()
    answer = build_answer(offered, responder=ME, transport=own_transport(), own=OWN)
    assert own_transport().candidates
    assert all(part(offered, name).header_extensions for name in ("audio", "video"))
    assert not any(item.header_extensions or item.extmap_allow_mixed for item in answer.contents)
    assert bundle_transport(answer).candidates == ()


def test_transport_is_active_and_sctp_only_in_the_data_content() -> None:
    answer = build_answer(offer(), responder=ME, transport=own_transport(), own=OWN)
    first = part(answer, "audio").transport
    assert first is not None
    assert first.ufrag == "ufrg"
    assert [fingerprint.setup for fingerprint in first.fingerprints] == ["active"]
    assert (first.web_socket_url, first.sctp) == (None, None)
    # A bundle has one transport, and says it once (RFC 8843).
    assert part(answer, "video").transport is None
    assert part(answer, "data").transport == Transport(sctp=SctpMap())
    assert bundle_transport(answer) == replace(first, sctp=SctpMap())
    passive = build_answer(offer(), responder=ME, transport=own_transport("passive"), own=OWN)
    assert passive.contents[0].transport is not None
    assert passive.contents[0].transport.fingerprints[0].setup == "passive"


def test_without_a_bundle_each_content_has_its_transport() -> None:
    answer = build_answer(replace(offer(), bundle=()), responder=ME, transport=own_transport(), own=OWN)
    assert {item.transport.ufrag for item in answer.contents if item.transport} == {"ufrg"}
    assert all(item.transport is not None for item in answer.contents)


def test_data_is_answered_only_where_wanted_and_offered() -> None:
    declined = build_answer(offer(), responder=ME, transport=own_transport(), own=OWN, data=False)
    not_offered = build_answer(offer("probe-media-ws-alice"), responder=ME, transport=own_transport(), own=OWN)
    for answer in (declined, not_offered):
        assert [item.name for item in answer.contents] == ["audio", "video"]
        assert answer.bundle == ("audio", "video")


def test_an_offer_without_video_takes_no_video_sources() -> None:
    answer = build_answer(without(offer(), "video"), responder=ME, transport=own_transport(), own=OWN)
    assert [item.name for item in answer.contents] == ["audio", "data"]
    assert answer.sources == SourceMap(audio=OWN.audio)
    answer = build_answer(without(offer(), "audio"), responder=ME, transport=own_transport(), own=OWN)
    assert answer.sources == SourceMap(video=OWN.video)


@pytest.mark.parametrize(
    ("codecs", "message"),
    [
        ({"audio_codecs": ("g722",)}, "audio has none of the codecs g722 (offered: opus, telephone-event)"),
        ({"video_codecs": ("vp10", "vp11")}, "video has none of the codecs vp10, vp11 (offered: AV1, VP8, "),
    ],
)
def test_missing_codecs_are_named(codecs: dict[str, tuple[str, ...]], message: str) -> None:
    audio, video = codecs.get("audio_codecs", ("opus",)), codecs.get("video_codecs", ("vp8",))
    with pytest.raises(UnsupportedOfferError) as caught:
        build_answer(
            offer(), responder=ME, transport=own_transport(), own=OWN, audio_codecs=audio, video_codecs=video
        )
    assert message in caught.value.message
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, UnsupportedMediaError)


def test_offers_that_nothing_can_be_made_of() -> None:
    with pytest.raises(UnsupportedOfferError, match="neither audio nor video"):
        build_answer(without(offer(), "audio", "video"), responder=ME, transport=own_transport(), own=SourceMap())
    bare = Jingle("session-initiate", "s1", contents=(Content("audio", "audio"),))
    with pytest.raises(UnsupportedOfferError, match="session-initiate lacks a transport"):
        build_answer(bare, responder=ME, transport=own_transport(), own=SourceMap())


def test_bundle_transport_gathers_the_parts_of_all_contents() -> None:
    offered = offer()
    main = bundle_transport(offered)
    assert main.sctp == SctpMap()
    assert main.web_socket_url is not None
    assert main.web_socket_url.startswith("ws://localhost:8000/colibri-ws/")
    assert [item.port for item in main.candidates] == [10000]
    assert bundle_transport(offer("probe-basic-alice")).sctp is None
