"""What a Jingle session tells its owner to do, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass

from bot.jingle.model import Jingle, Reason, SourceMap
from bot.jingle.sources import Problem


@dataclass(frozen=True, slots=True)
class ReplyResult:
    """Answer the IQ with an empty result."""


@dataclass(frozen=True, slots=True)
class ReplyError:
    """Answer the IQ with a stanza error (RFC 6120 section 8.3.3).

    ``application`` is the name of the Jingle error beside it (XEP-0166 section 10, ``urn:xmpp:jingle:errors:1``).
    """

    condition: str
    text: str
    application: str | None = None
    type: str = "cancel"


@dataclass(frozen=True, slots=True)
class OfferReceived:
    """A session is offered: answer with ``JingleSession.accept`` or ``terminate``."""

    offer: Jingle


@dataclass(frozen=True, slots=True)
class SourcesAdded:
    """Remote sources that are new or changed; ``problems`` are those that were not simply applied."""

    sources: SourceMap
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class SourcesRemoved:
    """Remote sources that are gone."""

    sources: SourceMap
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class TransportReplaced:
    """Another bridge: connect to the transport of ``offer``, then ``JingleSession.transport_accept``."""

    offer: Jingle


@dataclass(frozen=True, slots=True)
class TransportInfo:
    """More candidates, or new credentials, of the present transport."""

    jingle: Jingle


@dataclass(frozen=True, slots=True)
class SessionTerminated:
    """The session is over. ``replaced`` is set when another offer took its place in the same breath."""

    sid: str
    reason: Reason | None = None
    restart: bool = False
    replaced: bool = False


Output = (
    ReplyResult
    | ReplyError
    | OfferReceived
    | SourcesAdded
    | SourcesRemoved
    | TransportReplaced
    | TransportInfo
    | SessionTerminated
)
