"""What the fuzzer begins with: recorded traffic, and runs of decisions for the targets that read those."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from bot.xmpp import framing
from tests.jingle_support import recorded
from tests.recordings import bridge_messages, dialogue

DIALOGUES = ("probe-basic-alice", "probe-media-both-alice", "probe-modern-alice", "web-client-0-xmpp")
CHANNELS = ("probe-media-sctp-alice", "probe-media-ws-alice", "web-client-0-bridge")
#: Runs of decisions of each length for each target.
RUNS, LENGTHS = 8, (8, 40, 200, 1000)


def write(target: str, directory: Path) -> int:
    """Write the seeds of ``target`` into ``directory``, one file each; returns how many."""
    directory.mkdir(parents=True, exist_ok=True)
    seeds = dict.fromkeys((*_recorded(target), *_runs(target)))
    for number, seed in enumerate(seeds):
        (directory / f"{number:04}").write_bytes(seed)
    return len(seeds)


def _recorded(target: str) -> Iterator[bytes]:
    if target == "frame":
        frames = (frame.element for name in DIALOGUES for frame in dialogue(name))
        yield from (framing.serialize(element).encode() for element in frames)
    elif target == "message":
        yield from (json.dumps(said).encode() for name in CHANNELS for said in bridge_messages(name))
    elif target == "json_sources":
        messages = (item.element.iter("{http://jitsi.org/jitmeet}json-message") for item in recorded())
        yield from (found.text.encode() for some in messages for found in some if found.text)


def _runs(target: str) -> Iterator[bytes]:
    rng = random.Random(target)
    yield from (rng.randbytes(length) for length in LENGTHS for _ in range(RUNS))
