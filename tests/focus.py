"""A focus and forwarding bridge for tests: an external component (XEP-0114) of a real Prosody."""

from __future__ import annotations

import asyncio
import hashlib
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any

from bot.bridge.channel import Message, SctpBridgeChannel
from bot.bridge.transport import MediaTransport
from bot.jingle.answer import bundle_transport
from bot.jingle.codec import build_jingle, parse_jingle
from bot.jingle.model import Action, Jingle, Reason, SctpMap, Transport
from bot.xmpp.framing import serialize
from tests.conftest import CAPTURES

NS = "jabber:component:accept"
STREAM = "http://etherx.jabber.org/streams"
NS_FOCUS = "http://jitsi.org/protocol/focus"
CONFERENCE = f"{{{NS_FOCUS}}}conference"
ME = "focus@focus.meet.jitsi/focus"


def recorded_offer(transport: Transport, sid: str) -> Jingle:
    """The session-initiate that a real Jicofo sent, with ``transport`` in place of its bridge's."""
    text = (CAPTURES / "probe-media-sctp-alice.xml").read_text()
    start = text.rindex("<iq", 0, text.index('action="session-initiate"'))
    offer = parse_jingle(ET.fromstring(text[start : text.index("</iq>", start) + 5])[0])
    contents = tuple(
        replace(item, transport=replace(transport, sctp=SctpMap() if item.media == "application" else None))
        for item in offer.contents
    )
    return replace(offer, sid=sid, contents=contents)


class Leg:
    """The bridge's side of one participant."""

    def __init__(self, endpoint: str, sid: str) -> None:
        self.endpoint = endpoint
        self.sid = sid
        self.transport = MediaTransport("bridge", addresses=("127.0.0.1",))
        self.accept: Jingle | None = None
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        self.channel = SctpBridgeChannel(self.transport.dtls, self.messages.put_nowait)
        self.packets = 0
        self.connected = asyncio.Event()

    async def close(self) -> None:
        """Close channel and transport."""
        await self.channel.close()
        await self.transport.close()


class Focus:
    """Comes to the room when asked, offers a session to everyone in it, forwards all RTP to the others."""

    def __init__(self, port: int, room: str) -> None:
        self._port = port
        self.room = room
        self.legs: dict[str, Leg] = {}
        self._invited: set[str] = set()
        self.accepted = 0
        self.errors: list[str] = []
        self.stanzas: asyncio.Queue[str] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._forward: asyncio.Queue[tuple[Leg, bytes]] = asyncio.Queue(10_000)
        self._writer: asyncio.StreamWriter | None = None
        self._count = 0
        self._sessions = 0

    async def start(self) -> None:
        """Connect to Prosody as focus.meet.jitsi."""
        reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._write(f"<stream:stream xmlns='{NS}' xmlns:stream='{STREAM}' to='focus.meet.jitsi'>")
        parser: Any = ET.XMLPullParser(("start", "end"))
        ready = asyncio.Event()
        self._spawn(self._read(reader, parser, ready))
        self._spawn(self._forwarding())
        await asyncio.wait_for(ready.wait(), 10)

    async def stop(self) -> None:
        """Close everything."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for leg in self.legs.values():
            await leg.close()
        if self._writer is not None:
            self._writer.close()
            await self._writer.wait_closed()

    def take_away(self, endpoint: str) -> None:
        """End the session of ``endpoint``, as Jicofo does with whoever is left alone."""
        end = Jingle(
            action=Action.SESSION_TERMINATE, sid=self.legs[endpoint].sid, reason=Reason("success", "alone")
        )
        self._iq(f"{self.room}/{endpoint}", build_jingle(end))

    def offer_again(self, endpoint: str) -> None:
        """Offer a new session to ``endpoint``."""
        self._spawn(self._offer(endpoint))

    async def _read(self, reader: asyncio.StreamReader, parser: Any, ready: asyncio.Event) -> None:
        depth = 0
        while data := await reader.read(65536):
            parser.feed(data)
            for event in parser.read_events():
                kind, element = str(event[0]), event[1]
                if not isinstance(element, ET.Element):
                    continue
                depth += 1 if kind == "start" else -1
                if kind == "start" and depth == 1:
                    digest = hashlib.sha1((element.get("id", "") + "secret").encode(), usedforsecurity=False)
                    self._write(f"<handshake>{digest.hexdigest()}</handshake>")
                elif kind == "end" and depth == 1:
                    self._stanza(element, ready)

    def _stanza(self, element: ET.Element, ready: asyncio.Event) -> None:
        name = element.tag.rpartition("}")[2]
        if name == "handshake":
            ready.set()
        elif name == "iq":
            self._iq_in(element)
        elif name == "presence":
            endpoint = element.get("from", "").partition("/")[2]
            # Noted here and not in the task: who enters twice is told of everybody twice, in one read.
            if element.get("type") is None and endpoint not in ("focus", *self._invited):
                self._invited.add(endpoint)
                self.offer_again(endpoint)

    def _iq_in(self, element: ET.Element) -> None:
        kind, child = element.get("type"), next(iter(element), None)
        if kind == "error":
            self.errors.append(ET.tostring(element, encoding="unicode"))
        if kind not in ("get", "set") or child is None:
            return
        payload = ""
        if child.tag == CONFERENCE:
            self._write(
                f"<presence from='{ME}' to='{self.room}/focus'><x xmlns='http://jabber.org/protocol/muc'/></presence>"
            )
            payload = f"<conference xmlns='{NS_FOCUS}' ready='true' room='{self.room}' focusjid='{ME}'/>"
        elif child.tag == "{urn:xmpp:jingle:1}jingle":
            self._jingle(element.get("from", "").partition("/")[2], parse_jingle(child))
        sender, number = element.get("from"), element.get("id")
        answerer = element.get("to") if child.tag == CONFERENCE else ME
        self._write(f"<iq type='result' from='{answerer}' to='{sender}' id='{number}'>{payload}</iq>")

    def _jingle(self, endpoint: str, jingle: Jingle) -> None:
        self.stanzas.put_nowait(f"{jingle.action} {endpoint}")
        if jingle.action == Action.SESSION_ACCEPT:
            self.legs[endpoint].accept = jingle
            self._spawn(self._connect(self.legs[endpoint], bundle_transport(jingle)))

    async def _offer(self, endpoint: str) -> None:
        old = self.legs.pop(endpoint, None)
        self._sessions += 1
        leg = self.legs[endpoint] = Leg(endpoint, f"session{self._sessions}")
        if old is not None:
            await old.close()
        offer = recorded_offer(await leg.transport.gather(), leg.sid)
        self._iq(f"{self.room}/{endpoint}", build_jingle(offer))

    async def _connect(self, leg: Leg, remote: Transport) -> None:
        def received(data: bytes) -> None:
            leg.packets += 1
            self._forward.put_nowait((leg, data))

        leg.transport.dtls.on_rtp = received
        await leg.transport.connect(remote, 10)
        leg.connected.set()
        await leg.channel.accept()

    async def _forwarding(self) -> None:
        while True:
            source, data = await self._forward.get()
            for leg in tuple(self.legs.values()):
                if leg is not source and leg.connected.is_set():
                    await leg.transport.send(data)

    def _iq(self, to: str, payload: ET.Element) -> None:
        self._count += 1
        self._write(f"<iq type='set' from='{ME}' to='{to}' id='f{self._count}'>{serialize(payload)}</iq>")

    def _write(self, text: str) -> None:
        assert self._writer is not None
        self._writer.write(text.encode())

    def _spawn(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
