"""The connection against Debian's Prosody behind Debian's nginx."""

import asyncio
import re
import signal
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import trustme

from bot.errors import (
    AuthenticationError,
    ConnectionRefusedByHostError,
    ResumeRefusedError,
    TlsError,
    WrongAddressError,
)
from bot.xmpp.connection import XmppConfig, XmppConnection
from bot.xmpp.stanza_errors import IqTimeoutError, StanzaError
from tests.prosody import Stack, free_port, make_stack

pytestmark = pytest.mark.prosody


def config(stack: Stack, **more: object) -> XmppConfig:
    return XmppConfig(url=stack.url, domain="meet.jitsi", room="test", **more)  # type: ignore[arg-type]


async def test_an_anonymous_login_and_questions_both_ways(stack: Stack) -> None:
    phases: list[str] = []
    connection = XmppConnection(config(stack), on_phase=phases.append)
    await connection.connect()
    assert phases == ["websocket", "sasl", "bind"]
    if "-" not in connection.jid[:8] and connection.jid[0] != "_":
        assert connection.jid.startswith(connection.endpoint_id)
    assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_]{7}", connection.endpoint_id)
    assert len(connection.endpoint_id) == 8
    assert connection.resumable
    found = await connection.iq("get", "meet.jitsi", ET.Element("{http://jabber.org/protocol/disco#info}query"))
    assert found is not None
    assert "urn:xmpp:ping" in [item.get("var") for item in found]
    with pytest.raises(StanzaError) as refused:
        await connection.iq("get", "meet.jitsi", ET.Element("{urn:example:unknown}query"))
    assert refused.value.condition == "service-unavailable"
    await connection.close()
    await connection.close()
    assert connection.jid == ""


def account(stack: Stack, password: str = "secret") -> XmppConfig:
    return XmppConfig(url=stack.url, domain="auth.meet.jitsi", username="bot", password=password)


async def test_a_lost_stream_is_resumed_when_the_proxy_is_back(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    stack.add_account("bot", "secret")
    await stack.start()
    try:
        connection = XmppConnection(account(stack))
        await connection.connect()
        jid, endpoint = connection.jid, connection.endpoint_id
        assert jid.startswith("bot@auth.meet.jitsi/")
        await stack.stop_nginx()
        lost = await asyncio.wait_for(connection.wait_lost(), 10)
        assert lost.reason
        with pytest.raises(ConnectionRefusedByHostError, match="Nothing listens"):
            await connection.resume()
        await stack.start_nginx()
        await connection.resume()
        assert (connection.jid, connection.endpoint_id) == (jid, endpoint)
        assert await connection.iq("get", "auth.meet.jitsi", ET.Element("{urn:xmpp:ping}ping")) is None
        await connection.close()
        with pytest.raises(AuthenticationError, match="JITSI_PASSWORD"):
            await XmppConnection(account(stack, "wrong")).connect()
    finally:
        await stack.stop()


async def test_a_half_open_socket_is_found_by_its_pings(stack: Stack) -> None:
    connection = XmppConnection(config(stack, ping_interval=0.05, ping_timeout=0.2))
    await connection.connect()
    assert stack.prosody is not None
    stack.prosody.send_signal(signal.SIGSTOP)
    try:
        lost = await asyncio.wait_for(connection.wait_lost(), 10)
    finally:
        stack.prosody.send_signal(signal.SIGCONT)
    assert lost.reason == "no answer to a ping"
    await connection.close()


async def test_a_restarted_server_refuses_to_resume(stack: Stack) -> None:
    connection = XmppConnection(config(stack))
    await connection.connect()
    await stack.stop()
    await asyncio.wait_for(connection.wait_lost(), 10)
    await stack.start()
    with pytest.raises(ResumeRefusedError):
        await connection.resume()
    await connection.close()


async def test_a_silent_peer_is_a_time_out_not_an_error_of_the_stream(stack: Stack) -> None:
    """Two participants: an IQ that nobody answers, and a ping that is answered by the other's program."""
    one, two = XmppConnection(config(stack)), XmppConnection(config(stack))
    await one.connect()
    await two.connect()
    assert await one.iq("get", two.jid, ET.Element("{urn:xmpp:ping}ping")) is None
    with pytest.raises(StanzaError):
        await one.iq("set", two.jid, ET.Element("{urn:example:unknown}ask"))
    two.on_iq("{urn:example:echo}ask", lambda request: request.payload)
    answer = await one.iq("get", two.jid, ET.Element("{urn:example:echo}ask", {"n": "1"}))
    assert answer is not None
    assert answer.get("n") == "1"
    with pytest.raises(IqTimeoutError):
        await one.iq("get", "focus.meet.jitsi", ET.Element("{urn:xmpp:ping}ping"), timeout=0.0001)
    await one.close()
    await two.close()


async def test_wrong_addresses_say_what_was_found(stack: Stack) -> None:
    page = XmppConnection(XmppConfig(url=f"{stack.url}/index.html", domain="meet.jitsi"))
    with pytest.raises(WrongAddressError, match="web page"):
        await page.connect()
    nobody = XmppConnection(XmppConfig(url=f"ws://127.0.0.1:{free_port()}", domain="meet.jitsi"))
    with pytest.raises(ConnectionRefusedByHostError, match="JITSI_WS_URL"):
        await nobody.connect()
    https = XmppConnection(XmppConfig(url="wss://localhost:8443", domain="meet.jitsi"))
    with pytest.raises(WrongAddressError, match="8000"):
        await https.connect()


async def test_tls_is_verified_and_a_private_ca_can_be_given(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate = authority.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    pem = tmp_path / "server.pem"
    tls = f"ssl_certificate {pem}; ssl_certificate_key {pem};"
    stack = make_stack(tmp_path, tls)
    await stack.start()
    try:
        connection = XmppConnection(config(stack, ca_file=tmp_path / "ca.pem"))
        await connection.connect()
        await connection.close()
        with pytest.raises(TlsError, match="JITSI_CA_FILE"):
            await XmppConnection(config(stack)).connect()
    finally:
        await stack.stop()
