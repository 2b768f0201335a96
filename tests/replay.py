"""The server's side of a recorded dialogue, over a real WebSocket, for a real participant.

What the real servers said is sent again, frame by frame, up to the next thing that the client said there; then the
client has to say it, too. Made live is only what has to be: the answers to pings, stream management's counters,
ids of the client's own requests, and the bridge's transport, which leads to another end on loopback.
"""

from __future__ import annotations

import asyncio
import copy
import difflib
import itertools
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar
from xml.etree import ElementTree as ET

from aiohttp import web

from bot.bridge.channel import Message, SctpBridgeChannel, parse_message
from bot.bridge.transport import MediaTransport
from bot.jingle.answer import bundle_transport
from bot.jingle.codec import parse_jingle
from bot.jingle.model import Candidate, Transport
from bot.jingle.names import COLIBRI, DTLS, ICE_UDP, clark
from bot.xmpp.framing import NS_CLIENT, STANZAS, parse_frame, serialize
from tests.recordings import ChannelFrame, Frame, channel_parts, dialogue, shape

#: Longest wait in seconds for anything that the client has to say.
PATIENCE = 20.0
SM = "{urn:xmpp:sm:3}"
JINGLE = "{urn:xmpp:jingle:1}jingle"
PING = "{urn:xmpp:ping}ping"
TRANSPORT = clark(ICE_UDP, "transport")
CANDIDATE = clark(ICE_UDP, "candidate")
FINGERPRINT = clark(DTLS, "fingerprint")
WEB_SOCKET = clark(COLIBRI, "web-socket")

#: Messages of the client on the channel that nothing but time brings.
BY_THE_CLOCK = {"EndpointStats"}
#: Said at the end of the recorded part of a channel.
END = "end-of-the-recording"
SPEAKER = {"colibriClass": "DominantSpeakerEndpointChangeEvent", "previousSpeakers": [], "silence": False}

Signature = tuple[str, ...]
T = TypeVar("T")
#: A client's presence in the room after its join.
UPDATE: Signature = (f"{{{NS_CLIENT}}}presence", "", f"{{{NS_CLIENT}}}stats-id", "", "")


class ReplayError(AssertionError):
    """The client did not say what it said in the recording."""


def signature(element: ET.Element) -> Signature:
    """What a client's frame is for: name, type, payload and its Jingle action; answers by what they answer."""
    child = element[0] if len(element) else None
    kind = element.get("type", "")
    return (
        element.tag,
        kind,
        "" if child is None else child.tag,
        "" if child is None else child.get("action", ""),
        element.get("id", "") if kind in {"result", "error"} else "",
    )


class Inbox(Generic[T]):
    """What has come and was not yet asked for. Frames that don't depend on each other may come in any order."""

    def __init__(self) -> None:
        self.waiting: list[T] = []
        self._ended = False
        self._changed = asyncio.Event()

    def put(self, item: T) -> None:
        """Something came."""
        self.waiting.append(item)
        self._changed.set()

    def end(self) -> None:
        """Nothing comes any more."""
        self._ended = True
        self._changed.set()

    async def take(self, fits: Callable[[T], bool], what: object) -> T:
        """The first that fits, waited for. Raises ReplayError, which names ``what`` and what came instead."""
        try:
            async with asyncio.timeout(PATIENCE):
                while (found := next((item for item in self.waiting if fits(item)), None)) is None:
                    if self._ended:
                        raise ReplayError(f"waited for {what}, and the client went")
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise ReplayError(f"waited for {what}; came: {self.waiting}") from None
        self.waiting.remove(found)
        return found


class Management:
    """XEP-0198's counters of one stream, over all its WebSockets."""

    def __init__(self) -> None:
        self.on = False
        #: Stanzas of ours; of the client's; and how many of ours it has acknowledged.
        self.sent = 0
        self.received = 0
        self.acknowledged = 0

    def acknowledge(self, element: ET.Element) -> None:
        """Take the client's counter: it never has seen more than there was (section 4)."""
        seen = int(element.get("h", "-1"))
        if not self.acknowledged <= seen <= self.sent:
            raise ReplayError(f"acknowledged {seen} after {self.acknowledged}; {self.sent} were sent")
        self.acknowledged = seen


class _Channel(Protocol):
    def send(self, message: Message) -> None: ...


class _WebSocketChannel:
    """The bridge's end of a colibri WebSocket."""

    def __init__(self, ws: web.WebSocketResponse) -> None:
        self._ws = ws
        self._tasks: list[asyncio.Task[None]] = []

    def send(self, message: Message) -> None:
        self._tasks.append(asyncio.ensure_future(self._ws.send_json(message)))

    async def done(self) -> None:
        await asyncio.gather(*self._tasks)


