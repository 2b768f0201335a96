"""Whole probes of the embedded server, each with one thing broken: the verdict names the right place."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from bot.bridge.rtp import RtpHeader
from bot.embedded.config import EmbeddedConfig, RoomPolicy
from bot.embedded.forward import Forwarder, Packets
from bot.embedded.server import EmbeddedServer
from bot.embedded.services import ExternalService
from bot.errors import IceFailedError
from bot.jingle.model import Fingerprint, Transport
from bot.monitor.model import ProbeResult, Severity, Stage
from bot.monitor.probe import Probe
from bot.monitor.settings import ProbeSettings
from bot.service.runner import embedded_settings
from bot.settings import load
from tests.prosody import free_port
from tests.requirements import require
from tests.test_turn import SECRET, end, start

#: Short, and lenient in what a busy machine spoils.
LENIENT = ("delay < 5s", "frozen < 90%", "frames > 5%", "lip_sync < 2s", "join < 30s", "connect < 30s")


async def probe(settings: Any, *, timeout: float = 6.0, **options: Any) -> ProbeResult:
    """A probe; of a busy machine no quality is asked for but loss."""
    found = {"thresholds": LENIENT, "duration": 2.0, "timeout": timeout, "relay": "off", **options}
    return await Probe(settings, ProbeSettings(**found)).run()


@asynccontextmanager
async def server(**changes: Any) -> AsyncIterator[EmbeddedServer]:
    found = EmbeddedServer(port=0, **changes)
    await found.start()
    try:
        yield found
    finally:
        await found.stop()


def broken(result: ProbeResult) -> tuple[Stage, str]:
    return result.verdict.stage, result.verdict.code


async def of_embedded(found: EmbeddedServer, **options: Any) -> ProbeResult:
    """A probe with small pictures. One of a machine that is too busy says so, and is made again."""
    settings = embedded_settings(load(width=320, height=180, fps=10), found)
    for _ in range(3):
        result = await probe(settings, **options)
        if result.verdict.code != "overloaded":
            break
    return result


# --- fine ----------------------------------------------------------------------------------------------------


async def test_fine() -> None:
    async with server() as found:
        result = await of_embedded(found, timeout=20.0)
    assert result.verdict.ok, result.verdict
    [only] = result.passes
    assert set(only.measures) == {
        "join",
        "connect",
        "delay",
        "loss",
        "frozen",
        "frames",
        "lip_sync",
        "round_trip",
    }
    assert 0 < only.measures["delay"] < 5
    for bot in only.seen.bots:
        assert {"websocket", "sasl", "bind", "focus", "muc", "offer", "ice", "dtls"} <= set(bot.phases)
        assert bot.acked > 0
    for path in only.seen.paths:
        assert path.pictures > 5
        assert path.sounds > 0
    assert not found.bridge.conferences or not any(c.endpoints for c in found.bridge.conferences.values())


async def test_three_bots_have_six_paths() -> None:
    async with server() as found:
        result = await of_embedded(found, bots=3, timeout=20.0)
    assert result.verdict.ok, result.verdict
    assert len(result.passes[0].seen.paths) == 6


async def test_each_region_gets_a_pass_whose_bots_say_that_they_are_there() -> None:
    async with server() as found:
        seen: list[str] = []
        dispatch = found.core.feed

        def feed(connection: int, frame: str) -> Any:
            seen.append(frame)
            return dispatch(connection, frame)

        found.core.feed = feed  # type: ignore[method-assign]
        result = await of_embedded(found, regions=("eu-1",), timeout=20.0)
    assert [item.name for item in result.passes] == ["direct", "region:eu-1"]
    assert result.verdict.ok, result.verdict
    assert any("jitsi_participant_region>eu-1<" in frame for frame in seen)


# --- before anybody joins ------------------------------------------------------------------------------------


async def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", nowhere)
    result = await probe(load(ws_url="ws://meet.invalid"))
    assert broken(result) == (Stage.DNS, "dns_failed")


async def test_a_closed_port() -> None:
    result = await probe(load(ws_url=f"ws://127.0.0.1:{free_port()}"))
    assert broken(result) == (Stage.CONNECT, "connection_refused")
    assert "dns" in result.passes[0].as_dict()["preflight"]["seconds"]


@asynccontextmanager
async def web_server(
    answer: Callable[[web.Request], web.StreamResponse], context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    async def handle(request: web.Request) -> web.StreamResponse:
        return answer(request)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "stage", "code"),
    [
        (200, Stage.WEBSOCKET, "wrong_address"),
        (400, Stage.WEBSOCKET, "wrong_address"),
        (404, Stage.PROXY, "wrong_address"),
        (502, Stage.PROXY, "server_unavailable"),
        (429, Stage.PROXY, "rate_limited"),
    ],
)
async def test_an_http_answer_without_a_websocket(status: int, stage: Stage, code: str) -> None:
    async with web_server(lambda _: web.Response(status=status, text="<html>")) as port:
        result = await probe(load(ws_url=f"ws://127.0.0.1:{port}"))
    assert broken(result) == (stage, code)


async def test_a_certificate_of_nobody_known_and_how_long_a_good_one_lasts(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with web_server(lambda _: web.Response(text="<html>"), context) as port:
        url = f"wss://127.0.0.1:{port}"
        unknown = await probe(load(ws_url=url))
        known = await probe(load(ws_url=url, ca_file=tmp_path / "ca.pem"))
    assert broken(unknown) == (Stage.TLS, "tls_failed")
    assert "self-signed" in unknown.verdict.cause or "unable to get" in unknown.verdict.cause
    assert broken(known) == (Stage.WEBSOCKET, "wrong_address")
    assert known.measures["certificate"] > 300


async def test_no_answer_at_all() -> None:
    async def deaf(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3)
        writer.close()

    listener = await asyncio.start_server(deaf, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    result = await probe(load(ws_url=f"ws://127.0.0.1:{port}", connect_timeout=0.5))
    listener.close()
    await asyncio.sleep(3)
    assert broken(result) == (Stage.WEBSOCKET, "connect_timeout")


# --- joining -------------------------------------------------------------------------------------------------


async def test_a_wrong_password() -> None:
    async with server(config=EmbeddedConfig(accounts={"bot": "right"})) as found:
        settings = embedded_settings(load(), found)
        account = load(username="bot", password="wrong")
        given = {"username": account.username, "password": account.password}
        result = await probe(settings.model_copy(update=given))
    assert broken(result) == (Stage.AUTHENTICATION, "auth_failed")


class Everywhere(dict[str, RoomPolicy]):
    """One policy for all rooms."""

    def get(self, _: str, default: Any = None) -> Any:
        return RoomPolicy(password="secret")


async def test_a_room_with_a_password() -> None:
    async with server(config=EmbeddedConfig(rooms=Everywhere())) as found:
        result = await of_embedded(found)
    assert broken(result) == (Stage.ROOM, "room_password")


async def test_no_focus() -> None:
    async with server(focus=False) as found:
        result = await of_embedded(found, timeout=3.0)
    assert broken(result) == (Stage.FOCUS, "focus_absent")


# --- the bridge ----------------------------------------------------------------------------------------------


def change_transport(found: EmbeddedServer, change: Callable[[str, Transport], Transport]) -> None:
    """Let the bridge offer another transport than it has; ``change`` sees the room, too."""
    opened = found.bridge.open

    async def open_(room: str, *more: Any) -> Transport:
        return change(room, await opened(room, *more))

    found.bridge.open = open_  # type: ignore[method-assign,assignment]


async def test_no_bridge() -> None:
    async with server() as found:

        async def none(*_: object) -> Transport:
            raise IceFailedError("no bridge")

        found.bridge.open = none  # type: ignore[method-assign,assignment]
        result = await of_embedded(found, timeout=3.0)
    assert broken(result) == (Stage.BRIDGE, "no_offer")


async def test_a_bridge_that_offers_no_address() -> None:
    async with server() as found:
        change_transport(found, lambda _, offer: replace(offer, candidates=()))
        result = await of_embedded(found)
    assert broken(result) == (Stage.ICE, "ice_failed")
    assert "no UDP candidate" in result.verdict.cause


def to_a_dead_port(offer: Transport) -> Transport:
    return replace(offer, candidates=tuple(replace(item, port=free_udp_port()) for item in offer.candidates))


def block_udp(found: EmbeddedServer, rooms: str = "") -> None:
    """Let neither side reach the other in rooms whose names have ``rooms`` in them."""
    change_transport(found, lambda room, offer: to_a_dead_port(offer) if rooms in room else offer)
    connected = found.bridge.connect

    async def connect(room: str, name: str, sid: str, remote: Transport) -> None:
        await connected(room, name, sid, to_a_dead_port(remote) if rooms in room else remote)

    found.bridge.connect = connect  # type: ignore[method-assign]


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def test_udp_blocked() -> None:
    async with server() as found:
        block_udp(found)
        result = await of_embedded(found)
    assert broken(result) == (Stage.ICE, "ice_failed")
    assert result.verdict.severity is Severity.CRITICAL


@asynccontextmanager
async def with_turn(directory: Path) -> AsyncIterator[EmbeddedServer]:
    require("turnserver")
    turn = await start(directory, "use-auth-secret", f"static-auth-secret={SECRET}")
    services = (ExternalService("turn", "127.0.0.1", turn.port, "udp", SECRET, ttl=60),)
    try:
        async with server(config=EmbeddedConfig(services=services)) as found:
            yield found
    finally:
        await end(turn)


@pytest.mark.turn
async def test_udp_blocked_and_turn_works(tmp_path: Path) -> None:
    async with with_turn(tmp_path) as found:
        block_udp(found, "-direct")
        result = await of_embedded(found, relay="auto")
    assert [item.name for item in result.passes] == ["direct", "relay"]
    assert result.passes[1].verdict.ok, result.passes[1].verdict
    assert broken(result) == (Stage.ICE, "udp_blocked")
    assert result.verdict.severity is Severity.WARNING


@pytest.mark.turn
async def test_turn_does_not_work(tmp_path: Path) -> None:
    async with with_turn(tmp_path) as found:
        block_udp(found, "-relay")
        result = await of_embedded(found, relay="auto")
    assert result.passes[0].verdict.ok, result.passes[0].verdict
    assert result.verdict.stage is Stage.TURN
    assert result.verdict.severity is Severity.WARNING


async def test_a_turn_server_is_required_and_none_is_named() -> None:
    async with server() as found:
        result = await of_embedded(found, relay="required")
        quiet = await of_embedded(found, relay="auto")
    assert broken(result) == (Stage.TURN, "no_turn_server")
    assert quiet.verdict.ok, quiet.verdict
    assert [item.name for item in quiet.passes] == ["direct"]


async def test_another_fingerprint_than_the_bridges() -> None:
    other = Fingerprint("sha-256", ":".join(["AB"] * 32), "actpass")
    async with server() as found:
        change_transport(found, lambda _, offer: replace(offer, fingerprints=(other,)))
        result = await of_embedded(found)
    assert broken(result) == (Stage.DTLS, "dtls_failed")


# --- media ---------------------------------------------------------------------------------------------------

Keep = Callable[[str, RtpHeader], bool]


def forward_only(monkeypatch: pytest.MonkeyPatch, keep: Keep) -> None:
    """Let the bridge forward what ``keep`` says of sender and header."""
    forward = Forwarder.forward_rtp

    def forward_rtp(self: Forwarder, sender: str, data: bytes, header: RtpHeader, now: float = 0.0) -> Packets:
        return forward(self, sender, data, header, now) if keep(sender, header) else []

    monkeypatch.setattr(Forwarder, "forward_rtp", forward_rtp)


async def test_media_one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    silenced: list[str] = []

    def keep(sender: str, _: RtpHeader) -> bool:
        silenced[:] = silenced or [sender]
        return sender not in silenced

    forward_only(monkeypatch, keep)
    async with server() as found:
        result = await of_embedded(found)
    assert broken(result) == (Stage.MEDIA, "one_way")
    [named] = [bot.name for bot in result.passes[0].seen.bots if bot.endpoint in silenced]
    assert result.verdict.where.startswith(f"{named} to ")
    assert "does not forward" in result.verdict.cause


@pytest.mark.parametrize(("audio", "code"), [(True, "no_video"), (False, "no_audio")])
async def test_one_medium_alone(monkeypatch: pytest.MonkeyPatch, audio: bool, code: str) -> None:
    forward_only(monkeypatch, lambda _, header: (header.payload_type == 111) is audio)
    async with server() as found:
        result = await of_embedded(found)
    assert broken(result) == (Stage.MEDIA, code)


async def test_nothing_is_forwarded(monkeypatch: pytest.MonkeyPatch) -> None:
    forward_only(monkeypatch, lambda *_: False)
    async with server() as found:
        result = await of_embedded(found)
    assert broken(result) == (Stage.MEDIA, "no_media")


async def test_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(7)
    forward_only(monkeypatch, lambda _, header: header.payload_type != 111 or rng.random() > 0.15)
    async with server() as found:
        result = await of_embedded(found, duration=8.0)
    assert broken(result) == (Stage.QUALITY, "loss")
    assert result.verdict.severity is Severity.CRITICAL
    assert 0.05 < result.measures["loss"] < 0.3


async def test_a_clip_that_can_not_be_made_is_a_word_of_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_: Probe) -> None:
        raise RuntimeError("no encoder")

    monkeypatch.setattr(Probe, "_prepare", fail)
    result = await probe(load())
    assert broken(result) == (Stage.PROBE, "internal")
    assert result.verdict.severity is Severity.UNKNOWN


async def test_cancelled_in_the_middle_nothing_is_left() -> None:
    async with server() as found:
        running = asyncio.create_task(of_embedded(found, duration=30.0))
        async with asyncio.timeout(20):
            while len(found.core.sessions) < 2:  # noqa: ASYNC110 -- no bell
                await asyncio.sleep(0.05)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await asyncio.sleep(0.5)
        assert not found.core.sessions
