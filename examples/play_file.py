"""Plays a file into a room, over and over: whatever FFmpeg reads.

python examples/play_file.py ws://localhost:8000 ROOM FILE --seconds 60
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import suppress

from bot.api import Participant


async def play(url: str, room: str, file: str) -> None:
    """Play until cancelled."""
    async with Participant(url, room, name="player", audio=f"file:{file}", video=f"file:{file}") as me:
        await me.wait_left()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("room")
    parser.add_argument("file")
    parser.add_argument("--seconds", type=float, default=None)
    words = parser.parse_args()
    with suppress(TimeoutError, KeyboardInterrupt):
        asyncio.run(asyncio.wait_for(play(words.url, words.room, words.file), words.seconds))


if __name__ == "__main__":
    main()
