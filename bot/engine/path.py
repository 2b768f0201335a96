"""The way of one participant's media: SRTP, and the socket with the address of the other end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import lru_cache

import pylibsrtp
from mypy_extensions import mypyc_attr

from bot.bridge.srtp import protector, rtcp_protector, rtcp_unprotector
from bot.engine import sendmmsg
from bot.engine.sockets import EngineSocket

#: A header of RTP whose SSRC nobody has: it is protected once, to see what that adds.
_PROBE = b"\x80" + bytes(11)


@lru_cache(maxsize=1)
def _shared_sender() -> sendmmsg.SendMany:
    return sendmmsg.make_sender()


@mypyc_attr(allow_interpreted_subclasses=True)
class MediaPath:
    """Protects and sends, and unprotects. ``remote`` is the nominated address.

    ``outgoing`` and ``incoming`` are the SRTP sessions of the DTLS handshake. ``transport`` may be any datagram
    transport, as that of a relay, which sends packet by packet. Sending raises nothing: what could not be sent is
    counted in ``unsent``.
    """

    def __init__(
        self,
        transport: asyncio.DatagramTransport,
        remote: tuple[str, int],
        outgoing: pylibsrtp.Session,
        incoming: pylibsrtp.Session,
        *,
        send_many: sendmmsg.SendMany | None = None,
    ) -> None:
        self.transport = transport
        self.remote = remote
        self._protect, self._protect_rtcp = protector(outgoing), rtcp_protector(outgoing)
        self._in, self._unprotect_rtcp = incoming, rtcp_unprotector(incoming)
        self._send_many = send_many or _shared_sender()
        #: The socket, None where the transport is another's.
        self.socket = transport if isinstance(transport, EngineSocket) else None
        if self.socket is not None:
            self.socket.connect(remote)
        #: Bytes that SRTP adds to an RTP packet.
        self.overhead = _overhead(outgoing)
        self.sent = 0
        #: Packets that the system did not take: no route, a full buffer, a peer that is gone.
        self.unsent = 0
        #: Packets that SRTP would not take (RFC 3711 section 3.3): incoming ones replayed or not authentic.
        self.unprotectable = 0
        self.refused = 0

    def __repr__(self) -> str:
        return f"<MediaPath {self.remote[0]}:{self.remote[1]} sent {self.sent} unsent {self.unsent}>"

    def send_many(self, packets: Sequence[bytes]) -> None:
        """Protect and send RTP packets."""
        protect = self._protect
        try:
            protected = [protect(packet) for packet in packets]
        except (pylibsrtp.Error, ValueError):
            protected = self._protected(packets)
        if len(protected) == 1 and self.socket is not None and self.socket.is_open:
            self._send_one(self.socket, protected[0])
        else:
            self.send_protected(protected)

    def _send_one(self, socket: EngineSocket, packet: bytes) -> None:
        """The shortest way, as all sound goes."""
        try:
            socket.socket.send(packet)
            self.sent += 1
        except OSError as error:
            self.unsent += 1
            socket.refused(error)

    def _protected(self, packets: Sequence[bytes]) -> list[bytes]:
        """Those that SRTP takes; what it took a moment ago it takes again (``allow_repeat_tx``)."""
        found = []
        for packet in packets:
            try:
                found.append(self._protect(packet))
            except (pylibsrtp.Error, ValueError):
                self.unprotectable += 1
        return found

    def send_rtcp(self, packet: bytes) -> None:
        """Protect and send one RTCP packet."""
        try:
            protected = self._protect_rtcp(packet)
        except (pylibsrtp.Error, ValueError):
            self.unprotectable += 1
            return
        self.send_protected((protected,))

    def unprotect(self, data: bytes) -> bytes | None:
        """The RTP packet in ``data``; None when SRTP refuses it, which is counted."""
        try:
            return self._in.unprotect(data)
        except (pylibsrtp.Error, ValueError):
            self.refused += 1
            return None

    def glance(self, data: bytes) -> bytes | None:
        """As ``unprotect``, of a packet that may have been unprotected before: that is no replay to be counted."""
        refused = self.refused
        found = self.unprotect(data)
        self.refused = refused
        return found

    def unprotect_rtcp(self, data: bytes) -> bytes | None:
        """The RTCP packet in ``data``; None when SRTP refuses it, which is counted."""
        try:
            return self._unprotect_rtcp(data)
        except (pylibsrtp.Error, ValueError):
            self.refused += 1
            return None

    def send_protected(self, packets: Sequence[bytes]) -> None:
        """Send what is protected already."""
        socket = self.socket
        if socket is None:  # a relay's, which can't be asked whether it closes, and drops what comes after that
            self._send_singly(packets)
            return
        if socket.is_closing():
            self.unsent += len(packets)
            return
        took = 0
        try:
            took = self._send_many(socket.socket, packets)
        except OSError as error:
            socket.refused(error)
        self.sent += took
        self.unsent += len(packets) - took

    def _send_singly(self, packets: Sequence[bytes]) -> None:
        for packet in packets:
            try:
                self.transport.sendto(packet, self.remote)
                self.sent += 1
            except (OSError, RuntimeError):
                self.unsent += 1


def _overhead(session: pylibsrtp.Session) -> int:
    size = len(session.protect(_PROBE)) - len(_PROBE)
    session.remove_stream(0)
    return size
