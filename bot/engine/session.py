"""The media session of one participant on the shared engine; to its owner it is as one of aiortc's."""

from __future__ import annotations

from typing import Any

from bot.bridge.session import MediaSession
from bot.engine.sockets import open_socket


class SharedSession(MediaSession):
    """As :class:`bot.bridge.session.MediaSession`, over sockets that the process reads together."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options, open_socket=open_socket)
