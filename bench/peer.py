"""A process that is the bridge of many participants, cheaply: ICE, DTLS and SRTP, and nothing is forwarded.

It takes what publishers send, reports as a bridge does, asks for key frames and lost packets now and then, and
decodes a few of them. Receivers get recorded streams.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pylibsrtp
import structlog

from bench.messages import Accept, Answered, Asked, FarView, Listening, Look, Open
from bench.mmsg import Batch
from bench.playback import Playback, remote_sources
from bench.polled import PolledSocket
from bench.recorded import record
from bench.sampler import Sampler
from bench.sink import Seen, Sink
from bot.bridge import rtcp
from bot.bridge.rtp import is_rtcp, is_rtp_or_rtcp
from bot.bridge.transport import MediaTransport
from bot.bridge.twcc import FeedbackCounter, parse_feedback
from bot.embedded.offer import Features, bridge_sources, build_offer
from bot.jingle.answer import bundle_transport
from bot.jingle.codec import parse_jingle
from bot.jingle.model import Jingle
from bot.service.child import Parent, pack, unpack
from bot.service.loops import run

log = structlog.get_logger(__name__)

LOOPBACK = "127.0.0.1"
#: Seconds between two rounds of work; each participant's packets are taken in one of ``_ROUNDS`` of them.
ROUND, _ROUNDS = 0.005, 20
_CONNECT = 30.0
_PRIORITY = -10
_FEATURES = Features(rtx=True)


class Leg:
    """The bridge's side of one participant."""

    def __init__(self, question: Open, batch: Batch) -> None:
        self.streams = question.streams
        self.sampled = question.sampled
        self._endpoint = question.endpoint
        self._batch = batch
        self._sockets: list[PolledSocket] = []
        self._transport = MediaTransport("bridge", addresses=(LOOPBACK,), open_socket=self._open)
        self._bridge = bridge_sources(random.Random())
        self._own_ssrc = self._bridge.video.sources[0].ssrc
        self.sink: Sink | None = None
        self.source: Playback | None = None
        self.sampler: Sampler | None = None
        self.uplink = FeedbackCounter()
        self.sent = self.unsent = self.feedback = 0

    async def _open(self, protocol: asyncio.DatagramProtocol, host: str) -> PolledSocket:
        self._sockets.append(PolledSocket(protocol, host))
        return self._sockets[-1]

    async def offer(self) -> str:
        """The session-initiate for the participant, in XML."""
        element = build_offer(
            _FEATURES,
            await self._transport.gather(),
            sid=self._endpoint,
            initiator="focus@auth.meet.jitsi/focus",
            bridge_session=self._endpoint,
            sources=self._bridge.merged(remote_sources(self.streams)),
        )
        return ET.tostring(element, encoding="unicode")

    async def accept(self, jingle: Jingle) -> None:
        """Connect to the participant who accepted."""
        await self._transport.connect(bundle_transport(jingle), _CONNECT)
        route = self._transport.route()
        self._socket = next(item for item in self._sockets if item is route.transport)
        self._outgoing, self._incoming, self._remote = route.outgoing, route.incoming, route.remote
        now = time.monotonic()
        video = [source.ssrc for source in jingle.sources.video.sources]
        if video:
            audio = jingle.sources.audio.sources[0].ssrc
            self.sink = Sink(self._own_ssrc, audio=audio, video=video[0], repair=video[-1], now=now)
            self.sampler = Sampler(video[0]) if self.sampled else None
        if self.streams:
            self.source = Playback(self.streams, now, time.time())
        self._socket.poll(route.remote)

    def drain(self) -> None:
        """Take what has come."""
        for arrival, data in self._batch.receive(self._socket.number):
            if not is_rtp_or_rtcp(data):
                self._socket.protocol.datagram_received(data, self._remote)
            elif is_rtcp(data):
                self._rtcp(data)
            elif self.sink is not None:
                self.sink.rtp(data, arrival)
                if self.sampler is not None:
                    self.sampler.packet(self._incoming.unprotect(data), arrival)

    def _rtcp(self, data: bytes) -> None:
        now = time.monotonic()
        for packet in rtcp.parse(self._incoming.unprotect_rtcp(data)):
            if isinstance(packet, rtcp.SenderReport) and self.sink is not None:
                self.sink.sender_report(packet, now)
            elif isinstance(packet, rtcp.Feedback) and packet.kind == rtcp.RTPFB:
                self._feedback(packet)

    def _feedback(self, packet: rtcp.Feedback) -> None:
        if packet.fmt == rtcp.FMT_TRANSPORT_CC:
            self.feedback += 1
            self.uplink.feed(parse_feedback(packet))

    def report(self, now: float) -> None:
        """Send the RTCP that is due."""
        packets: list[bytes] = []
        if self.sink is not None:
            packets, asks = self.sink.due(now)
            if asks and self.sampler is not None:
                self.sampler.ask(now)
        if self.source is not None:
            packets.append(self.source.report(now))
        self._batch.send(self._socket.number, [self._outgoing.protect_rtcp(packet) for packet in packets])

    def forward(self, now: float) -> None:
        """Send the recorded packets that are due."""
        if self.source is not None and (packets := self.source.due(now)):
            taken = self._batch.send(self._socket.number, [self._outgoing.protect(packet) for packet in packets])
            self.sent += taken
            self.unsent += len(packets) - taken


