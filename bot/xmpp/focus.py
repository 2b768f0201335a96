"""The conference request to the focus (Jicofo): by IQ, or by HTTP as web clients do it where that is set up."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode, urlsplit, urlunsplit

import aiohttp

from bot.errors import BotError, FocusError, NotAuthorizedError, VisitorRedirectError
from bot.xmpp.connection import XmppConnection
from bot.xmpp.stanza_errors import IqTimeoutError, StanzaError
from bot.xmpp.visitors import VERSION, VERSION_PROPERTY
from bot.xmpp.websocket import ssl_context

NS = "http://jitsi.org/protocol/focus"
HTTP_PATH = "/conference-request/v1"
#: Longest answer that is read.
MAX_ANSWER = 64 * 1024
#: Errors that say nothing about us: the focus is down, starting, or not reachable yet.
_PASSING = frozenset(
    {
        "service-unavailable",
        "remote-server-not-found",
        "remote-server-timeout",
        "recipient-unavailable",
        "item-not-found",
        "internal-server-error",
        "resource-constraint",
        "undefined-condition",
    }
)


class FocusUnavailableError(BotError):
    """The focus does not answer (yet). The participant joins all the same and asks again."""

    code = "focus_unavailable"
    retryable = True


@dataclass(frozen=True, slots=True)
class ConferenceAnswer:
    """What the focus says. ``vnode`` names the visitor node that it redirects to, where it does."""

    ready: bool
    focus_jid: str
    properties: Mapping[str, str] = field(default_factory=dict)
    vnode: str | None = None
    session_id: str | None = None

    @property
    def live(self) -> bool:
        """Whether the meeting takes visitors by now; it does unless the focus says no, as with web clients."""
        return self.properties.get("live") != "false"


@dataclass(frozen=True, slots=True)
class ConferenceRequest:
    """What is asked. ``machine_uid`` tells a machine's sessions from others'; ``token`` is the JWT of the login.

    With ``visitors`` the focus may send us to a visitor node; without it, it lets us into the main room.
    """

    room: str
    machine_uid: str
    token: str | None = None
    visitors: bool = False

    @property
    def properties(self) -> Mapping[str, str]:
        """What the focus shall know of us and want of the conference."""
        return {"rtcstatsEnabled": "false"} | ({VERSION_PROPERTY: VERSION} if self.visitors else {})

    def to_xml(self) -> ET.Element:
        """The ``<conference/>`` of an IQ."""
        attributes = {"room": self.room, "machine-uid": self.machine_uid}
        request = ET.Element(f"{{{NS}}}conference", attributes | ({"token": self.token} if self.token else {}))
        for name, value in self.properties.items():
            ET.SubElement(request, f"{{{NS}}}property", name=name, value=value)
        return request

    def to_json(self) -> dict[str, Any]:
        """The body of an HTTP request; the token goes into its header."""
        return {"room": self.room, "machineUid": self.machine_uid, "properties": dict(self.properties)}


@dataclass(frozen=True, slots=True)
class FocusAddress:
    """Where the focus is asked. ``how``: ``xmpp``, ``http``, or ``auto`` (HTTP where XMPP has no answer)."""

    jid: str
    url: str
    how: Literal["auto", "xmpp", "http"] = "auto"
    timeout: float = 10.0
    ca_file: Path | None = None


async def ask_focus(
    connection: XmppConnection, address: FocusAddress, request: ConferenceRequest
) -> ConferenceAnswer:
    """Ask the focus to come to the room. Raises FocusError (final) or FocusUnavailableError (ask again)."""
    if address.how == "http":
        return await request_conference_by_http(address, request)
    try:
        return await request_conference(connection, address, request)
    except FocusUnavailableError as error:
        if address.how == "xmpp":
            raise
        try:
            return await request_conference_by_http(address, request)
        except FocusUnavailableError:
            raise error from None


async def request_conference(
    connection: XmppConnection, address: FocusAddress, request: ConferenceRequest
) -> ConferenceAnswer:
    """Ask by IQ."""
    try:
        answer = await connection.iq("set", address.jid, request.to_xml(), address.timeout)
    except IqTimeoutError as error:
        raise FocusUnavailableError(str(error)) from error
    except StanzaError as error:
        raise refused(address.jid, error) from error
    return _accepted(parse_answer(answer))


async def request_conference_by_http(address: FocusAddress, request: ConferenceRequest) -> ConferenceAnswer:
    """Ask by HTTP."""
    headers = {"Authorization": f"Bearer {request.token}"} if request.token else {}
    limit, url = aiohttp.ClientTimeout(total=address.timeout), address.url
    try:
        async with (
            aiohttp.ClientSession(timeout=limit) as http,
            http.post(url, json=request.to_json(), headers=headers, ssl=ssl_context(address.ca_file)) as response,
        ):
            text = (await response.content.read(MAX_ANSWER)).decode(errors="replace")
            status = response.status
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise FocusUnavailableError(f"{url} does not answer: {error or type(error).__name__}") from error
    return _accepted(parse_http_answer(url, status, text))


def conference_url(ws_url: str, room: str) -> str:
    """Where the web container takes conference requests for ``room``, beside the WebSocket of ``ws_url``."""
    parts = urlsplit(ws_url.strip())
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme.lower(), parts.scheme.lower())
    return urlunsplit((scheme, parts.netloc, HTTP_PATH, urlencode({"room": room}), ""))


def refused(focus_jid: str, error: StanzaError) -> BotError:
    """What a stanza error of the focus means."""
    if error.condition in _PASSING:
        return FocusUnavailableError(f"{focus_jid} answered {error.condition}")
    if error.condition == "not-authorized":
        return _not_authorized(error.text)
    return FocusError(f"The focus refused the conference: {error}")


def _not_authorized(said: str) -> NotAuthorizedError:
    return NotAuthorizedError(
        f"The focus opens this room only for who has logged in{f': {said}' if said else ''}",
        hint="an account (JITSI_USERNAME) or a token (JITSI_TOKEN), or come when somebody else has opened it",
    )


def _accepted(answer: ConferenceAnswer) -> ConferenceAnswer:
    """An answer that is not ready counts for nothing but that, as with web clients."""
    if answer.vnode is not None and answer.ready:
        raise VisitorRedirectError(
            f"The focus redirects to the visitor node {answer.vnode} ({answer.focus_jid})", vnode=answer.vnode
        )
    return answer


def parse_http_answer(url: str, status: int, text: str) -> ConferenceAnswer:
    """Read an answer of the HTTP request; ``text`` is its body."""
    if status == 403:
        raise _not_authorized("")
    if status == 400:
        raise FocusError(f"The focus refused the conference: {text[:200]}")
    try:
        found = json.loads(text) if status == 200 else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or "ready" not in found:
        raise FocusUnavailableError(f"{url} answered HTTP {status} without a conference")
    properties = found.get("properties")
    return ConferenceAnswer(
        ready=found["ready"] is True,
        focus_jid=str(found.get("focusJid", "")),
        properties={str(key): str(value) for key, value in properties.items()}
        if isinstance(properties, dict)
        else {},
        vnode=str(found["vnode"]) if found.get("vnode") else None,
        session_id=str(found["sessionId"]) if found.get("sessionId") else None,
    )


def parse_answer(answer: ET.Element | None) -> ConferenceAnswer:
    """Read the ``<conference/>`` of the result; raises FocusUnavailableError where there is none."""
    if answer is None or answer.tag != f"{{{NS}}}conference":
        raise FocusUnavailableError("the focus answered without a <conference/>")
    return ConferenceAnswer(
        ready=answer.get("ready") == "true",
        focus_jid=answer.get("focusjid", ""),
        properties={item.get("name", ""): item.get("value", "") for item in answer.iter(f"{{{NS}}}property")},
        vnode=answer.get("vnode"),
        session_id=answer.get("session-id"),
    )