class Leg:
    """The bridge's end of one media session: its transport, and its channel with what was recorded on it."""

    def __init__(self, part: Sequence[ChannelFrame]) -> None:
        self.transport = MediaTransport("bridge", addresses=("127.0.0.1",))
        self.inbox: Inbox[Message] = Inbox()
        #: What the client said first of each class: recorded and actual.
        self.pairs: list[tuple[Message, Message]] = []
        self._part = part
        self._sctp: SctpBridgeChannel | None = None
        self._web_socket: asyncio.Future[_WebSocketChannel] = asyncio.get_running_loop().create_future()

    async def put_into(self, offer: ET.Element, url: str) -> None:
        """Let a recorded offer lead here."""
        own = await self.transport.gather()
        for element in offer.iter(TRANSPORT):
            _redirect(element, own)
        for element in offer.iter(WEB_SOCKET):
            element.set("url", f"{url}/colibri-ws")

    async def connect(self, accept: ET.Element) -> None:
        """Connect to whom accepted; returns when the recorded part of the channel was said."""
        remote = bundle_transport(parse_jingle(accept))
        await self.transport.connect(remote, PATIENCE)
        if remote.sctp is None:
            ws = await asyncio.wait_for(self._web_socket, PATIENCE)
            await self._play(ws)
            await ws.done()
            return
        self._sctp = SctpBridgeChannel(self.transport.dtls, self.inbox.put, port=remote.sctp.number)
        await self._sctp.accept()
        await asyncio.wait_for(self._sctp.wait_open(), PATIENCE)
        await self._play(self._sctp)

    def opened(self, ws: web.WebSocketResponse) -> None:
        """The client opened its colibri WebSocket."""
        self._web_socket.set_result(_WebSocketChannel(ws))

    async def _play(self, channel: _Channel) -> None:
        greeted: set[str] = set()
        for sent, recorded in self._part:
            if not sent:
                channel.send(recorded)
                continue
            # Later ones of a class follow a clock or what others do; only the first ones are said in any case.
            if recorded["colibriClass"] in BY_THE_CLOCK | greeted:
                continue
            greeted.add(recorded["colibriClass"])
            actual = await self.inbox.take(partial(_same_class, recorded), recorded["colibriClass"])
            self.pairs.append((recorded, actual))
        # The channel keeps the order: whoever hears this has heard all that was said before.
        channel.send({**SPEAKER, "dominantSpeakerEndpoint": END})

    async def close(self) -> None:
        """End it."""
        self._web_socket.cancel()
        if self._sctp is not None:
            await self._sctp.close()
        await self.transport.close()


def _same_class(one: Message, other: Message) -> bool:
    return bool(one["colibriClass"] == other["colibriClass"])


def _redirect(element: ET.Element, own: Transport) -> None:
    element.set("ufrag", own.ufrag)
    element.set("pwd", own.pwd)
    for fingerprint in element.findall(FINGERPRINT):
        fingerprint.set("hash", own.fingerprints[0].hash)
        fingerprint.text = own.fingerprints[0].value
    template = element.find(CANDIDATE)
    for candidate in element.findall(CANDIDATE):
        element.remove(candidate)
    if template is not None:
        element.extend(_like(template, item) for item in own.candidates)


def _like(template: ET.Element, item: Candidate) -> ET.Element:
    candidate = copy.deepcopy(template)
    candidate.attrib.update(
        ip=item.ip, port=str(item.port), foundation=item.foundation, priority=str(item.priority)
    )
    return candidate


