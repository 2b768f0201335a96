"""Media over a TURN server alone: Debian's coturn, started by the tests on loopback, and the embedded server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
import trustme
from structlog.testing import capture_logs

from bot.bridge import _aiortc
from bot.bridge.transport import MediaTransport
from bot.embedded.config import EmbeddedConfig
from bot.embedded.server import EmbeddedServer
from bot.embedded.services import ExternalService
from bot.errors import IceFailedError
from bot.participant.participant import Participant
from bot.turn import TurnServer, parse_turn_url
from tests.bridge_support import LOOPBACK, until
from tests.prosody import free_port
from tests.requirements import require
from tests.test_participant_prosody import Seen, participant

pytestmark = pytest.mark.turn

SECRET = "of the deployment"


@dataclass
class Coturn:
    """A running coturn, for its secret's credentials, or for the user ``bot`` where there is none."""

    port: int
    tls_port: int
    ca_file: Path
    log: Path
    process: asyncio.subprocess.Process

    def url(self, kind: str) -> str:
        return {
            "udp": f"turn:127.0.0.1:{self.port}?transport=udp",
            "tcp": f"turn:127.0.0.1:{self.port}?transport=tcp",
            "tls": f"turns:127.0.0.1:{self.tls_port}",
        }[kind]

    @property
    def allocations(self) -> int:
        """How many were made."""
        return self.log.read_text().count("ALLOCATE processed, success")


