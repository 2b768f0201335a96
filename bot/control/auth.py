"""Who may do what: bearer tokens (RFC 6750) with scopes. Pure."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from enum import StrEnum

#: RFC 6750, section 2.1: b64token.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
#: Shorter ones could be guessed over the network.
MIN_LENGTH = 16


class Scope(StrEnum):
    """What a token is for. Who may operate may read."""

    READ = "read"
    OPERATE = "operate"


def split_tokens(text: str) -> tuple[str, ...]:
    """The tokens of a setting. Raises ValueError, without the token, for one that can't be sent or is short."""
    found = tuple(item for item in re.split(r"[\s,]+", text) if item)
    for number, item in enumerate(found, 1):
        if not _TOKEN.fullmatch(item):
            raise ValueError(f"token {number} has characters that no bearer token has (RFC 6750)")
        if len(item) < MIN_LENGTH:
            raise ValueError(f"token {number} has fewer than {MIN_LENGTH} characters")
    return found


class Tokens:
    """All tokens that are known; none at all leaves the API open."""

    def __init__(self, read: Iterable[str] = (), operate: Iterable[str] = ()) -> None:
        self._known = [(_digest(item), Scope.OPERATE) for item in operate]
        self._known += [(_digest(item), Scope.READ) for item in read]

    def __repr__(self) -> str:
        return f"<{len(self._known)} tokens>"

    @property
    def open(self) -> bool:
        """Whether nobody needs a token."""
        return not self._known

    def scope_of(self, authorization: str | None) -> Scope | None:
        """The scope of an ``Authorization`` header's token, None where it has none that is known.

        Digests of one length are compared, all of them each time: how long it takes tells nothing.
        """
        kind, _, token = (authorization or "").partition(" ")
        if kind.lower() != "bearer":
            return None
        given = _digest(token.strip())
        found = [scope for digest, scope in self._known if hmac.compare_digest(digest, given)]
        return found[0] if found else None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def allows(has: Scope, needed: Scope) -> bool:
    """Whether ``has`` is enough."""
    return has is Scope.OPERATE or needed is Scope.READ
