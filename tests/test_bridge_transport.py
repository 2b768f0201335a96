"""Faults of one transport: peers that vanish, datagrams that mean nothing, receivers that fail, sends refused."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import aioice.ice
import ifaddr
import pytest
from aiortc import RTCIceParameters
from structlog.testing import capture_logs

from bot.bridge import rtcp, rtp, transport
from bot.bridge._aiortc import LastingIceTransport
from bot.bridge.channel import SctpBridgeChannel
from bot.bridge.transport import MediaTransport, _from_jingle
from bot.errors import DtlsFailedError, IceFailedError
from bot.jingle.model import Candidate
from tests.bridge_support import LOOPBACK, until

PACKET = rtp.build(payload_type=111, sequence=1, timestamp=0, ssrc=9, body=b"x" * 20)


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[MediaTransport, MediaTransport]]:
    """A connected client and bridge."""
    near, far = MediaTransport("client", addresses=LOOPBACK), MediaTransport("bridge", addresses=LOOPBACK)
    try:
        ours, theirs = await near.gather(), await far.gather()
        await asyncio.gather(near.connect(theirs, 10), far.connect(ours, 10))
        yield near, far
    finally:
        await near.close()
        await far.close()


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("turns", range(4))
async def test_closed_while_it_gathers_it_leaves_no_socket_open(turns: int, *, cancelled: bool) -> None:
    opened: list[asyncio.BaseTransport] = []
    loop = asyncio.get_running_loop()

    async def listening(protocol: asyncio.DatagramProtocol, host: str) -> asyncio.DatagramTransport:
        found, _ = await loop.create_datagram_endpoint(lambda: protocol, local_addr=(host, 0))
        opened.append(found)
        return found

    one = MediaTransport("client", addresses=LOOPBACK, open_socket=listening)
    gathering = asyncio.create_task(one.gather())
    for _ in range(turns):
        await asyncio.sleep(0)
    await one.close()
    if cancelled:
        gathering.cancel()
    [result] = await asyncio.gather(gathering, return_exceptions=True)
    # Cancelled it can have been too late for that.
    assert isinstance(result, asyncio.CancelledError | IceFailedError if cancelled else IceFailedError)
    assert all(item.is_closing() for item in opened)


async def test_closed_in_the_moment_of_success_it_leaves_nothing_behind() -> None:
    near, far = MediaTransport("client", addresses=LOOPBACK), MediaTransport("bridge", addresses=LOOPBACK)
    ours, theirs = await near.gather(), await far.gather()
    checks = near._ice._connection._check_list_state
    told = checks.get

    async def told_after_the_close() -> int:
        result = await told()
        await near.close()
        return result

    checks.get = told_after_the_close  # type: ignore[method-assign]
    other = asyncio.create_task(far.connect(ours, 10))
    with pytest.raises(IceFailedError, match="closed while"):
        await near.connect(theirs, 10)
    await far.close()
    await asyncio.gather(other, return_exceptions=True)
    assert near._ice._connection._query_consent_task is not None
    assert near._ice._connection._query_consent_task.done()


def vanish(transport: MediaTransport) -> None:
    """Close the sockets of one side without a word."""
    consent = transport._ice._connection._query_consent_task
    assert consent is not None
    consent.cancel()
    for protocol in transport._ice._connection._protocols:
        protocol.transport.abort()


async def sent_raw(transport: MediaTransport, data: bytes) -> None:
    """Send a datagram below DTLS, an empty one too: asyncio's own transports leave those out."""
    host, port = (
        transport._ice._connection.remote_candidates[0].host,
        transport._ice._connection.remote_candidates[0].port,
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_sendto(plain, data, (host, port))


async def test_a_peer_that_vanishes_is_noticed_by_consent(monkeypatch: pytest.MonkeyPatch) -> None:
    """With checks every 0.2 s: four in vain, each with half a second to answer; real times are below."""
    monkeypatch.setattr(aioice.ice, "CONSENT_INTERVAL", 0.2)
    async with pair() as (near, far):
        vanish(far)
        started = time.monotonic()
        sending = asyncio.create_task(keep_sending(near))
        await asyncio.wait_for(near.wait_closed(), 15)
        took = time.monotonic() - started
        sending.cancel()
        await asyncio.wait([sending])
    assert 4 * (0.16 + 0.5) - 0.3 <= took < 8


async def keep_sending(transport: MediaTransport) -> None:
    """Sending to a closed port, and after the end, raises nothing."""
    while True:
        await transport.send(PACKET)
        await asyncio.sleep(0.01)


async def test_the_real_times_are_within_those_of_consent() -> None:
    assert aioice.ice.CONSENT_FAILURES == 4
    slowest = aioice.ice.CONSENT_FAILURES * (1.2 * aioice.ice.CONSENT_INTERVAL + aioice.stun.RETRY_RTO)
    fastest = aioice.ice.CONSENT_FAILURES * (0.8 * aioice.ice.CONSENT_INTERVAL + aioice.stun.RETRY_RTO)
    assert 15 <= fastest <= slowest <= 30


async def test_no_datagram_ends_the_transport() -> None:
    arrived: list[bytes] = []
    async with pair() as (near, far):
        near.dtls.on_rtp = arrived.append
        for data in (
            b"",
            b"\x00",
            b"\xff" * 40,
            b"\x80",
            b"\x80\xc8",
            b"\x80\x6f" + bytes(30),
            b"\x16\xfe\xfd" + b"\0" * 20,
            b"\x17" * 2000,
        ):
            await sent_raw(far, data)
        await far.send(PACKET)
        await until(lambda: bool(arrived))
        assert near.dtls.state == "connected"
        assert repr(near) == "<MediaTransport client ice=completed dtls=connected>"
        near.dtls.on_rtcp = lambda _: None
        await far.send(b"\x80\xc9\x00\x05" + bytes(8))  # RTCP whose length is not true
        await far.send(rtp.build(payload_type=111, sequence=2, timestamp=0, ssrc=9, body=b"y"))
        await until(lambda: len(arrived) == 2)
        assert near.dtls.refused == 1  # what looks like RTP and is not authentic


async def test_receivers_that_fail_end_nothing() -> None:
    came: list[bytes] = []

    def broken(data: bytes) -> None:
        came.append(data)
        raise LookupError("no")

    async with pair() as (near, far):
        near.dtls.on_rtp = near.dtls.on_rtcp = broken
        with capture_logs() as lines:
            await far.send(rtcp.pli(1, 2))
            await until(lambda: near.dtls.faults == 1)
            for number in range(15):
                await far.send(rtp.build(payload_type=111, sequence=number, timestamp=0, ssrc=9))
            await until(lambda: near.dtls.faults == 16)
        assert near.dtls.state == "connected"
    assert [line["event_name"] for line in lines].count("datagram_failed") == 10


async def test_a_broken_receiver_of_messages_does_not_end_the_session() -> None:
    came: list[object] = []

    def broken(message: object) -> None:
        came.append(message)
        if len(came) == 1:
            raise LookupError("no")

    async with pair() as (near, far):
        ours, theirs = SctpBridgeChannel(near.dtls, broken), SctpBridgeChannel(far.dtls, came.append)
        try:
            await asyncio.gather(ours.open(10), theirs.accept())
            await asyncio.wait_for(theirs.wait_open(), 10)
            theirs.send({"colibriClass": "One"})
            theirs.send({"colibriClass": "Two"})
            await until(lambda: len(came) == 2)
            assert near.dtls.state == "connected"
        finally:
            await ours.close()
            await theirs.close()


async def test_a_refused_datagram_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    arrived: list[bytes] = []
    async with pair() as (near, far):
        far.dtls.on_rtp = arrived.append
        connection = near._ice._connection
        send = connection.send

        async def refused(data: bytes) -> None:
            raise ConnectionRefusedError(111, "Connection refused")

        monkeypatch.setattr(connection, "send", refused)
        await near.send(PACKET)
        assert isinstance(near._ice, LastingIceTransport)
        assert near._ice.unsent == 1
        monkeypatch.setattr(connection, "send", send)
        await near.send(PACKET)
        await until(lambda: bool(arrived))
        assert near.dtls.state == far.dtls.state == "connected"


async def test_nobody_answers_the_handshake_is_an_error_in_time() -> None:
    near, far = MediaTransport("client", addresses=LOOPBACK), MediaTransport("bridge", addresses=LOOPBACK)
    try:
        ours, theirs = await near.gather(), await far.gather()
        await far._ice.addRemoteCandidate(_from_jingle(ours.candidates[0]))
        await far._ice.addRemoteCandidate(None)
        answering = asyncio.create_task(far._ice.start(RTCIceParameters(ours.ufrag, ours.pwd)))
        with pytest.raises(DtlsFailedError, match=r"within 0\.5 s"):
            await near.connect(theirs, 0.5)
        await answering
    finally:
        await near.close()
        await far.close()


async def test_a_send_without_a_connection_is_told_from_a_refused_one() -> None:
    near = MediaTransport("client", addresses=LOOPBACK)
    with pytest.raises(ConnectionError, match="not connected"):
        await near._ice._send(b"x")
    await near.close()


async def test_who_is_cancelled_while_closing_leaves_nothing_open() -> None:
    async with pair() as (near, _):
        closing = asyncio.create_task(near.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await near.close()
        assert near._ice.state == "closed"
        assert near.dtls.state == "closed"


async def test_a_send_after_the_end_is_no_error() -> None:
    async with pair() as (near, far):
        await far.close()
        await asyncio.wait_for(near.wait_closed(), 10)
        await near.send(PACKET)


async def test_a_client_without_candidates_is_reached_by_its_own_checks() -> None:
    near, far = MediaTransport("client", addresses=LOOPBACK), MediaTransport("bridge", addresses=LOOPBACK)
    arrived: list[bytes] = []
    near.dtls.on_rtp = arrived.append
    try:
        ours, theirs = await near.gather(), await far.gather()
        names = (Candidate("1", 1, "udp", 1, "0b5cd6d4-0d3f.local", 4000, "host"),)
        bare = replace(ours, candidates=names)
        await asyncio.gather(near.connect(theirs, 10), far.connect(bare, 10))
        await far.send(PACKET)
        await until(lambda: bool(arrived))
    finally:
        await near.close()
        await far.close()


async def test_an_offer_without_usable_candidates_is_a_clear_error() -> None:
    near, far = MediaTransport("client", addresses=LOOPBACK), MediaTransport("bridge", addresses=LOOPBACK)
    try:
        await near.gather()
        theirs = await far.gather()
        tcp = tuple(replace(item, protocol="tcp") for item in theirs.candidates)
        with pytest.raises(IceFailedError, match=r"no UDP candidate .* only \['tcp 127.0.0.1'\]"):
            await near.connect(replace(theirs, candidates=tcp), 5)
    finally:
        await near.close()
        await far.close()


@pytest.mark.parametrize(
    "other",
    [
        Candidate("2", 1, "tcp", 9, "127.0.0.1", 443, "host", tcptype="passive"),
        Candidate("2", 1, "ssltcp", 9, "127.0.0.1", 443, "host"),
        Candidate("2", 1, "udp", 9, "0b5cd6d4-0d3f.local", 4000, "host"),
        Candidate("2", 1, "udp", 9, "fe80::1", 4000, "host"),
        Candidate("2", 2, "udp", 9, "127.0.0.1", 4000, "host"),
        Candidate("2", 1, "udp", 9, "not an address", 4000, "host"),
        Candidate("2", 1, "udp", 9, "127.0.0.1", 9, "unheard-of"),
    ],
    ids=lambda item: f"{item.protocol} {item.ip} {item.type}",
)
async def test_candidates_that_can_not_be_used_do_no_harm(other: Candidate) -> None:
    near, far = MediaTransport("client", addresses=LOOPBACK), MediaTransport("bridge", addresses=LOOPBACK)
    try:
        ours, theirs = await near.gather(), await far.gather()
        offered = replace(theirs, candidates=(other, *theirs.candidates))
        await asyncio.gather(near.connect(offered, 10), far.connect(ours, 10))
        assert [item.ip for item in near._ice.getRemoteCandidates()] == ["127.0.0.1"]
    finally:
        await near.close()
        await far.close()


async def test_candidates_that_come_later_are_taken() -> None:
    """XEP-0176 section 5.7; those of another ICE session are not."""
    near, far = MediaTransport("client", addresses=LOOPBACK), MediaTransport("bridge", addresses=LOOPBACK)
    try:
        ours, theirs = await near.gather(), await far.gather()
        nowhere = replace(theirs, candidates=(Candidate("9", 1, "udp", 1, "127.0.0.1", 9, "host"),))
        mdns = replace(ours, candidates=())
        connecting = asyncio.gather(near.connect(nowhere, 10), far.connect(mdns, 10))
        await asyncio.sleep(0)
        await near.add_candidates(replace(theirs, ufrag="other"))
        assert [item.port for item in near._ice.getRemoteCandidates()] == [9]
        await near.add_candidates(theirs)
        await connecting
        await near.add_candidates(theirs)  # again, and too late: no error
    finally:
        await near.close()
        await far.close()


async def test_candidates_that_come_before_the_connection_are_enough() -> None:
    near, far = MediaTransport("client", addresses=LOOPBACK), MediaTransport("bridge", addresses=LOOPBACK)
    try:
        ours, theirs = await near.gather(), await far.gather()
        await near.add_candidates(theirs)
        await asyncio.gather(near.connect(replace(theirs, candidates=()), 10), far.connect(ours, 10))
    finally:
        await near.close()
        await far.close()


async def test_ice_fails_soon_after_the_last_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aioice.stun, "RETRY_MAX", 0)
    monkeypatch.setattr(aioice.stun, "RETRY_RTO", 0.05)
    monkeypatch.setattr(transport, "TRICKLE_TIME", 0.3)
    near, far = MediaTransport("client", addresses=LOOPBACK), MediaTransport("bridge", addresses=LOOPBACK)
    try:
        await near.gather()
        theirs = await far.gather()
        started = time.monotonic()
        with pytest.raises(IceFailedError, match="No pair"):
            await near.connect(replace(theirs, pwd="x" * 22), 20)
        assert 0.25 <= time.monotonic() - started < 10
    finally:
        await near.close()
        await far.close()


async def test_link_local_addresses_are_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is loopback, unless it is asked for."""
    ips = [
        ifaddr.IP(("fe80::1", 0, 2), 64, "eth0"),
        ifaddr.IP(("::1", 0, 0), 128, "lo"),
        ifaddr.IP(("2001:db8::1", 0, 0), 64, "eth0"),
        ifaddr.IP("192.0.2.1", 24, "eth0"),
        ifaddr.IP("127.0.0.1", 8, "lo"),
    ]
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: [ifaddr.Adapter("eth0", "eth0", ips)])
    assert aioice.ice.get_host_addresses(use_ipv4=True, use_ipv6=True) == ["2001:db8::1", "192.0.2.1"]


async def test_rtp_that_came_while_the_handshake_ended_is_not_lost() -> None:
    """Such packets wait in aioice's queue."""
    arrived: list[bytes] = []
    async with pair() as (near, far):
        near.dtls.on_rtp = arrived.append
        near.dtls._enqueue(far.dtls._tx_srtp.protect(PACKET), 1)
        await until(lambda: arrived == [PACKET])
