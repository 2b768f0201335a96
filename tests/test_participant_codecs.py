"""The codec to send with: what everybody in the room can take, VP8 first."""

import pytest

from bot.participant.codecs import offered_codecs, send_codec
from tests.jingle_support import offer

ALL = ("av1", "vp9", "vp8", "h264")


@pytest.mark.parametrize(
    ("wanted", "own", "others", "offered", "codec"),
    [
        ("auto", ALL, [ALL, ALL], ALL, "vp8"),
        ("auto", ALL, [ALL, ("h264", "av1")], ALL, "h264"),
        ("auto", ALL, [("vp8",), ("h264",)], ALL, "vp8"),
        ("auto", ALL, [("h264",), ()], ALL, "h264"),
        ("auto", ("h264",), [ALL], ALL, "h264"),
        ("auto", ALL, [], ("h264",), "h264"),
        ("auto", ("av1",), [("av1",)], ALL, "vp8"),
        ("h264", ALL, [("vp8",)], ALL, "h264"),
        ("vp8", ALL, [("h264",)], ALL, "vp8"),
    ],
)
def test_codec(
    wanted: str, own: tuple[str, ...], others: list[tuple[str, ...]], offered: tuple[str, ...], codec: str
) -> None:
    assert send_codec(wanted, own, others, offered) == codec


def test_the_codecs_of_an_offer() -> None:
    assert {"av1", "vp8", "h264"} <= set(offered_codecs(offer()))
