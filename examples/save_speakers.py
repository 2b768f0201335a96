"""Saves what each participant of a room says into a file of his own.

python examples/save_speakers.py ws://localhost:8000 ROOM --into recordings --seconds 60
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import suppress
from pathlib import Path

from aiortc.contrib.media import MediaRecorder

from bot import events
from bot.api import Participant


async def save(url: str, room: str, into: Path) -> None:
    """Record until cancelled; a file ends when its speaker leaves."""
    recorders: dict[str, MediaRecorder] = {}
    async with Participant(url, room, name="recorder", audio="none", video="none", decode="audio") as me:
        try:
            async for event in me.events():
                match event:
                    case events.RemoteSourceAdded(media="audio") if event.source in me.tracks:
                        if event.source not in recorders:
                            recorder = recorders[event.source] = MediaRecorder(str(into / f"{event.source}.wav"))
                            recorder.addTrack(me.tracks[event.source])
                            await recorder.start()
                    case events.RemoteSourceRemoved() if event.source not in me.tracks:
                        if event.source in recorders:
                            await recorders.pop(event.source).stop()
        finally:
            for recorder in recorders.values():
                await recorder.stop()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("room")
    parser.add_argument("--into", type=Path, default=Path("recordings"))
    parser.add_argument("--seconds", type=float, default=None)
    words = parser.parse_args()
    words.into.mkdir(parents=True, exist_ok=True)
    with suppress(TimeoutError, KeyboardInterrupt):
        asyncio.run(asyncio.wait_for(save(words.url, words.room, words.into), words.seconds))


if __name__ == "__main__":
    main()
