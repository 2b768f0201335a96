"""slixmpp's client with RFC 7395 in place of the stream header and footer.

slixmpp's own ways to connect and reconnect are not used; what it would start and forget is kept and ended here.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import xml.etree.ElementTree as ET
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from slixmpp.clientxmpp import ClientXMPP
from slixmpp.stanza import Iq, StreamFeatures
from slixmpp.xmlstream import ElementBase
from slixmpp.xmlstream.matcher.base import MatcherBase

from bot.xmpp import framing
from bot.xmpp.compact import compact

#: Longest time that a server is believed to keep a lost stream.
MAX_RESUME_SECONDS = 86_400.0
ROSTER = "{jabber:iq:roster}query"
_BARE_STANZA = re.compile(r"^<(iq|message|presence)\b(?![^>]*\sxmlns=)")


class Transport(asyncio.Transport):
    """What slixmpp takes for its asyncio transport."""

    def __init__(self, ssl_object: object | None, on_close: Callable[[], None]) -> None:
        super().__init__()
        self._ssl_object = ssl_object
        self._on_close = on_close

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Only the TLS object is known; without a certificate to show slixmpp must not ask for one."""
        return self._ssl_object if name == "socket" else (None if name == "ssl_object" else default)

    def close(self) -> None:
        """Close the WebSocket."""
        self._on_close()

    abort = close


class RequestMatcher(MatcherBase):
    """Requests, all but those that slixmpp answers itself: pushes of the roster."""

    def match(self, stanza: object) -> bool:
        """Whether ``stanza`` is such a request."""
        if not isinstance(stanza, Iq) or stanza["type"] not in ("get", "set"):
            return False
        child = next(iter(stanza.xml), None)
        return child is None or child.tag != self._criteria


class Stream(ClientXMPP):
    """slixmpp's client with RFC 7395 in place of the stream header and footer."""

    def __init__(self, jid: str, password: str, write: Callable[[str], None]) -> None:
        # slixmpp would read the system's CAs for a socket of its own: 100 ms of CPU, and there is none.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        super().__init__(jid, password, sasl_mech="PLAIN" if password else "ANONYMOUS", ssl_context=context)
        self._write = write
        self._negotiations: set[asyncio.Task[Any] | None] = set()
        self._finished = False
        self.roster.auto_authorize = False
        self.roster.auto_subscribe = False
        self.register_plugin("xep_0198")
        #: What Jitsi's Prosody says; a server that says nothing is taken for one.
        self.resume_seconds = 60.0
        self.add_event_handler("sm_enabled", self._note_resume_time)

    def _note_resume_time(self, enabled: ElementBase) -> None:
        with suppress(ValueError):
            seconds = float(enabled.xml.get("max", ""))
            if 0 < seconds <= MAX_RESUME_SECONDS:  # false for NaN
                self.resume_seconds = seconds

    def send_raw(self, data: str | bytes) -> None:
        """Write one frame."""
        text = data.decode() if isinstance(data, bytes) else data
        if text == self.stream_header:
            text = framing.open_frame(self.boundjid.host)
        elif text == self.stream_footer:
            text = framing.close_frame()
        # slixmpp leaves the stream's default namespace out; a frame stands alone (RFC 7395 section 3.3.3).
        self._write(compact(_BARE_STANZA.sub(r'<\1 xmlns="jabber:client"', text, count=1)))

    def begin(self, transport: Transport) -> None:
        """Open the stream over a new WebSocket."""
        if self._run_out_filters is None or self._run_out_filters.done():
            self._run_out_filters = asyncio.ensure_future(self.run_filters())
        self.event_when_connected = "connected"
        self.connection_made(transport)

    def feed(self, element: ET.Element) -> None:
        """Handle one received element."""
        if element.tag == framing.OPEN:
            self.start_stream_handler(element)  # type: ignore[no-untyped-call]
        else:
            self._spawn_event(element)

    def pass_over(self) -> None:
        """Count a stanza that is not read: the server would send it again at each resumption (XEP-0198)."""
        management = self.plugin["xep_0198"]
        if management.enabled_in:
            management.handled = (management.handled + 1) % 2**32

    def disconnect(self, *_: object, **__: object) -> asyncio.Future[None]:
        """Leave the ending to the owner of the connection: slixmpp would start tasks of its own for it."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def _handle_stream_features(self, features: StreamFeatures) -> bool | None:
        """Negotiate, in a task that slixmpp starts and forgets: kept here so that it can be ended."""
        if self._finished:
            return None
        self._negotiations.add(task := asyncio.current_task())
        try:
            return await super()._handle_stream_features(features)
        finally:
            self._negotiations.discard(task)

    async def finish(self) -> None:
        """End slixmpp's own tasks; those that it has started and that have not begun yet end as they begin."""
        self._finished = True
        outgoing, self._run_out_filters = self._run_out_filters, None
        tasks = [task for task in (outgoing, *self._negotiations) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
