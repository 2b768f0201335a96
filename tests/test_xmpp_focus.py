"""The conference request: by IQ, by HTTP, and what the focus may answer."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bot.errors import BotError, FocusError, NotAuthorizedError, VisitorRedirectError
from bot.xmpp.connection import XmppConfig, XmppConnection
from bot.xmpp.focus import (
    ConferenceRequest,
    FocusAddress,
    FocusUnavailableError,
    _accepted,
    ask_focus,
    conference_url,
    parse_answer,
    parse_http_answer,
    refused,
    request_conference_by_http,
)
from bot.xmpp.stanza_errors import StanzaError
from tests.prosody import Stack, free_port

REQUEST = ConferenceRequest("r@muc", "uid", token="a.b.c")
#: As Jicofo of August 2026 answers.
READY = (
    '{"room":"r@muc","ready":true,"focusJid":"focus@auth.meet.jitsi",'
    '"properties":{"visitors-supported":"false","authentication":"false"}}'
)


def test_the_request_both_ways() -> None:
    xml = REQUEST.to_xml()
    assert xml.attrib == {"room": "r@muc", "machine-uid": "uid", "token": "a.b.c"}
    assert [item.attrib for item in xml] == [{"name": "rtcstatsEnabled", "value": "false"}]
    assert "token" not in ConferenceRequest("r@muc", "uid").to_xml().attrib
    body = REQUEST.to_json()
    assert body == {"room": "r@muc", "machineUid": "uid", "properties": {"rtcstatsEnabled": "false"}}
    visitor = ConferenceRequest("r@muc", "uid", visitors=True)
    assert visitor.to_json()["properties"] == {"rtcstatsEnabled": "false", "visitors-version": "1"}
    assert {"name": "visitors-version", "value": "1"} in [item.attrib for item in visitor.to_xml()]


def test_a_redirect_counts_once_the_focus_is_ready() -> None:
    """As in lib-jitsi-meet's ``moderator.js``; ``live`` is looked at whether it is or not."""
    found = parse_http_answer("u", 200, '{"ready": false, "vnode": "v0", "properties": {"live": "false"}}')
    assert _accepted(found) is found
    assert not found.live
    assert parse_http_answer("u", 200, READY).live
    with pytest.raises(VisitorRedirectError, match="v0") as caught:
        _accepted(replace(found, ready=True))
    assert caught.value.vnode == "v0"


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("ws://localhost:8000", "http://localhost:8000/conference-request/v1?room=r"),
        ("wss://h/xmpp-websocket?x=y", "https://h/conference-request/v1?room=r"),
        ("https://h", "https://h/conference-request/v1?room=r"),
    ],
)
def test_the_address_is_beside_the_websocket(base: str, expected: str) -> None:
    assert conference_url(base, "r") == expected


def test_the_answer_by_iq() -> None:
    text = (
        "<conference xmlns='http://jitsi.org/protocol/focus' focusjid='f@d' vnode='v1' "
        "ready='true' session-id='s'>"
        "<property name='authentication' value='false'/></conference>"
    )
    found = parse_answer(ET.fromstring(text))
    assert (found.ready, found.focus_jid, found.vnode, found.session_id) == (True, "f@d", "v1", "s")
    assert found.properties == {"authentication": "false"}
    with pytest.raises(FocusUnavailableError):
        parse_answer(None)


def test_the_answer_by_http() -> None:
    found = parse_http_answer("u", 200, READY)
    assert (found.ready, found.focus_jid, found.vnode) == (True, "focus@auth.meet.jitsi", None)
    assert found.properties["authentication"] == "false"
    assert not parse_http_answer("u", 200, '{"ready": false, "properties": []}').ready


@pytest.mark.parametrize(
    ("status", "text", "error"),
    [
        (403, "", NotAuthorizedError),
        (400, "Bad request: Invalid room name", FocusError),
        (404, "", FocusUnavailableError),
        (502, "<html>", FocusUnavailableError),
        (200, "<html>Jitsi Meet</html>", FocusUnavailableError),
        (200, "[1]", FocusUnavailableError),
    ],
)
def test_refusals_by_http(status: int, text: str, error: type[BotError]) -> None:
    with pytest.raises(error) as caught:
        parse_http_answer("http://h/conference-request/v1", status, text)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("condition", "error", "said"),
    [
        ("not-authorized", NotAuthorizedError, "JITSI_USERNAME"),
        ("service-unavailable", FocusUnavailableError, "service-unavailable"),
        ("bad-request", FocusError, "why"),
    ],
)
def test_refusals_by_iq(condition: str, error: type[BotError], said: str) -> None:
    found = refused("focus.meet.jitsi", StanzaError(condition, "why"))
    assert type(found) is error
    assert said in str(found)


class Focus:
    """A web container that takes conference requests."""

    def __init__(self, text: str = READY, status: int = 200) -> None:
        self.text, self.status = text, status
        self.asked: list[tuple[dict[str, Any], str | None]] = []
        self.app = web.Application()
        self.app.router.add_post("/conference-request/v1", self.answer)

    async def answer(self, request: web.Request) -> web.Response:
        assert request.query["room"] == "r"
        self.asked.append((await request.json(), request.headers.get("Authorization")))
        return web.Response(text=self.text, status=self.status, content_type="application/json")


async def test_the_token_goes_into_the_header() -> None:
    focus = Focus()
    async with TestServer(focus.app) as server:
        address = FocusAddress("focus", conference_url(f"ws://127.0.0.1:{server.port}", "r"))
        assert (await request_conference_by_http(address, REQUEST)).ready
        focus.text = READY.replace('"ready"', '"vnode":"v1","ready"')
        with pytest.raises(VisitorRedirectError, match="v1"):
            await request_conference_by_http(address, ConferenceRequest("r@muc", "uid"))
    assert focus.asked == [(REQUEST.to_json(), "Bearer a.b.c"), (REQUEST.to_json(), None)]


async def test_nobody_there_is_no_final_error() -> None:
    address = FocusAddress("focus", f"http://127.0.0.1:{free_port()}/conference-request/v1?room=r", timeout=5)
    with pytest.raises(FocusUnavailableError, match="does not answer"):
        await request_conference_by_http(address, REQUEST)


@pytest.mark.prosody
async def test_http_where_xmpp_has_no_answer(stack: Stack) -> None:
    """Prosody's focus component is not connected here: it answers remote-server-timeout."""
    connection = XmppConnection(XmppConfig(url=stack.url, domain="meet.jitsi", room="r"))
    await connection.connect()
    focus = Focus()
    try:
        async with TestServer(focus.app) as server:
            url = conference_url(f"ws://127.0.0.1:{server.port}", "r")
            xmpp, auto, http = (FocusAddress("focus.meet.jitsi", url, how) for how in ("xmpp", "auto", "http"))
            with pytest.raises(FocusUnavailableError, match="remote-server-timeout"):
                await ask_focus(connection, xmpp, REQUEST)
            assert focus.asked == []
            assert (await ask_focus(connection, auto, REQUEST)).ready
            assert (await ask_focus(connection, http, REQUEST)).ready
            focus.status = 404
            with pytest.raises(FocusUnavailableError, match=r"focus\.meet\.jitsi answered"):
                await ask_focus(connection, auto, REQUEST)
            assert len(focus.asked) == 3
    finally:
        await connection.close()
