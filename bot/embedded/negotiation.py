"""The way in of one client: stream, SASL, and again stream (RFC 7395, RFC 6120 sections 4 and 6). Pure."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Mapping
from enum import StrEnum
from xml.etree import ElementTree as ET

from bot.embedded.stanza import (
    NS_BIND,
    NS_CAPS,
    NS_CLIENT,
    NS_FRAMING,
    NS_SASL,
    NS_SESSION,
    NS_SM,
    NS_STREAM,
    NS_STREAM_ERRORS,
    XML_LANG,
    child,
    element,
)

OPEN = f"{{{NS_FRAMING}}}open"
CLOSE = f"{{{NS_FRAMING}}}close"
AUTH = f"{{{NS_SASL}}}auth"


class Phase(StrEnum):
    """How far a connection has come."""

    OPENING = "opening"
    AUTHENTICATING = "authenticating"
    REOPENING = "reopening"
    BINDING = "binding"
    BOUND = "bound"


class StreamError(Exception):
    """The stream has to end with this condition (RFC 6120 section 4.9.3)."""

    def __init__(self, condition: str, text: str | None = None) -> None:
        super().__init__(text or condition)
        self.condition = condition
        self.text = text

    def element(self) -> ET.Element:
        """The ``<stream:error/>`` to send before the end."""
        error = ET.Element(f"{{{NS_STREAM}}}error")
        child(error, self.condition, NS_STREAM_ERRORS)
        if self.text:
            child(error, "text", NS_STREAM_ERRORS).text = self.text
        return error


class Negotiation:
    """Stream headers and SASL of one connection, until a resource may be bound or a stream resumed."""

    def __init__(self, domain: str, accounts: Mapping[str, str], new_id: Callable[[], str]) -> None:
        self.phase = Phase.OPENING
        #: Local part of the address, known when SASL has succeeded.
        self.user: str | None = None
        self._domain = domain
        self._accounts = accounts
        self._new_id = new_id
        #: Gives the user name of an anonymous login.
        self.new_user = new_id

    def feed(self, frame: ET.Element) -> list[ET.Element]:
        """What to answer to a frame that comes before binding; raises StreamError."""
        if frame.tag == OPEN and self.phase in {Phase.OPENING, Phase.REOPENING}:
            return self._open(frame)
        if frame.tag == AUTH and self.phase is Phase.AUTHENTICATING:
            return self._authenticate(frame)
        raise StreamError(
            "not-authorized", f"<{frame.tag.rpartition('}')[2]}/> is not expected while {self.phase}"
        )

    def _open(self, frame: ET.Element) -> list[ET.Element]:
        target = frame.get("to")
        if target != self._domain:
            raise StreamError("host-unknown", f"This server does not serve {target}")
        header = element(
            "open",
            NS_FRAMING,
            {XML_LANG: "en", "id": self._new_id(), "version": "1.0", "from": self._domain},
        )
        if self.phase is Phase.OPENING:
            self.phase = Phase.AUTHENTICATING
            return [header, self._mechanisms()]
        self.phase = Phase.BINDING
        return [header, bind_features()]

    def _mechanisms(self) -> ET.Element:
        features = ET.Element(f"{{{NS_STREAM}}}features")
        mechanisms = child(features, "mechanisms", NS_SASL)
        child(mechanisms, "mechanism", NS_SASL).text = "ANONYMOUS"
        if self._accounts:
            child(mechanisms, "mechanism", NS_SASL).text = "PLAIN"
        return features

    def _authenticate(self, frame: ET.Element) -> list[ET.Element]:
        mechanism = frame.get("mechanism", "")
        if mechanism == "ANONYMOUS":
            self.user = self.new_user()
        elif mechanism == "PLAIN" and self._accounts:
            try:
                self.user = self._plain(base64.b64decode(frame.text or "", validate=True).decode())
            except (binascii.Error, UnicodeDecodeError):
                return [_failure("incorrect-encoding")]
        else:
            return [_failure("invalid-mechanism")]
        if self.user is None:
            return [_failure("not-authorized", "Unable to authorize you with the credentials you've sent.")]
        self.phase = Phase.REOPENING
        return [element("success", NS_SASL)]

    def _plain(self, message: str) -> str | None:
        """User of a PLAIN message ``[authzid] NUL authcid NUL passwd`` (RFC 4616), None if it is not right."""
        parts = message.split("\0")
        known = self._accounts.get(parts[1]) if len(parts) == 3 else None
        right = known is not None and hmac.compare_digest(known.encode(), parts[2].encode())
        return parts[1] if right else None


def _failure(condition: str, text: str | None = None) -> ET.Element:
    failure = element("failure", NS_SASL)
    child(failure, condition, NS_SASL)
    if text:
        child(failure, "text", NS_SASL).text = text
    return failure


def bind_features() -> ET.Element:
    """What the server offers after SASL, as Prosody lists it."""
    features = ET.Element(f"{{{NS_STREAM}}}features")
    child(features, "sub", "urn:xmpp:features:pre-approval")
    for name, namespace, need in (
        ("sm", "urn:xmpp:sm:2", "optional"),
        ("sm", NS_SM, "optional"),
        ("bind", NS_BIND, "required"),
        ("session", NS_SESSION, "optional"),
    ):
        child(child(features, name, namespace), need, namespace)
    child(features, "c", NS_CAPS, ver="Dw1Y66ivPcfQxspTSrKH3yt7Nhc=", hash="sha-1", node="http://prosody.im")
    child(features, "ver", "urn:xmpp:features:rosterver")
    return features


def bound(request: ET.Element, jid: str) -> ET.Element:
    """The answer to a bind request (RFC 6120 section 7.6.1); it has no address yet."""
    answer = element("iq", NS_CLIENT, {"type": "result", "id": request.get("id", "")})
    child(child(answer, "bind", NS_BIND), "jid", NS_BIND).text = jid
    return answer
