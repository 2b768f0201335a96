"""Bridge messages: the recorded ones are read, broken ones are not believed."""

import re

import pytest

from bot.bridge.channel import parse_message
from bot.bridge.streams import mapped_names
from tests.conftest import CAPTURES


def test_every_recorded_message_is_read() -> None:
    text = (CAPTURES / "probe-media-sctp-alice.xml").read_text()
    recorded = re.findall(r"BRIDGE-RECV.*?\n<m>(.*?)</m>", text)
    messages = [parse_message(item) for item in recorded]
    assert len(messages) > 5
    assert all(message is not None for message in messages)
    maps = [message for message in messages if message and message["colibriClass"] == "VideoSourcesMap"]
    (named,) = mapped_names(maps[0])
    assert named.name == f"{named.owner}-v0"
    assert named.ssrc > 0


#: Python reads all of these.
NUMBERS = [
    f'{{"colibriClass": "ConnectionStats", "estimatedDownlinkBandwidth": {number}}}'
    for number in ("NaN", "Infinity", "-Infinity", "1e999", "1" * 5000)
]


@pytest.mark.parametrize(
    "data", ["", "[]", "{}", '{"colibriClass": 1}', "{", "[" * 100_000, b"\xff\xfe", *NUMBERS]
)
def test_what_is_no_message_is_refused(data: str | bytes) -> None:
    assert parse_message(data) is None
