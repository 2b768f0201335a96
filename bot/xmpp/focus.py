"""The conference request to the focus (Jicofo), by IQ."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field

from bot.errors import BotError, FocusError
from bot.xmpp.connection import XmppConnection
from bot.xmpp.stanza_errors import IqTimeoutError, StanzaError

NS = "http://jitsi.org/protocol/focus"
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


async def request_conference(
    connection: XmppConnection,
    focus_jid: str,
    room_jid: str,
    *,
    machine_uid: str,
    properties: Mapping[str, str] | None = None,
    timeout: float = 10.0,
) -> ConferenceAnswer:
    """Ask the focus to come to the room. Raises FocusError (final) or FocusUnavailableError (ask again)."""
    request = ET.Element(f"{{{NS}}}conference", {"room": room_jid, "machine-uid": machine_uid})
    for name, value in (properties or {"rtcstatsEnabled": "false"}).items():
        ET.SubElement(request, f"{{{NS}}}property", name=name, value=value)
    try:
        answer = await connection.iq("set", focus_jid, request, timeout)
    except IqTimeoutError as error:
        raise FocusUnavailableError(str(error)) from error
    except StanzaError as error:
        if error.condition in _PASSING:
            raise FocusUnavailableError(f"{focus_jid} answered {error.condition}") from error
        raise FocusError(
            f"The focus refused the conference: {error}",
            hint="not-authorized asks for an account (JITSI_USERNAME) or a token (JITSI_TOKEN)",
        ) from error
    return parse_answer(answer)


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