class ReplayServer:
    """Plays the recordings ``names``, one for each WebSocket of one stream; all but the last are cut at their end.

    ``channel`` names the recording of the bridge channel; ``heard`` returns when the client has heard one more
    ``END`` on it: what comes by XMPP waits for that, as nothing else keeps the order of the two. ``async with``
    starts and ends it; ``failed`` says what went wrong on the way, and leaving raises it.
    """

    def __init__(self, *recordings: str, channel: str | None = None) -> None:
        self.heard: Callable[[], Awaitable[object]] | None = None
        self._scripts = iter([dialogue(name) for name in recordings])
        self._left = len(recordings)
        self._parts: Iterator[Sequence[ChannelFrame]] = iter(channel_parts(channel) if channel else [])
        self.management = Management()
        self.inbox: Inbox[ET.Element] = Inbox()
        #: The client's frames that the recording has, too: recorded and actual.
        self.pairs: list[tuple[ET.Element, ET.Element]] = []
        self.legs: list[Leg] = []
        #: Those that it does not have, at the end of each WebSocket.
        self.extra: list[ET.Element] = []
        self.pings = 0
        self.failed: Exception | None = None
        self.url = ""
        self._ids: dict[str, str] = {}
        self._now: Signature = ()
        self._moved = asyncio.Event()
        self._ws: web.WebSocketResponse | None = None
        self._asked = itertools.count(1)
        self._answers: dict[str, asyncio.Future[ET.Element]] = {}
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/xmpp-websocket", self._xmpp)
        app.router.add_get("/colibri-ws", self._colibri)
        self._runner = web.AppRunner(app, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        [address] = self._runner.addresses
        self.url = f"ws://127.0.0.1:{address[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for leg in self.legs:
            await leg.close()
        if self._runner is not None:
            await self._runner.cleanup()
        if self.failed is not None:
            raise self.failed

    async def waits_for(self, *words: str) -> None:
        """Return when the recording is where the client has to say something with these words in its signature."""
        async with asyncio.timeout(PATIENCE):
            while not all(any(word in part for part in self._now) for word in words):
                if self.failed is not None:
                    raise self.failed
                self._moved.clear()
                await self._moved.wait()

    async def ask(self, kind: str, payload: ET.Element, sender: str) -> ET.Element:
        """Ask the client something that is in no recording, and return its answer."""
        name = f"asked-{next(self._asked)}"
        request = ET.Element(f"{{{NS_CLIENT}}}iq", {"type": kind, "id": name, "from": sender})
        request.append(payload)
        self._answers[name] = asyncio.get_running_loop().create_future()
        await self._send(request)
        return await asyncio.wait_for(self._answers[name], PATIENCE)

    async def counted(self) -> None:
        """Ask the client how much it has seen (XEP-0198 section 4): it has to be all that was sent till then."""
        sent = self.management.sent
        await self._write(f"{SM}r")
        async with asyncio.timeout(PATIENCE):
            while self.management.acknowledged < sent:
                self._moved.clear()
                await self._moved.wait()

    # --- the WebSockets ---

    async def _colibri(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        leg = self.legs[-1]
        leg.opened(ws)
        async for frame in ws:
            if (message := parse_message(frame.data)) is not None:
                leg.inbox.put(message)
        return ws

    async def _xmpp(self, request: web.Request) -> web.WebSocketResponse:
        ws = self._ws = web.WebSocketResponse(protocols=("xmpp",))
        await ws.prepare(request)
        inbox = self.inbox = Inbox()
        script = asyncio.ensure_future(self._run(request, next(self._scripts)))
        try:
            async for frame in ws:
                await self._received(parse_frame(frame.data))
            inbox.end()
            await asyncio.wait({script}, timeout=1.0)
        except Exception as error:  # noqa: BLE001 - for whoever runs the test
            self._fail(error)
        finally:
            script.cancel()
            await asyncio.gather(script, return_exceptions=True)
            self.extra += [element for element in inbox.waiting if not self._said(element)]
        return ws

    def _said(self, element: ET.Element) -> bool:
        """Whether it is a presence that had been said before: nothing new, and no harm."""
        shapes = (own_shape(actual) for _, actual in self.pairs if signature(actual) == UPDATE)
        return signature(element) == UPDATE and own_shape(element) in shapes

    async def _run(self, request: web.Request, frames: Sequence[Frame]) -> None:
        """Play one WebSocket's part; the next one begins after a loss of this one."""
        self._left -= 1
        try:
            await self._play(frames)
        except Exception as error:  # noqa: BLE001 - for whoever runs the test
            self._fail(error)
        if request.transport is not None and (self._left or self.failed):
            request.transport.abort()

    def _fail(self, error: Exception) -> None:
        self.failed = self.failed or error
        self._moved.set()

    # --- what the client says ---

    async def _received(self, element: ET.Element) -> None:
        if element.tag == f"{SM}r":
            await self._write(f"{SM}a", h=str(self.management.received))
        elif element.tag == f"{SM}a":
            self.management.acknowledge(element)
            self._moved.set()
        else:
            self.management.received += self.management.on and element.tag in STANZAS
            await self._take(element)

    async def _take(self, element: ET.Element) -> None:
        if is_ping(element):
            self.pings += 1
            await self._write(f"{{{NS_CLIENT}}}iq", type="result", id=element.get("id", ""))
        elif element.get("id", "") in self._answers:
            self._answers[element.get("id", "")].set_result(element)
        else:
            self.management.on |= element.tag == f"{SM}enable"
            self.inbox.put(element)

    # --- what the servers said ---

    async def _play(self, frames: Sequence[Frame]) -> None:
        for sent, recorded, _ in without_what_is_live(frames):
            if sent:
                await self._expect(recorded)
            else:
                await self._send(await self._made_live(recorded))
        self._at(())

    async def _expect(self, recorded: ET.Element) -> None:
        wanted = signature(recorded)
        self._at(wanted)
        actual = await self.inbox.take(lambda item: signature(item) == wanted, wanted)
        self.pairs.append((recorded, actual))
        if recorded.get("type") in {"get", "set"}:
            self._ids[recorded.get("id", "")] = actual.get("id", "")
        if "session-accept" in wanted:
            await self.legs[-1].connect(actual[0])
            if self.heard is not None:
                await self.heard()

    def _at(self, wanted: Signature) -> None:
        self._now = wanted
        self._moved.set()

    async def _made_live(self, recorded: ET.Element) -> ET.Element:
        """A recorded frame with what can't be the same this time."""
        element = copy.deepcopy(recorded)
        if element.get("type") in {"result", "error"}:
            element.set("id", self._ids[element.get("id", "")])
        if element.tag == f"{SM}resumed":
            element.set("h", str(self.management.received))
        jingle = element.find(JINGLE)
        if jingle is not None and jingle.get("action") == "session-initiate":
            self.legs.append(Leg(next(self._parts, ())))
            await self.legs[-1].put_into(jingle, self.url)
        return element

    async def _send(self, element: ET.Element) -> None:
        if self._ws is None:
            raise RuntimeError("nobody has come yet")
        # Counted first: the client may acknowledge it before we are back.
        self.management.sent += self.management.on and element.tag in STANZAS
        await self._ws.send_str(serialize(element))

    async def _write(self, tag: str, **attributes: str) -> None:
        await self._send(ET.Element(tag, attributes))


def without_what_is_live(frames: Sequence[Frame]) -> Iterator[Frame]:
    """Less pings and acknowledgements, which are made live, and presences that say the same again."""
    pings = {frame.element.get("id") for frame in frames if frame.sent and is_ping(frame.element)}
    presence: list[str] = []
    for frame in frames:
        element = frame.element
        if element.get("id", "-") in pings or element.tag == f"{SM}a" or (frame.sent and element.tag == f"{SM}r"):
            continue
        if frame.sent and signature(element) == UPDATE:
            if (said := own_shape(element)) == presence:
                continue
            presence = said
        yield frame


def is_ping(element: ET.Element) -> bool:
    """Whether it is a request of XEP-0199."""
    return element.get("type") == "get" and len(element) > 0 and element[0].tag == PING


# --- the comparison -----------------------------------------------------------------------------------------


def differences(pairs: Sequence[tuple[ET.Element, ET.Element]]) -> set[str]:
    """Lines in which the client's frames differ from the recorded ones: "-" recorded, "+" now."""
    found: set[str] = set()
    for recorded, actual in pairs:
        lines = difflib.unified_diff(own_shape(recorded), own_shape(actual), lineterm="", n=0)
        kept = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
        found |= {line[0] + line[1:].strip().rpartition("}")[2] for line in kept}
    return found


def channel_differences(pairs: Sequence[tuple[Message, Message]]) -> set[str]:
    """The client's messages on the channel that are not the recorded ones, "-" recorded, "+" now."""
    written = [[json.dumps(message, sort_keys=True) for message in pair] for pair in pairs]
    different = [pair for pair in written if pair[0] != pair[1]]
    return {f"-{recorded}" for recorded, _ in different} | {f"+{actual}" for _, actual in different}


def own_shape(element: ET.Element) -> list[str]:
    """All that has to be the same in a frame of the client's, a line for each element."""
    element = copy.deepcopy(element)
    for node in element.iter():
        for name in _ANEW.get(node.tag.rpartition("}")[2], ()):
            if name in node.attrib:
                node.set(name, "…")
        for name, default in _DEFAULTS.get(node.tag.rpartition("}")[2], {}).items():
            if node.get(name) == default:
                del node.attrib[name]
        if node.tag.endswith("}parameter") and node.get("name") == "msid":
            node.set("value", "…")
    for transport in element.iter(TRANSPORT):
        for candidate in transport.findall(CANDIDATE):  # as many as the machine had addresses; none by now
            transport.remove(candidate)
    return [*shape(element).splitlines(), *_texts(element)]


def _texts(element: ET.Element) -> Iterator[str]:
    """What ``shape`` leaves out: a client's own name and sources are the same each time."""
    for node in element.iter():
        name = node.tag.rpartition("}")[2]
        if name == "SourceInfo":
            yield f"{name}: {json.dumps(json.loads(node.text or '{}'), sort_keys=True)}"
        elif name in {"nick", "stats-id"}:
            yield f"{name}: {node.text}"


#: What was said, and goes without saying.
_DEFAULTS = {"content": {"senders": "both"}, "source": {"videoType": "camera"}}
_ANEW = {"conference": ("machine-uid",), "resume": ("h", "previd")}
