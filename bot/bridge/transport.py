"""ICE, DTLS and SRTP of one media session, over aiortc's ORTC objects; the same for both ends."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

import structlog
from aiortc import (
    RTCCertificate,
    RTCDtlsFingerprint,
    RTCDtlsParameters,
    RTCIceCandidate,
    RTCIceParameters,
)

from bot.bridge._aiortc import (
    Gatherer,
    LastingIceTransport,
    OpenSocket,
    Route,
    TappedDtlsTransport,
    TransportSequence,
    set_controlling,
)
from bot.errors import DtlsFailedError, IceFailedError
from bot.jingle.model import Candidate, Fingerprint, Transport
from bot.turn import TurnServer

log = structlog.get_logger(__name__)

Role = Literal["client", "bridge"]
#: Seconds in which further candidates may come; Jicofo sends all with the offer.
TRICKLE_TIME = 5.0


@lru_cache(maxsize=1)
def process_certificate() -> RTCCertificate:
    """One certificate serves every participant of the process."""
    return RTCCertificate.generateCertificate()


class MediaTransport:
    """One bundled transport. ``client``: ICE controlled, DTLS client; ``bridge``: controlling, server.

    ``relay_only`` uses no candidates but those of the TURN server, whose certificate is verified with ``tls``.
    ``open_socket`` opens the UDP sockets of the others.
    """

    def __init__(
        self,
        role: Role = "client",
        *,
        addresses: Sequence[str] = (),
        relay_only: bool = False,
        tls: ssl.SSLContext | bool = True,
        on_phase: Callable[[str], None] = lambda _: None,
        open_socket: OpenSocket | None = None,
    ) -> None:
        self._role = role
        self._on_phase = on_phase
        self._gatherer = Gatherer(addresses, relay_only=relay_only, tls=tls, open_socket=open_socket)
        self._ice = LastingIceTransport(self._gatherer)
        set_controlling(self._ice, controlling=role == "bridge")
        self.dtls = TappedDtlsTransport(self._ice, process_certificate())
        self.dtls.take_role(server=role == "bridge")
        self.sequence = TransportSequence()
        self._ended = asyncio.Event()
        self.dtls.on("statechange", self._watch)
        self._closing: asyncio.Future[None] | None = None
        self._remote_ufrag: str | None = None

    def __repr__(self) -> str:
        return f"<MediaTransport {self._role} ice={self._ice.state} dtls={self.dtls.state}>"

    async def gather(self, turn: TurnServer | None = None) -> Transport:
        """Open the sockets; returns our side in Jingle's words.

        Raises IceFailedError without any candidate, or when the transport is closed meanwhile.

        ``turn`` is the only server that is asked for one.
        """
        self._gatherer.turn = turn
        try:
            await self._gatherer.gather()
        finally:
            if self._closing is not None:
                await self._gatherer.release()  # sockets that were opened after the close
        if self._closing is not None:
            raise IceFailedError("The transport was closed while ICE gathered candidates")
        candidates = self._gatherer.getLocalCandidates()
        if (why := self._gatherer.turn_error) is not None:
            if not candidates:
                raise IceFailedError(f"No relayed candidate: {why}", hint="JITSI_TURN_URL and its credentials")
            log.warning("The TURN server gave no candidate", event_name="turn_failed", cause=why)
        if not candidates:
            raise IceFailedError("No host address for ICE", hint="JITSI_ICE_ADDRESSES names the ones to offer")
        ice = self._gatherer.getLocalParameters()
        setup = "active" if self._role == "client" else "actpass"
        return Transport(
            ufrag=ice.usernameFragment or "",
            pwd=ice.password or "",
            candidates=tuple(_to_jingle(item, number) for number, item in enumerate(candidates)),
            fingerprints=tuple(
                Fingerprint(item.algorithm, item.value, setup)
                for item in self.dtls.getLocalParameters().fingerprints
                if item.algorithm == "sha-256"
            ),
            rtcp_mux=True,
        )

    async def connect(self, remote: Transport, timeout: float = 30.0) -> None:
        """Connect to ``remote``: ICE, then DTLS, each within ``timeout`` s. IceFailedError or DtlsFailedError."""
        self._remote_ufrag = remote.ufrag
        await self._take_candidates(remote)
        ending = asyncio.ensure_future(self._end_candidates())
        try:
            async with asyncio.timeout(timeout):
                await self._ice.start(RTCIceParameters(usernameFragment=remote.ufrag, password=remote.pwd))
        except TimeoutError:
            raise IceFailedError(f"ICE did not connect within {timeout:g} s") from None
        finally:
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)
        if self._closing is not None:
            await (
                self._ice.stop()
            )  # aioice, closed in the moment of success, starts its consent checks all the same
            raise IceFailedError("The transport was closed while ICE connected")
        if self._ice.state != "completed":
            raise IceFailedError("No pair of ICE candidates works", hint="is UDP to the bridge's port open?")
        self._on_phase("ice")
        try:
            async with asyncio.timeout(timeout):
                await self.dtls.start(_dtls_parameters(remote))
        except TimeoutError:
            raise DtlsFailedError(f"DTLS did not finish within {timeout:g} s") from None
        if self.dtls.state != "connected":
            raise DtlsFailedError("The DTLS handshake failed, or the fingerprint does not match")
        self._on_phase("dtls")

    async def add_candidates(self, remote: Transport) -> None:
        """Take further candidates of the other side (XEP-0176 section 5.7), also before ``connect``.

        Those of other credentials are of another ICE session, and are left alone.
        """
        if remote.ufrag and self._remote_ufrag not in (None, remote.ufrag):
            return
        for candidate in filter(_is_usable, remote.candidates):
            await self._ice.addRemoteCandidate(_from_jingle(candidate))

    async def _take_candidates(self, remote: Transport) -> None:
        usable = [item for item in remote.candidates if _is_usable(item)]
        if self._role == "bridge":
            usable = usable or self._placeholders()
        elif not usable and not self._ice.getRemoteCandidates():
            kinds = sorted({f"{item.protocol} {item.ip}" for item in remote.candidates})
            raise IceFailedError(f"The bridge offers no UDP candidate with an address, only {kinds or 'nothing'}")
        for candidate in usable:
            await self._ice.addRemoteCandidate(_from_jingle(candidate))

    async def _end_candidates(self) -> None:
        """Say that no more come, so that ICE fails as soon as all pairs have failed (RFC 8838 section 8.2)."""
        await asyncio.sleep(TRICKLE_TIME if self._role == "client" else 0)
        await self._ice.addRemoteCandidate(None)

    def _placeholders(self) -> list[Candidate]:
        """The discard port of our own hosts, which keeps the check list open until the client's checks come.

        Web clients tell a bridge no candidates: it learns their addresses from those (RFC 8445 section 7.3.1.3).
        """
        hosts = {item.ip for item in self._gatherer.getLocalCandidates()}
        return [Candidate("nowhere", 1, "udp", 1, host, 9, "host") for host in sorted(hosts)]

    async def wait_closed(self) -> None:
        """Return when the other side closed, or the path was lost (ICE consent, RFC 7675)."""
        await self._ended.wait()

    def route(self) -> Route:
        """Where media goes, once connected. Raises ConnectionError before."""
        return self.dtls.route()

    async def send(self, data: bytes) -> None:
        """Send one RTP or RTCP packet, not yet encrypted; a peer that is gone is no error of the sender."""
        try:
            await self.dtls.send_packet(data)
        except ConnectionError:
            self._ended.set()

    async def close(self) -> None:
        """Close everything; may be called twice, and in the middle of ``connect``.

        Whoever is cancelled meanwhile leaves nothing half closed: it goes on, and the next caller waits for it.
        """
        self._ended.set()
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            await self.dtls.stop()
        finally:
            await self._ice.stop()

    def _watch(self) -> None:
        if self.dtls.state in ("closed", "failed"):
            self._ended.set()


def _is_usable(item: Candidate) -> bool:
    """UDP with an address: names of mDNS (RFC 8828) are for peers in the same network, not for a bridge.

    A link-local address says nothing without the interface that it is of (RFC 4007 section 6).
    """
    if item.component != 1 or item.protocol.lower() != "udp":
        return False
    try:
        address = ipaddress.ip_address(item.ip)
    except ValueError:
        return False
    return address.version == 4 or not address.is_link_local


def _dtls_parameters(remote: Transport) -> RTCDtlsParameters:
    return RTCDtlsParameters(
        fingerprints=[RTCDtlsFingerprint(algorithm=item.hash, value=item.value) for item in remote.fingerprints]
    )


def _to_jingle(item: RTCIceCandidate, number: int) -> Candidate:
    return Candidate(
        foundation=item.foundation[:8],  # aioice's is a whole MD5; the same stay the same
        component=item.component,
        protocol=item.protocol,
        priority=item.priority,
        ip=item.ip,
        port=item.port,
        type=item.type,
        id=f"c{number}",
        rel_addr=item.relatedAddress,
        rel_port=item.relatedPort,
        tcptype=item.tcpType,
    )


def _from_jingle(item: Candidate) -> RTCIceCandidate:
    return RTCIceCandidate(
        component=item.component,
        foundation=item.foundation,
        ip=item.ip,
        port=item.port,
        priority=item.priority,
        protocol=item.protocol,
        type=item.type,
        relatedAddress=item.rel_addr,
        relatedPort=item.rel_port,
        tcpType=item.tcptype,
    )
