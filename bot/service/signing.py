"""How what is posted to a URL of the user's is signed. Pure."""

from __future__ import annotations

import hashlib
import hmac

#: Headers: the signature, when it was made (Unix seconds), and what is the same in each try of one message.
SIGNATURE, STAMP, IDENTITY = "X-Jitsi-Bot-Signature", "X-Jitsi-Bot-Timestamp", "X-Jitsi-Bot-Id"


def signature(secret: str, stamp: str, body: bytes) -> str:
    """``sha256=`` and the HMAC of stamp, a full stop and body: who checks the stamp is safe from repetition."""
    return "sha256=" + hmac.new(secret.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def signed_headers(body: bytes, identity: str, secret: str | None, now: float) -> dict[str, str]:
    """The headers of a message of JSON that is posted at ``now`` (Unix seconds)."""
    stamp = str(int(now))
    headers = {"Content-Type": "application/json", STAMP: stamp, IDENTITY: identity}
    if secret is not None:
        headers[SIGNATURE] = signature(secret, stamp, body)
    return headers


def may_succeed_later(status: int) -> bool:
    """Whether an HTTP status asks to try again; what is refused otherwise is refused again (RFC 9110)."""
    return status in (408, 425, 429) or status >= 500