class Peer:
    """All participants of this process."""

    def __init__(self) -> None:
        self._batch = Batch()
        self._opened: dict[str, Leg] = {}
        #: Those that are connected, by the round in which their packets are taken.
        self._rounds: list[list[Leg]] = [[] for _ in range(_ROUNDS)]
        self._late = 0.0
        self._looked = time.monotonic()
        self._cpu = time.process_time()

    async def answer(self, question: Open | Accept | Look) -> object:
        """Do what is asked for."""
        match question:
            case Open():
                leg = self._opened[question.endpoint] = Leg(question, self._batch)
                return await leg.offer()
            case Accept():
                leg = self._opened[question.endpoint]
                await leg.accept(parse_jingle(ET.fromstring(question.jingle)))  # noqa: S314 -- from our own child
                min(self._rounds, key=len).append(leg)
                return True
            case Look():
                return self._look()

    async def work(self) -> None:
        """Serve all participants for ever."""
        number, due = 0, time.monotonic()
        while True:
            due += ROUND
            now = time.monotonic()
            self._late = max(self._late, now - due)
            due = max(due, now - 20 * ROUND)  # what was missed is not made up for
            await asyncio.sleep(max(0.0, due - now))
            for leg in self._rounds[number % _ROUNDS]:
                self._safely(leg.drain)
                leg.report(time.monotonic())
            now = time.monotonic()
            for legs in self._rounds:
                for leg in legs:
                    leg.forward(now)
            number += 1

    @staticmethod
    def _safely(work: Callable[[], None]) -> None:
        try:
            work()
        except (pylibsrtp.Error, rtcp.RtcpError, ValueError) as error:
            log.warning("A packet could not be read", event_name="peer_packet_failed", cause=str(error))

    def _look(self) -> FarView:
        legs = [leg for group in self._rounds for leg in group]
        now, cpu = time.monotonic(), time.process_time()
        seconds = now - self._looked
        sampled = [leg.sampler.take() for leg in legs if leg.sampler is not None]
        seen = [leg.sink.look() for leg in legs if leg.sink is not None]
        view = FarView(
            seconds=seconds,
            packets=sum(item.packets for item in seen),
            bytes=sum(item.bytes for item in seen),
            missing=sum(item.expected - item.numbered for item in seen),
            publishers=len(seen),
            fps_lowest=min((item.frames for item in seen), default=0) / seconds,
            fps_mean=sum(item.frames for item in seen) / seconds / max(1, len(seen)),
            repairs=sum(item.repairs for item in seen),
            pictures=tuple(picture for picture, _ in sampled),
            lateness=lateness(seen),
            key_frames=tuple(wait for _, waits in sampled for wait in waits),
            sent=sum(leg.sent for leg in legs),
            unsent=sum(leg.unsent for leg in legs),
            acknowledged=sum(leg.uplink.acked for leg in legs),
            lost=sum(leg.uplink.lost for leg in legs),
            feedback=sum(leg.feedback for leg in legs),
            peer_late=self._late,
            peer_cpu=(cpu - self._cpu) / seconds,
        )
        for leg in legs:
            leg.sent = leg.unsent = leg.feedback = leg.uplink.acked = leg.uplink.lost = 0
        self._looked, self._cpu, self._late = now, cpu, 0.0
        return view


def lateness(seen: list[Seen]) -> tuple[float, ...]:
    """How much later each picture came than the one of its stream that came soonest after its time stamp."""
    return tuple(
        late - soonest for item in seen if item.late for soonest in (min(item.late),) for late in item.late
    )


async def _serve(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async def answer(asked: Asked) -> None:
        try:
            answered = Answered(number=asked.number, answer=await peer.answer(asked.question))
        except Exception as error:
            log.exception("A question could not be answered", event_name="peer_failed")
            answered = Answered(number=asked.number, error=f"{type(error).__name__}: {error}")
        writer.write(pack(answered))

    async with asyncio.TaskGroup() as group:
        with suppress(EOFError):
            while True:
                group.create_task(answer(await unpack(reader)))
    writer.close()


async def _main() -> None:
    parent = await Parent.connect()
    record()
    peer = Peer()
    with tempfile.TemporaryDirectory(prefix="bench-peer-") as directory:
        path = str(Path(directory) / "peer")
        server = await asyncio.start_unix_server(lambda reader, writer: _serve(peer, reader, writer), path)
        work = asyncio.create_task(peer.work(), name="peer")
        parent.send(Listening(path=path))
        ending = asyncio.create_task(parent.receive(), name="parent")
        await asyncio.wait({work, ending}, return_when=asyncio.FIRST_COMPLETED)
        server.close()
        if work.done():
            work.result()
        ending.exception()  # it is what ends us
    os._exit(0)  # nobody is left to say good-bye to


def allow_many_sockets() -> None:
    """As many open files as the system lets this process have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def come_first() -> bool:
    """Go before other work of the machine, where that is allowed: it makes pictures late, and they are counted."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)
        # Each of our processes has a session of its own: between sessions the group's priority counts (sched(7)).
        with suppress(FileNotFoundError):
            Path("/proc/self/autogroup").write_text(str(_PRIORITY), encoding="ascii")
    except OSError:
        return False
    return True


def main() -> None:
    """Run until the parent is gone."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    allow_many_sockets()
    come_first()
    run(_main())
