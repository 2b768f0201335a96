"""The token (JWT) of a login: given, read from a file at each connect, or minted from the deployment's secret."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import jwt
from jwt.warnings import InsecureKeyLengthWarning

from bot.errors import AuthenticationError, AuthExpiredError, ConfigurationError

#: Clocks of bot and server differ: a token counts from a minute ago on.
CLOCK_SKEW = 60


class TokenSource(Protocol):
    """Gives the token of one connect. ``setting`` names where it comes from, for errors."""

    @property
    def setting(self) -> str:
        """The setting that a user changes when the token is refused."""
        ...

    def __call__(self) -> str:
        """The token now."""
        ...


@dataclass(frozen=True, slots=True)
class GivenToken:
    """The same token at each connect."""

    token: str = field(repr=False)
    setting: str = "JITSI_TOKEN"

    def __call__(self) -> str:
        """The token."""
        return self.token


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A file that somebody else renews; read at each connect."""

    path: Path
    setting: str = "JITSI_TOKEN_FILE"

    def __call__(self) -> str:
        """The file's content. Raises ConfigurationError."""
        try:
            token = self.path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{self.path} holds no token: {error}", hint=self.setting) from error
        if not token:
            raise ConfigurationError(f"{self.path} is empty", hint=self.setting)
        return token


@dataclass(frozen=True, slots=True)
class MintedToken:
    """A new token at each connect, signed with the secret that the server knows (HS256).

    ``subject`` is the deployment's domain, ``room`` the room's name in lower case or ``*``; ``lifetime`` seconds.
    """

    app_id: str
    secret: str = field(repr=False)
    room: str
    subject: str
    name: str = ""
    email: str | None = None
    issuer: str | None = None
    audience: str | None = None
    lifetime: float = 3600.0
    now: Callable[[], float] = time.time
    setting: str = "JITSI_JWT_APP_SECRET"

    def __call__(self) -> str:
        """A token that counts from now on."""
        with warnings.catch_warnings():
            # The secret's length is the deployment's choice; the server would take no other.
            warnings.simplefilter("ignore", InsecureKeyLengthWarning)
            return jwt.encode(self.claims(self.now()), self.secret, algorithm="HS256")

    def claims(self, now: float) -> dict[str, Any]:
        """The claims that Jitsi's Prosody reads (its token/util.lib.lua); ``now`` in seconds since 1970."""
        user = {"name": self.name} | ({"email": self.email} if self.email else {})
        return {
            "aud": self.audience or self.app_id,
            "iss": self.issuer or self.app_id,
            "sub": self.subject,
            "room": self.room,
            "nbf": int(now) - CLOCK_SKEW,
            "exp": int(now + self.lifetime),
            "context": {"user": user},
        }


def expires(token: str) -> float | None:
    """When ``token`` ends, in seconds since 1970, by its own unproved word; None where it does not say."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return None
    value = claims.get("exp")
    return float(value) if isinstance(value, int | float) else None


def refused_token(token: str, source: TokenSource, said: str, now: float) -> AuthenticationError:
    """The error of a login refused with ``token``; ``said`` is the server's text, ``now`` our clock."""
    because = f": {said}" if said else ""
    end = expires(token)
    # luajwtjitsi's text; by the clock where the server says nothing.
    if "acceptable by exp" in said or (not said and end is not None and end <= now):
        return AuthExpiredError(f"The token has expired{because}", hint=f"renew {source.setting}")
    return AuthenticationError(f"The server refused the token{because}", hint=source.setting)
