"""The XMPP server without its sockets: connections, sessions, resumption, routing. Pure (RFC 6120, XEP-0198)."""

from __future__ import annotations

import secrets
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from bot.embedded.config import EmbeddedConfig
from bot.embedded.disco import COMPONENTS, answer_for_component, answer_for_domain
from bot.embedded.management import StreamManagement, TooManyAckedError
from bot.embedded.muc import MucService
from bot.embedded.negotiation import CLOSE, OPEN, Negotiation, Phase, StreamError, bound
from bot.embedded.stanza import (
    COUNTED,
    IQ,
    MAX_JID_PART,
    NS_BIND,
    NS_FRAMING,
    NS_SM,
    NS_STANZAS,
    PRESENCE,
    XML_LANG,
    FrameError,
    Jid,
    child,
    element,
    error_reply,
    is_request,
    parse_frame,
    payload_of,
    serialize,
)
from bot.embedded.visitors import SUB_DOMAIN

_BIND = f"{{{NS_BIND}}}bind"


@dataclass(frozen=True, slots=True)
class Write:
    """Send this text frame."""

    connection: int
    text: str


@dataclass(frozen=True, slots=True)
class Close:
    """Close the WebSocket after what was written (1000)."""

    connection: int


@dataclass(frozen=True, slots=True)
class ToFocus:
    """Hand this stanza to the focus."""

    stanza: ET.Element


@dataclass(frozen=True, slots=True)
class Failed:
    """A stream ended by a stream error (RFC 6120 section 4.9): say so once."""

    connection: int
    condition: str
    text: str


Output = Write | Close | ToFocus | Failed
#: Types of an IQ (RFC 6120 section 8.2.3).
_IQ_TYPES = frozenset({"get", "set", "result", "error"})


@dataclass(eq=False, slots=True)
class Session:
    """A bound resource. It outlives its connection while it can be resumed, until ``deadline``."""

    jid: str
    connection: int | None
    management: StreamManagement | None = None
    deadline: float | None = None


@dataclass(eq=False, slots=True)
class _Connection:
    id: int
    negotiation: Negotiation
    domain: str
    session: Session | None = None


def new_resource() -> str:
    """A random resource, as Prosody makes them."""
    return secrets.token_urlsafe(9)


