"""Keeps load off public services. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit

from bot.errors import ConfigurationError

#: Domains of services that are everybody's; their subdomains, too.
PUBLIC = ("meet.jit.si", "8x8.vc", "jit.si")
#: As many as a meeting of friends has.
ALLOWED = 5


def public_service(url: str) -> str | None:
    """The public service that ``url`` belongs to; None where it is none."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    return next((domain for domain in PUBLIC if host == domain or host.endswith(f".{domain}")), None)


def refuse_public(url: str, participants: int, *, own: bool = False) -> None:
    """Raise ConfigurationError for more than a handful on a public service, unless it is the user's own."""
    service = public_service(url)
    if service and participants > ALLOWED and not own:
        raise ConfigurationError(
            f"{service} is a public service: {participants} participants are refused there, {ALLOWED} are allowed",
            hint="--i-own-this-server, if it is yours",
        )
