"""Focus and bridge together, behind whatever carries their stanzas: the embedded server or a real Prosody."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol
from xml.etree import ElementTree as ET

import structlog

from bot.embedded.bridge import Bridge
from bot.embedded.focus import Focus
from bot.embedded.orders import (
    CloseEndpoint,
    ConnectEndpoint,
    FocusConfig,
    OpenEndpoint,
    Output,
    Send,
    SetSources,
)
from bot.embedded.owner import Alarm, Tasks
from bot.embedded.stanza import NS_STANZAS, split_tag
from bot.errors import MediaError

log = structlog.get_logger(__name__)


class StanzaPort(Protocol):
    """Where the focus's stanzas go; what comes for it is handed to :meth:`FocusService.feed`."""

    def send(self, stanza: ET.Element) -> None:
        """Send one stanza; its ``from`` and ``to`` are set."""


class FocusService:
    """Runs the pure focus and the bridge. ``start`` and ``stop`` belong to one event loop."""

    def __init__(
        self,
        config: FocusConfig,
        bridge: Bridge,
        port: StanzaPort,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.focus = Focus(config)
        self.bridge = bridge
        self._port = port
        self._clock = clock
        self._tasks = Tasks()
        self._alarm = Alarm(self.focus.next_deadline, self._tick, clock)
        bridge.on_lost = self._lost

    def feed(self, stanza: ET.Element) -> None:
        """Take a stanza that was sent to the focus."""
        self._do(self.focus.feed(stanza, self._clock()))

    async def stop(self) -> None:
        """Leave the rooms and close the media of everybody; may be called twice."""
        self._do(self.focus.leave_all())
        self._alarm.cancel()
        await self._tasks.close()
        await self.bridge.close()

    def _tick(self) -> None:
        self._do(self.focus.tick(self._clock()))

    def _do(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Send(stanza):
                    _log_refusal(stanza)
                    self._port.send(stanza)
                case OpenEndpoint():
                    self._tasks.spawn(self._open(output), f"open {output.endpoint}")
                case ConnectEndpoint():
                    self._tasks.spawn(self._connect(output), f"connect {output.endpoint}")
                case SetSources(room, endpoint, sources):
                    self.bridge.set_sources(room, endpoint, sources)
                case CloseEndpoint(room, endpoint, sid):
                    self._tasks.spawn(self.bridge.close_endpoint(room, endpoint, sid), f"close {endpoint}")
        self._alarm.arm()

    async def _open(self, order: OpenEndpoint) -> None:
        room, endpoint, sid = order.room, order.endpoint, order.sid
        try:
            transport = await self.bridge.open(room, endpoint, sid, order.features, order.bridge_sources)
        except MediaError as error:
            self._failed(room, endpoint, sid, error)
            return
        self._do(self.focus.opened(room, endpoint, sid, transport, self._clock()))

    async def _connect(self, order: ConnectEndpoint) -> None:
        try:
            await self.bridge.connect(order.room, order.endpoint, order.sid, order.transport)
        except MediaError as error:
            self._failed(order.room, order.endpoint, order.sid, error)

    def _failed(self, room: str, endpoint: str, sid: str, error: MediaError) -> None:
        log.warning("No media", event_name="embedded_media_failed", room=room, endpoint=endpoint, cause=str(error))
        self._do(self.focus.failed(room, endpoint, sid))

    def _lost(self, room: str, endpoint: str, sid: str) -> None:
        self._do(self.focus.failed(room, endpoint, sid))


def _log_refusal(stanza: ET.Element) -> None:
    """One line for each request that the focus refuses."""
    if stanza.get("type") == "error":
        error = stanza[0]
        conditions = [split_tag(node.tag)[1] for node in error if node.tag != f"{{{NS_STANZAS}}}text"]
        cause = error.findtext(f"{{{NS_STANZAS}}}text") or ""
        log.warning(
            "The focus refused a request",
            event_name="embedded_request_refused",
            participant=stanza.get("to"),
            condition=conditions[0],
            cause=cause,
        )
