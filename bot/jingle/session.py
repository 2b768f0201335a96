"""One participant's media session with the focus, as a pure state machine (XEP-0166 section 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Final, TypedDict

from bot.jingle.answer import UnsupportedOfferError, build_answer, bundle_transport
from bot.jingle.model import Action, Jingle, MediaSources, Reason, SourceMap, Transport
from bot.jingle.outputs import (
    OfferReceived,
    Output,
    ReplyError,
    ReplyResult,
    SessionTerminated,
    SourcesAdded,
    SourcesRemoved,
    TransportInfo,
    TransportReplaced,
)
from bot.jingle.sources import SourceTable

__all__ = [
    "FOCUS_NICK",
    "IllegalTransitionError",
    "JingleSession",
    "OfferReceived",
    "Output",
    "ReplyError",
    "ReplyResult",
    "SessionState",
    "SessionTerminated",
    "SourcesAdded",
    "SourcesRemoved",
    "TransportInfo",
    "TransportReplaced",
    "is_focus",
    "refuse_p2p",
]

#: The nick of the focus in every room; sessions offered by others are direct (p2p) ones.
FOCUS_NICK: Final = "focus"


class SessionState(StrEnum):
    """idle → pending (offer received) → active (accepted) → ended; an offer begins anew from any of them."""

    IDLE = "idle"
    PENDING = "pending"
    ACTIVE = "active"
    ENDED = "ended"


class IllegalTransitionError(RuntimeError):
    """A stanza was asked for that the state of the session does not allow: a defect of the caller."""


class Choices(TypedDict, total=False):
    """How offers are answered: see ``build_answer``."""

    audio_codecs: Sequence[str]
    video_codecs: Sequence[str]
    receive_codecs: Sequence[str] | None
    data: bool


def is_focus(jid: str) -> bool:
    """Whether the occupant ``jid`` (``room@muc/nick``) is the focus."""
    return jid.rpartition("/")[2] == FOCUS_NICK


def refuse_p2p(offer: Jingle, *, responder: str | None = None) -> Jingle:
    """The session-terminate that declines a direct session; send it to who offered, after an empty result."""
    return Jingle(
        action=Action.SESSION_TERMINATE,
        sid=offer.sid,
        initiator=offer.initiator,
        responder=responder,
        reason=Reason("decline", "This participant takes no direct sessions"),
    )


class JingleSession:
    """The session of one participant. Feed it what the focus sends; it builds what the participant sends.

    ``responder`` is our full JID. Stanzas of others than the focus are not for here (see ``is_focus``).
    """

    def __init__(self, *, responder: str, max_sources: int = 10_000) -> None:
        self.responder = responder
        self.state = SessionState.IDLE
        self.offer: Jingle | None = None
        #: Sources of the others, as the focus signals them.
        self.remote = SourceTable(max_sources)
        #: Sources of ours that the focus knows of.
        self.own = SourceMap()
        #: When the present offer came, and when the focus last spoke, on the caller's clock in seconds.
        self.offered_at: float | None = None
        self.heard_at: float | None = None
        self._choices: Choices = {}
        self._replacing = False

    def __repr__(self) -> str:
        return f"JingleSession({self.state.value}, sid={self.sid}, remote={self.remote!r})"

    @property
    def sid(self) -> str | None:
        """Id of the present (or last) session, None before the first."""
        return self.offer.sid if self.offer else None

    # --- what the focus sends ---

    def feed(self, jingle: Jingle, now: float) -> list[Output]:
        """Take a stanza of the focus; exactly one output is the reply, and it comes first."""
        self.heard_at = now
        if jingle.action == Action.SESSION_INITIATE:
            return self._on_offer(jingle, now)
        handler = self._handlers().get(jingle.action)
        if handler is None:
            return [ReplyError("feature-not-implemented", f"Unknown action '{jingle.action[:40]}'")]
        if self.state not in {SessionState.PENDING, SessionState.ACTIVE} or jingle.sid != self.sid:
            return [ReplyError("item-not-found", f"No session '{jingle.sid[:40]}'", "unknown-session")]
        return handler(jingle)

    def _handlers(self) -> dict[str, Callable[[Jingle], list[Output]]]:
        return {
            Action.SESSION_INFO: self._on_info,
            Action.SESSION_TERMINATE: self._on_terminate,
            Action.SOURCE_ADD: self._on_source_add,
            Action.SOURCE_REMOVE: self._on_source_remove,
            Action.TRANSPORT_INFO: lambda jingle: [ReplyResult(), TransportInfo(jingle)],
            Action.TRANSPORT_REPLACE: self._on_transport_replace,
            Action.SESSION_ACCEPT: _out_of_order,
            Action.TRANSPORT_ACCEPT: _out_of_order,
            Action.TRANSPORT_REJECT: _out_of_order,
        }

    def _on_offer(self, offer: Jingle, now: float) -> list[Output]:
        if offer.sid == self.sid:
            return _out_of_order(offer)
        if refusal := _unusable(offer):
            return [refusal]
        outputs: list[Output] = [ReplyResult()]
        if self.state in {SessionState.PENDING, SessionState.ACTIVE}:
            outputs.append(SessionTerminated(str(self.sid), replaced=True))
            self.end()
        self.offer, self.offered_at, self.state = offer, now, SessionState.PENDING
        self.remote.add(offer.sources)
        return [*outputs, OfferReceived(offer)]

    def _on_terminate(self, jingle: Jingle) -> list[Output]:
        self.end()
        return [ReplyResult(), SessionTerminated(jingle.sid, jingle.reason, restart=bool(jingle.restart))]

    def _on_info(self, jingle: Jingle) -> list[Output]:
        """An empty session-info is a ping; payloads are for others (XEP-0166 section 6.8)."""
        if not jingle.info:
            return [ReplyResult()]
        text = f"Unknown session information '{jingle.info[0][:80]}'"
        return [ReplyError("feature-not-implemented", text, "unsupported-info", "modify")]

    def _on_source_add(self, jingle: Jingle) -> list[Output]:
        change = self.remote.add(jingle.sources)
        return [ReplyResult(), SourcesAdded(change.sources, change.problems)]

    def _on_source_remove(self, jingle: Jingle) -> list[Output]:
        change = self.remote.remove(jingle.sources)
        return [ReplyResult(), SourcesRemoved(change.sources, change.problems)]

    def _on_transport_replace(self, jingle: Jingle) -> list[Output]:
        if self.state is not SessionState.ACTIVE:
            return _out_of_order(jingle)
        if refusal := _unusable(jingle):
            return [refusal]
        # The stanza has the shape of an offer and tells all sources anew; who began the session does not change.
        self.offer = replace(jingle, initiator=self._present().initiator)
        self.remote.clear()
        self.remote.add(jingle.sources)
        self._replacing = True
        return [ReplyResult(), TransportReplaced(self.offer)]

    # --- what we send ---

    def accept(self, transport: Transport, own: SourceMap, choices: Choices | None = None) -> Jingle:
        """The session-accept. Raises UnsupportedOfferError (the session stays pending: terminate it then)."""
        self._need(SessionState.PENDING, doing="accept")
        self._choices = choices or {}
        answer = self._answer(transport, own, Action.SESSION_ACCEPT)
        self.state, self.own = SessionState.ACTIVE, answer.sources
        return answer

    def transport_accept(self, transport: Transport) -> Jingle:
        """The transport-accept, without our sources: Jicofo has them, and refuses what names them again."""
        self._need(SessionState.ACTIVE, doing="accept a transport")
        if not self._replacing:
            raise IllegalTransitionError("no transport was offered")
        answer = self._answer(transport, SourceMap(), Action.TRANSPORT_ACCEPT)
        self._replacing = False
        return answer

    def source_add(self, sources: SourceMap) -> Jingle:
        """Tell the focus of further sources of ours."""
        self._need(SessionState.ACTIVE, doing="add sources")
        self.own = self.own.merged(sources)
        return self._stanza(Action.SOURCE_ADD, sources)

    def source_remove(self, sources: SourceMap) -> Jingle:
        """Tell the focus that sources of ours are gone."""
        self._need(SessionState.ACTIVE, doing="remove sources")
        self.own = _without(self.own, sources)
        return self._stanza(Action.SOURCE_REMOVE, sources)

    def terminate(self, reason: str = "success", text: str | None = None, *, restart: bool = False) -> Jingle:
        """End the session; ``restart`` asks the focus for another one (at most 5 a minute, 5 s apart)."""
        self._need(SessionState.PENDING, SessionState.ACTIVE, doing="terminate")
        stanza = replace(
            self._stanza(Action.SESSION_TERMINATE, SourceMap()),
            reason=Reason(reason, text),
            bridge_session_id=self._present().bridge_session_id,
            restart=restart,
        )
        self.end()
        return stanza

    def end(self) -> None:
        """End without a stanza: the room or the connection is gone. Does nothing before the first offer."""
        if self.state is not SessionState.IDLE:
            self.state = SessionState.ENDED
        self.remote.clear()
        self.own, self._replacing = SourceMap(), False

    def _need(self, *states: SessionState, doing: str) -> None:
        if self.state not in states:
            raise IllegalTransitionError(f"can't {doing}: the session is {self.state.value}")

    def _present(self) -> Jingle:
        assert self.offer is not None
        return self.offer

    def _answer(self, transport: Transport, own: SourceMap, action: Action) -> Jingle:
        return build_answer(
            self._present(), responder=self.responder, transport=transport, own=own, action=action, **self._choices
        )

    def _stanza(self, action: Action, sources: SourceMap) -> Jingle:
        offer = self._present()
        return Jingle(action, offer.sid, offer.initiator, self.responder, sources=sources)


def _unusable(offer: Jingle) -> ReplyError | None:
    """The refusal of an offer that nothing can be made of, None for one that is fine."""
    if not any(content.media != "application" for content in offer.contents):
        return ReplyError("bad-request", f"{offer.action} lacks audio and video", type="modify")
    try:
        bundle_transport(offer)
    except UnsupportedOfferError as error:
        return ReplyError("bad-request", error.message, type="modify")
    return None


def _out_of_order(jingle: Jingle) -> list[Output]:
    return [ReplyError("unexpected-request", f"{jingle.action} out of order", "out-of-order", "wait")]


def _without(own: SourceMap, gone: SourceMap) -> SourceMap:
    """``own`` less the SSRCs of ``gone`` and the groups that hold one of them."""
    return SourceMap(_less(own.audio, gone.audio), _less(own.video, gone.video))


def _less(own: MediaSources, gone: MediaSources) -> MediaSources:
    ssrcs = {source.ssrc for source in gone.sources}
    return MediaSources(
        tuple(source for source in own.sources if source.ssrc not in ssrcs),
        tuple(group for group in own.groups if group not in gone.groups and ssrcs.isdisjoint(group.ssrcs)),
    )
