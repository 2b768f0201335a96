"""Bridge messages: the recorded ones are read, broken ones are not believed."""

import json
import re

import pytest

from bot.bridge.channel import mapped_sources, parse_message, receiver_constraints
from tests.conftest import CAPTURES


def test_every_recorded_message_is_read() -> None:
    text = (CAPTURES / "probe-media-sctp-alice.xml").read_text()
    recorded = re.findall(r"BRIDGE-RECV.*?\n<m>(.*?)</m>", text)
    messages = [parse_message(item) for item in recorded]
    assert len(messages) > 5
    assert all(message is not None for message in messages)
    maps = [message for message in messages if message and message["colibriClass"] == "VideoSourcesMap"]
    ((name, owner, ssrc),) = mapped_sources(maps[0])
    assert name == f"{owner}-v0"
    assert ssrc > 0


@pytest.mark.parametrize("data", ["", "[]", "{}", '{"colibriClass": 1}', "{", "[" * 100_000, b"\xff\xfe"])
def test_what_is_no_message_is_refused(data: str | bytes) -> None:
    assert parse_message(data) is None


def test_broken_maps_give_what_is_whole() -> None:
    assert mapped_sources({"colibriClass": "VideoSourcesMap"}) == []
    entries = [None, {"ssrc": "x"}, {"ssrc": -1}, {"ssrc": 7, "source": "a-v0", "owner": "a"}]
    assert mapped_sources({"mappedSources": entries}) == [("a-v0", "a", 7)]


def test_constraints_are_plain_json() -> None:
    found = json.loads(json.dumps(receiver_constraints(max_height=720, last_n=2)))
    assert (found["lastN"], found["defaultConstraints"]) == (2, {"maxHeight": 720})