async def start(directory: Path, *lines: str) -> Coturn:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(directory / "turn.pem")
    port, tls_port = free_port(), free_port()
    (directory / "turn.conf").write_text(
        "\n".join(
            [
                "listening-ip=127.0.0.1",
                "relay-ip=127.0.0.1",
                f"listening-port={port}",
                f"tls-listening-port={tls_port}",
                f"cert={directory / 'turn.pem'}",
                f"pkey={directory / 'turn.pem'}",
                "realm=meet.jitsi",
                "fingerprint",
                "allow-loopback-peers",
                "no-cli",
                "no-rfc5780",
                "verbose",
                "simple-log",
                f"log-file={directory / 'turn.log'}",
                f"pidfile={directory / 'turn.pid'}",
                f"userdb={directory / 'turn.db'}",
                *lines,
            ]
        )
    )
    process = await asyncio.create_subprocess_exec(
        "turnserver",
        "-c",
        str(directory / "turn.conf"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    found = Coturn(port, tls_port, directory / "ca.pem", directory / "turn.log", process)
    async with asyncio.timeout(20):
        while not await _listens(port):
            assert process.returncode is None, found.log.read_text()
            await asyncio.sleep(0.05)
    return found


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


async def end(coturn: Coturn) -> None:
    if coturn.process.returncode is None:
        coturn.process.kill()
    await coturn.process.wait()


@pytest_asyncio.fixture
async def coturn(tmp_path: Path) -> AsyncIterator[Coturn]:
    """A TURN server with one user, ``bot`` with the password ``geheim``."""
    require("turnserver")
    found = await start(tmp_path, "lt-cred-mech", "user=bot:geheim")
    yield found
    await end(found)


@pytest_asyncio.fixture
async def deployment(tmp_path: Path) -> AsyncIterator[tuple[Coturn, EmbeddedServer]]:
    """A TURN server that shares its secret with a server that names it (XEP-0215), by UDP and by TLS."""
    require("turnserver")
    turn = await start(tmp_path, "use-auth-secret", f"static-auth-secret={SECRET}")
    services = (
        ExternalService("stun", "127.0.0.1", turn.port),
        ExternalService("turn", "127.0.0.1", turn.port, "udp", SECRET, ttl=60),
        ExternalService("turns", "127.0.0.1", turn.tls_port, "tcp", SECRET, ttl=60),
    )
    server = EmbeddedServer(port=0, config=EmbeddedConfig(services=services, single_participant_timeout=0.3))
    await server.start()
    yield turn, server
    await server.stop()
    await end(turn)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[EmbeddedServer]:
    found = EmbeddedServer(port=0)
    await found.start()
    yield found
    await found.stop()


async def meet(*bots: Participant) -> None:
    """Let ``bots`` hear each other, and leave."""
    tasks = [asyncio.create_task(bot.run()) for bot in bots]

    def heard(bot: Participant) -> bool:
        media = bot.conference.media if bot.conference else None
        return media is not None and media.received.packets > 50

    try:
        await until(lambda: all(heard(bot) for bot in bots), 30)
        yielded = [bot.conference.media for bot in bots if bot.conference is not None]
        assert len(yielded) == len(bots)
        for media in yielded:
            assert media is not None
            assert {item.type for item in media.transport._gatherer.getLocalCandidates()} == {"relay"}
    finally:
        for bot in bots:
            bot.stop()
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("kind", ["udp", "tcp", "tls"])
async def test_nothing_but_relayed_media(coturn: Coturn, server: EmbeddedServer, kind: str) -> None:
    settings = {
        "use_turn": "relay",
        "turn_url": coturn.url(kind),
        "turn_username": "bot",
        "turn_password": "geheim",
        "ca_file": coturn.ca_file,
    }
    seen = Seen()
    await meet(
        participant(server.url, seen, name="one", **settings),
        participant(server.url, Seen(), name="two", **settings),
    )
    assert coturn.allocations == 2
    assert "bridge_channel_degraded" not in seen.names()
    assert "media_failed" not in seen.names()
    text = coturn.log.read_text()
    assert text.count("REFRESH processed, success") >= 2 or "lifetime=0" in text  # the allocations were given back


async def test_the_deployment_names_its_server_for_each_session(
    deployment: tuple[Coturn, EmbeddedServer],
) -> None:
    turn, server = deployment
    settings = {"use_turn": "relay", "ca_file": turn.ca_file}
    await meet(
        participant(server.url, Seen(), name="one", **settings),
        participant(server.url, Seen(), name="two", **settings),
    )
    assert turn.allocations == 2
    assert "TLS" in turn.log.read_text()  # the way that gets through most firewalls


async def test_credentials_are_asked_for_anew(
    deployment: tuple[Coturn, EmbeddedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each media session: those of the one before it may have expired."""
    turn, server = deployment
    seen, asked = Seen(), list[float]()

    def wall() -> float:
        asked.append(time.time() + len(asked))
        return asked[-1]

    monkeypatch.setattr(server.core, "_wall", wall)
    one = participant(server.url, seen, name="one", use_turn="relay", ca_file=turn.ca_file)
    task = asyncio.create_task(one.run())
    for count in (1, 2):
        other = participant(server.url, Seen(), name="other", ice_addresses="127.0.0.1", use_turn="off")
        staying = asyncio.create_task(other.run())
        await seen.wait("media_connected", count)
        assert (len(asked), turn.allocations) == (count, count)
        other.stop()
        await staying
        await seen.wait("media_ended", count)
    one.stop()
    await task
    names = {f"user <{int(made) + 60}>" for made in asked}
    assert len(names) == 2
    assert all(name in turn.log.read_text() for name in names)


async def test_with_auto_the_direct_way_is_taken(
    deployment: tuple[Coturn, EmbeddedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    turn, server = deployment
    monkeypatch.setattr(_aiortc, "TURN_TIMEOUT", 20.0)  # the machine may be busy
    seen = Seen()
    one = participant(server.url, seen, name="one", ice_addresses="127.0.0.1", ca_file=turn.ca_file)
    two = participant(server.url, Seen(), name="two", ice_addresses="127.0.0.1", use_turn="off")
    tasks = [asyncio.create_task(one.run()), asyncio.create_task(two.run())]
    await seen.wait("media_connected")
    assert one.conference is not None
    assert one.conference.media is not None
    transport = one.conference.media.transport
    assert {item.type for item in transport._gatherer.getLocalCandidates()} == {"host", "relay"}
    pair = transport._ice._connection._nominated[1]
    assert pair.local_candidate.type == "host"
    assert turn.allocations == 1  # none for whom it is off
    for bot in (one, two):
        bot.stop()
    await asyncio.gather(*tasks)


async def test_a_wrong_password_is_said(coturn: Coturn) -> None:
    turn = TurnServer("127.0.0.1", coturn.port, "udp", username="bot", password="falsch")
    alone = MediaTransport(addresses=LOOPBACK, relay_only=True)
    with pytest.raises(IceFailedError, match=rf"No relayed candidate: turn:127.0.0.1:{coturn.port}.*401"):
        await alone.gather(turn)
    await alone.close()
    beside = MediaTransport(addresses=LOOPBACK)
    with capture_logs() as lines:
        found = await beside.gather(turn)
    assert [item.type for item in found.candidates] == ["host"]
    assert [line["event_name"] for line in lines] == ["turn_failed"]
    assert "falsch" not in str(lines)
    await beside.close()


async def test_a_certificate_of_nobody_is_refused(coturn: Coturn) -> None:
    turn = TurnServer("127.0.0.1", coturn.tls_port, "tcp", tls=True, username="bot", password="geheim")
    transport = MediaTransport(addresses=LOOPBACK, relay_only=True)
    with pytest.raises(IceFailedError, match="certificate"):
        await transport.gather(turn)
    await transport.close()


@pytest.mark.parametrize("kind", ["udp", "tcp"])
async def test_a_server_that_is_gone_holds_up_no_end(coturn: Coturn, kind: str) -> None:
    turn = parse_turn_url(coturn.url(kind), "bot", "geheim")
    transport = MediaTransport(addresses=LOOPBACK)
    found = await transport.gather(turn)
    assert sorted(item.type for item in found.candidates) == ["host", "relay"]
    await end(coturn)
    started = time.monotonic()
    await transport.close()
    assert time.monotonic() - started < 10


async def test_the_address_of_the_host_is_not_told_with_relay_only(coturn: Coturn) -> None:
    turn = TurnServer("127.0.0.1", coturn.port, username="bot", password="geheim")
    transport = MediaTransport(addresses=LOOPBACK, relay_only=True)
    [candidate] = (await transport.gather(turn)).candidates
    assert (candidate.type, candidate.ip) == ("relay", "127.0.0.1")
    assert (candidate.rel_addr, candidate.rel_port) == ("0.0.0.0", 9)
    await transport.close()