class XmppCore:
    """``feed(connection, frame) -> outputs``; ``lost`` and ``tick`` take the time (seconds, monotonic)."""

    def __init__(
        self,
        config: EmbeddedConfig,
        *,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self.muc = MucService(config, new_id=new_id)
        #: Whether somebody takes what :class:`ToFocus` carries.
        self.focus_attached = False
        self._new_id = new_id
        self._wall = wall
        self._connections: dict[int, _Connection] = {}
        self._next_connection = 1
        self._sessions: dict[str, Session] = {}
        self._resumable: dict[str, Session] = {}
        self._queue: deque[ET.Element] = deque()
        self._outputs: list[Output] = []

    @property
    def sessions(self) -> tuple[str, ...]:
        """Full addresses of those bound, connected or waiting to resume."""
        return tuple(self._sessions)

    # --- connections ---------------------------------------------------------------------------------------

    def connect(self, vnode: str | None = None, username: str = "") -> int:
        """Register a new WebSocket; its number is what feed and lost take.

        ``vnode`` is the visitor node that it is for, and ``username`` the one that a promoted visitor asks for.
        """
        number = self._next_connection
        self._next_connection += 1
        domain = self.config.node_domain(vnode)
        accounts = self.config.accounts if domain == self.config.domain else {}
        negotiation = Negotiation(domain, accounts, self._new_id)
        negotiation.new_user = lambda: self.muc.visitors.login(username) or self._new_id()
        self._connections[number] = _Connection(number, negotiation, domain)
        return number

    def feed(self, connection: int, frame: str) -> list[Output]:
        """Take a text frame of a client."""
        state = self._connections.get(connection)
        if state is None:
            return []  # closed by us a moment ago
        try:
            self._frame(state, parse_frame(frame))
        except FrameError as error:
            self._fail(state, StreamError("not-well-formed", str(error)))
        except StreamError as error:
            self._fail(state, error)
        return self._flush()

    def lost(self, connection: int, now: float) -> list[Output]:
        """Note that a WebSocket is gone; its session waits to be resumed where it may be."""
        state = self._connections.pop(connection, None)
        if state is not None and state.session is not None:
            session = state.session
            session.connection = None
            if session.management is not None and session.management.resumable:
                session.deadline = now + self.config.resume_timeout
            else:
                self._end_session(session)
        return self._flush()

    def send(self, stanza: ET.Element) -> list[Output]:
        """Route a stanza of a service; it carries ``from`` and ``to``."""
        self._queue.append(stanza)
        return self._flush()

    def next_deadline(self) -> float | None:
        """When :meth:`tick` has something to do next, None if never."""
        deadlines = [session.deadline for session in self._resumable.values() if session.deadline is not None]
        return min(deadlines, default=None)

    def tick(self, now: float) -> list[Output]:
        """End the sessions that were not resumed in time."""
        for session in [s for s in self._resumable.values() if s.deadline is not None and s.deadline <= now]:
            self._end_session(session)
        return self._flush()

    # --- frames --------------------------------------------------------------------------------------------

    def _frame(self, state: _Connection, frame: ET.Element) -> None:
        phase = state.negotiation.phase
        if frame.tag == CLOSE:
            self._closed_by_client(state)
        elif phase is Phase.BOUND and state.session is not None:
            self._bound_frame(state, state.session, frame)
        elif phase is Phase.BINDING:
            self._binding_frame(state, frame)
        else:
            for answer in state.negotiation.feed(frame):
                self._write(state.id, answer)

    def _binding_frame(self, state: _Connection, frame: ET.Element) -> None:
        payload = payload_of(frame) if frame.tag == IQ else None
        if frame.tag == f"{{{NS_SM}}}resume":
            self._resume(state, frame)
        elif payload is not None and payload.tag == _BIND:
            self._bind(state, frame, payload)
        elif frame.tag == f"{{{NS_SM}}}enable":
            self._sm_failed(state.id, "unexpected-request")
        else:
            raise StreamError("not-authorized", "bind a resource first")

    def _bind(self, state: _Connection, frame: ET.Element, payload: ET.Element) -> None:
        resource = payload.findtext(f"{{{NS_BIND}}}resource") or new_resource()
        address = Jid(state.negotiation.user or "", state.domain, resource)
        if not address.fits:
            self._write(state.id, error_reply(frame, "bad-request", "The resource is too long"))
            return
        jid = str(address)
        if jid in self._sessions:
            self._replace(self._sessions[jid])
        state.session = self._sessions[jid] = Session(jid, state.id)
        state.negotiation.phase = Phase.BOUND
        self._write(state.id, bound(frame, jid))

    def _replace(self, session: Session) -> None:
        """A new connection takes the address of ``session`` (RFC 6120 section 7.7.2.2)."""
        if session.connection is not None:
            old = self._connections.pop(session.connection)
            self._write(old.id, StreamError("conflict", "Replaced by new connection").element())
            self._end_stream(old)
        self._end_session(session)

    def _bound_frame(self, state: _Connection, session: Session, frame: ET.Element) -> None:
        if frame.tag in COUNTED:
            if session.management is not None:
                session.management.count_received()
            frame.set("from", session.jid)
            self._queue.append(_checked(frame))
        elif frame.tag.startswith(f"{{{NS_SM}}}"):
            self._management_frame(state, session, frame)
        elif frame.tag == OPEN:
            raise StreamError("not-authorized", "the stream is open already")
        else:
            raise StreamError("unsupported-stanza-type", frame.tag)

    # --- stream management ---------------------------------------------------------------------------------

    def _management_frame(self, state: _Connection, session: Session, frame: ET.Element) -> None:
        name = frame.tag.rpartition("}")[2]
        management = session.management
        if name == "enable" and management is None:
            self._enable(state, session, frame)
        elif management is None or name not in {"r", "a"}:
            self._sm_failed(state.id, "unexpected-request")
        elif name == "r":
            self._write(state.id, element("a", NS_SM, {"h": str(management.handled)}))
        else:
            _acknowledge(management, frame)

    def _enable(self, state: _Connection, session: Session, frame: ET.Element) -> None:
        session.management = StreamManagement(
            new_resource(),
            ack_every=self.config.ack_every,
            limit=self.config.max_unacked,
            max_size=self.config.max_unacked_size,
        )
        enabled = element("enabled", NS_SM)
        if frame.get("resume") in {"true", "1"}:
            self._resumable[session.management.id] = session
            timeout = int(self.config.resume_timeout)
            enabled.attrib.update({"resume": "true", "id": session.management.id, "max": str(timeout)})
        else:
            session.management.resumable = False
        self._write(state.id, enabled)

    def _resume(self, state: _Connection, frame: ET.Element) -> None:
        session = self._resumable.get(frame.get("previd", ""))
        user = state.negotiation.user
        # Anonymous clients get a new user name with each SASL exchange, so the secret id alone has to do.
        foreign = session is not None and user in self.config.accounts and Jid.parse(session.jid).node != user
        if session is None or session.management is None or foreign or not session.management.resumable:
            self._sm_failed(state.id, "item-not-found")
            return
        _acknowledge(session.management, frame)
        if session.connection is not None:  # the old WebSocket is half-open: the new one takes over
            old = self._connections.pop(session.connection)
            old.session = None
            self._end_stream(old)
        session.connection, session.deadline = state.id, None
        state.session = session
        state.negotiation.phase = Phase.BOUND
        handled = {"h": str(session.management.handled), "previd": session.management.id}
        self._write(state.id, element("resumed", NS_SM, handled))
        for text in session.management.unacked:
            self._outputs.append(Write(state.id, text))
        self._write(state.id, element("r", NS_SM))

    def _sm_failed(self, connection: int, condition: str) -> None:
        failed = element("failed", NS_SM)
        child(failed, condition, NS_STANZAS)
        self._write(connection, failed)

    # --- the end -------------------------------------------------------------------------------------------

    def _closed_by_client(self, state: _Connection) -> None:
        session = state.session
        if session is not None and session.management is not None:
            self._write(state.id, element("a", NS_SM, {"h": str(session.management.handled)}))
        self._connections.pop(state.id, None)
        self._end_stream(state)
        if session is not None:
            self._end_session(session)

    def _fail(self, state: _Connection, error: StreamError) -> None:
        if state.negotiation.phase is Phase.OPENING:
            self._write(state.id, element("open", NS_FRAMING, {"version": "1.0", "from": state.domain}))
        self._write(state.id, error.element())
        self._outputs.append(Failed(state.id, error.condition, str(error)))
        session = state.session
        self._connections.pop(state.id, None)
        self._end_stream(state)
        if session is not None:
            self._end_session(session)

    def _end_stream(self, state: _Connection) -> None:
        self._write(state.id, element("close", NS_FRAMING))
        self._outputs.append(Close(state.id))

    def _end_session(self, session: Session) -> None:
        self._sessions.pop(session.jid, None)
        if session.management is not None:
            self._resumable.pop(session.management.id, None)
        session.connection = None
        self._queue.extend(self.muc.user_gone(session.jid))

    # --- routing -------------------------------------------------------------------------------------------

    def _flush(self) -> list[Output]:
        while self._queue:
            self._route(self._queue.popleft())
        outputs, self._outputs = self._outputs, []
        return outputs

    def _route(self, stanza: ET.Element) -> None:
        sender = Jid.parse(stanza.get("from", ""))
        target = Jid.parse(stanza.get("to") or sender.bare)
        config = self.config
        if not stanza.get("to") or str(target) in {*config.domains, sender.bare}:
            self._to_domain(stanza, sender.domain if target.node else target.domain)
        elif self._has_rooms(target):
            self._queue.extend(self.muc.feed(stanza))
        elif target.domain in {config.focus_domain, config.auth_domain}:
            self._to_focus(stanza)
        elif target.domain in config.domains:
            self._to_session(stanza, str(target))
        else:
            self._to_component(stanza, target.domain)

    def _has_rooms(self, target: Jid) -> bool:
        config = self.config
        lobby = target.domain == config.lobby_domain and bool(target.node)
        return lobby or target.domain == config.muc_domain or self.muc.visitors.is_node(target.domain)

    def _to_domain(self, stanza: ET.Element, domain: str) -> None:
        if is_request(stanza):
            self._queue.append(answer_for_domain(stanza, domain, self.config.services, self._wall()))
        elif stanza.tag == PRESENCE and stanza.get("type") == "unavailable" and not stanza.get("to"):
            self._queue.extend(self.muc.user_gone(stanza.get("from", "")))
            stanza.set(XML_LANG, stanza.get(XML_LANG, "en"))
            self._to_session(stanza, stanza.get("from", ""))

    def _to_focus(self, stanza: ET.Element) -> None:
        if self.focus_attached:
            self._outputs.append(ToFocus(stanza))
        elif is_request(stanza):
            self._queue.append(error_reply(stanza, "service-unavailable", "Component unavailable"))

    def _to_component(self, stanza: ET.Element, domain: str) -> None:
        sub_domain, _, rest = domain.partition(".")
        if domain == f"{SUB_DOMAIN}.{self.config.domain}" and self.config.visitor_nodes and is_request(stanza):
            self._queue.extend(self._order(stanza))
        elif rest == self.config.domain and any(sub_domain == name for name, _ in COMPONENTS):
            self._queue.extend(answer_for_component(stanza, sub_domain))
        elif is_request(stanza):
            self._queue.append(error_reply(stanza, "service-unavailable"))

    def _order(self, stanza: ET.Element) -> list[ET.Element]:
        """Only the focus orders the visitor nodes."""
        if self.muc.is_service(stanza.get("from", "")):
            return self.muc.visitors.order(stanza)
        return [error_reply(stanza, "forbidden")]

    def _to_session(self, stanza: ET.Element, jid: str) -> None:
        session = self._sessions.get(jid)
        if session is None:
            if is_request(stanza):
                self._queue.append(error_reply(stanza, "service-unavailable"))
            return
        text = serialize(stanza)
        ask = session.management.record_sent(text) if session.management is not None else False
        if session.connection is not None:
            self._outputs.append(Write(session.connection, text))
            if ask:
                self._write(session.connection, element("r", NS_SM))

    def _write(self, connection: int, frame: ET.Element) -> None:
        self._outputs.append(Write(connection, serialize(frame)))


def _checked(stanza: ET.Element) -> ET.Element:
    """A client's stanza with its address folded, or the error that answers it."""
    kind = stanza.get("type")
    if stanza.tag == IQ and (kind not in _IQ_TYPES or not stanza.get("id")):
        return error_reply(stanza, "bad-request", "An IQ has a type and an id")
    if stanza.get("to"):
        address = Jid.parse(stanza.get("to", "")).folded()
        if not address.fits:
            stanza.set("to", address.domain[:MAX_JID_PART])
            return error_reply(stanza, "jid-malformed")
        stanza.set("to", str(address))
    return stanza


def _acknowledge(management: StreamManagement, frame: ET.Element) -> None:
    h = frame.get("h", "")
    if not h.isdecimal():
        raise StreamError("undefined-condition", f"<{frame.tag.rpartition('}')[2]}/> without a number in 'h'")
    try:
        management.acknowledge(int(h))
    except TooManyAckedError:
        raise StreamError("undefined-condition", "Client acknowledged more stanzas than sent by server") from None
