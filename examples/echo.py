"""Gives back what it gets: the sound and picture of whoever came last, what is written to it, and bridge messages.

python examples/echo.py ws://localhost:8000 ROOM --seconds 60
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import suppress

from bot import events
from bot.api import Participant


async def echo(url: str, room: str) -> None:
    """Echo until cancelled."""
    async with Participant(url, room, name="echo", audio="none", video="none", decode="all") as me:
        async for event in me.events():
            match event:
                case events.RemoteSourceAdded(media="audio") if event.source in me.tracks:
                    await me.own.set_audio(me.tracks[event.source])
                case events.RemoteSourceAdded(media="video") if event.source in me.tracks:
                    await me.own.set_video(me.tracks[event.source])
                case events.ChatMessageReceived(stamp=None):
                    me.room.send_chat(event.body, to=event.endpoint if event.private else "")
                case events.EndpointMessageReceived():
                    me.send_endpoint_message(event.payload, to=event.endpoint)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("room")
    parser.add_argument("--seconds", type=float, default=None)
    words = parser.parse_args()
    with suppress(TimeoutError, KeyboardInterrupt):
        asyncio.run(asyncio.wait_for(echo(words.url, words.room), words.seconds))


if __name__ == "__main__":
    main()
