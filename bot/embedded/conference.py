"""One conference as the focus leads it: who is in, who has a session, who knows which sources. Pure."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from xml.etree import ElementTree as ET

from bot.embedded import sharing
from bot.embedded.offer import Features, bridge_sources, build_offer, owned, without
from bot.embedded.orders import (
    CloseEndpoint,
    ConnectEndpoint,
    FocusConfig,
    Member,
    OpenEndpoint,
    Output,
    Send,
    SetSources,
)
from bot.embedded.presence import focus_presence
from bot.embedded.stanza import (
    IQ,
    NS_CAPS,
    NS_DISCO_INFO,
    NS_JINGLE,
    NS_MUC_ADMIN,
    NS_MUC_OWNER,
    NS_MUC_USER,
    PRESENCE,
    Jid,
    child,
    element,
    error_reply,
    iq_result,
)
from bot.embedded.visitors import node_order
from bot.errors import BotError
from bot.jingle.answer import bundle_transport
from bot.jingle.codec import JingleError, build_jingle, parse_jingle
from bot.jingle.model import Action, Jingle, Reason, SourceMap, Transport

FOCUS_NICK = "focus"
_JINGLE = f"{{{NS_JINGLE}}}jingle"
_DISCO = f"{{{NS_DISCO_INFO}}}query"
_JINGLE_ERRORS = "urn:xmpp:jingle:errors:1"
#: session-accept comes once; the others only after it (XEP-0166 section 7.2).
_ORDERED = frozenset({Action.SESSION_ACCEPT, Action.SOURCE_ADD, Action.SOURCE_REMOVE})
#: Restart requests: this many seconds apart, and so many a minute (as Jicofo limits them).
RESTART_INTERVAL, RESTARTS_A_MINUTE = 5.0, 5
#: A transport outlives its session by so many seconds, or until the session-terminate is answered: a participant
#: who hears of the end from the transport first takes it for lost, and asks for another session.
CLOSE_GRACE = 1.0


class Conference:
    """A room with the focus in it. Methods return what to do."""

    def __init__(self, room: str, config: FocusConfig, now: float, *, rng: random.Random) -> None:
        self.room = room
        self.members: dict[str, Member] = {}
        #: True when the focus is out of the room again.
        self.ended = False
        self._config = config
        #: The visitor nodes in use, with the address of the room there.
        self.nodes: dict[str, str] = {}
        self._rng = rng
        self._bridge_sources = bridge_sources(rng)
        self._bridge_session = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        self._presence_id = f"{rng.getrandbits(24):06x}"
        self._bridges: int | None = None
        self._empty_at: float | None = now + config.empty_room_timeout
        self._alone_at: float | None = None
        #: Purpose, nick and session of what has yet to be answered.
        self._requests: dict[str, tuple[str, str, str | None]] = {}
        #: What to close, and when, by session.
        self._closing: dict[str, tuple[float, CloseEndpoint]] = {}

    # --- the room ------------------------------------------------------------------------------------------

    def join(self) -> list[Output]:
        """Enter the room."""
        return [self._own_presence(join=True)]

    def end(self) -> list[Output]:
        """Leave the room and close what is open."""
        outputs = self._forget()
        for node, room in self.nodes.items():
            outputs += [self._order("disconnect-vnode", node), self._destroy(room), self._leave(room)]
        return [*outputs, self._leave(self.room)]

    def _leave(self, room: str) -> Send:
        attributes = {"type": "unavailable", "from": self._config.jid, "to": f"{room}/{FOCUS_NICK}"}
        return Send(ET.Element(PRESENCE, attributes))

    def _destroy(self, room: str) -> Send:
        """Send the visitors home: there is nothing to see any more."""
        query = element("query", NS_MUC_OWNER)
        child(child(query, "destroy", NS_MUC_OWNER), "reason", NS_MUC_OWNER).text = "Conference ended."
        return self._iq("set", room, query, self._new_id())

    def node_for(self, asked: Mapping[str | None, str | None]) -> str | None:
        """The visitor node for one who asks with these properties, None for the main room (Jicofo's rules)."""
        nodes = self._config.node_muc_domains
        if not nodes or "visitors-version" not in asked:
            return None
        full = self._count_participants() >= self._config.max_participants
        if not (self.nodes or full or asked.get("visitor") == "true"):
            return None
        visitors = Counter(member.room for member in self.members.values() if member.visitor)
        return min(nodes, key=lambda node: visitors[self._node_room(node)])

    def use(self, node: str) -> list[Output]:
        """Enter the room of a visitor node, and have it connected to the main one."""
        if node in self.nodes:
            return []
        room = self.nodes[node] = self._node_room(node)
        to = f"{room}/{FOCUS_NICK}"
        enter = focus_presence(self._config.jid, to, self._presence_id, bridges=self._bridges, join=True)
        return [Send(enter), self._order("connect-vnode", node)]

    def _node_room(self, node: str) -> str:
        return f"{Jid.parse(self.room).node}@{self._config.node_muc_domains[node]}"

    def _order(self, order: str, node: str) -> Send:
        return self._iq("get", self._config.visitors_component, node_order(order, self.room, node), self._new_id())

    def _count_participants(self) -> int:
        return sum(not member.visitor for member in self.members.values())

    def presence(self, stanza: ET.Element, now: float) -> list[Output]:
        """Take a presence of the room, or of one at a visitor node: there only visitors count."""
        address = Jid.parse(stanza.get("from", ""))
        nick, kind = address.resource, stanza.get("type")
        if nick == FOCUS_NICK or not nick:
            gone = kind in {"unavailable", "error"}
            return self._forget() if gone and address.bare == self.room else []
        member = self.members.get(nick)
        if kind == "unavailable":
            return self._left(nick, now) if member is not None and member.room == address.bare else []
        if address.bare != self.room and (_role(stanza) != "visitor" or member is not None):
            return []
        return self._present(nick, stanza, now) if kind is None else []

    def _forget(self) -> list[Output]:
        """The focus is out of the room (refused, kicked, or the room destroyed)."""
        outputs: list[Output] = [close for _, close in self._closing.values()]
        self._closing.clear()
        for member in self.members.values():
            outputs += self._close(member)
        self.members.clear()
        self.ended = True
        return outputs

    def _present(self, nick: str, stanza: ET.Element, now: float) -> list[Output]:
        item = stanza.find(f"{{{NS_MUC_USER}}}x/{{{NS_MUC_USER}}}item")
        affiliation = item.get("affiliation", "none") if item is not None else "none"
        member = self.members.get(nick)
        if member is not None:
            member.affiliation = affiliation
            return []
        room = Jid.parse(stanza.get("from", "")).bare
        jid = item.get("jid", "") if item is not None else ""
        member = Member(nick, jid, room, visitor=room != self.room, affiliation=affiliation)
        self.members[nick] = member
        self._empty_at = None
        if len(self.members) >= self._config.min_participants:
            self._alone_at = None
        self._elect(now)
        member.disco_deadline = now + self._config.disco_timeout
        query = element("query", NS_DISCO_INFO)
        caps = stanza.find(f"{{{NS_CAPS}}}c")
        if caps is not None:
            query.set("node", f"{caps.get('node')}#{caps.get('ver')}")
        return [self._request("disco", member, "get", query)]

    def _elect(self, now: float) -> None:
        """Choose an owner where there is none: whoever came first."""
        if any(member.affiliation == "owner" or member.owner_at is not None for member in self.members.values()):
            return
        first = next((member for member in self.members.values() if not member.visitor), None)
        if first is not None:
            first.owner_at = now + self._config.owner_delay

    def _left(self, nick: str, now: float) -> list[Output]:
        member = self.members.pop(nick, None)
        if member is None:
            return []
        outputs = self._close(member)
        self._requests = {key: request for key, request in self._requests.items() if request[1] != nick}
        if not self._count_participants():
            return [*outputs, *self.end()]
        self._elect(now)
        sharing.left(self.members, nick)
        return [*outputs, *self._watch_alone(now)]

    def _watch_alone(self, now: float) -> list[Output]:
        if len(self.members) < self._config.min_participants and any(m.sid for m in self.members.values()):
            self._alone_at = now + self._config.single_participant_timeout
        return []

    def _own_presence(self, *, join: bool = False) -> Send:
        to = f"{self.room}/{FOCUS_NICK}"
        return Send(focus_presence(self._config.jid, to, self._presence_id, bridges=self._bridges, join=join))

    # --- time ----------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When :meth:`tick` has something to do next, None if never."""
        deadlines = [self._empty_at, self._alone_at, *(at for at, _ in self._closing.values())]
        for member in self.members.values():
            deadlines += [member.owner_at, member.disco_deadline]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def tick(self, now: float) -> list[Output]:
        """Do what is due."""
        if self._empty_at is not None and self._empty_at <= now:
            return self.end()
        outputs: list[Output] = []
        for member in list(self.members.values()):
            if member.owner_at is not None and member.owner_at <= now:
                outputs.append(self._grant(member))
            if member.disco_deadline is not None and member.disco_deadline <= now:
                outputs += self._discovered(member, Features())
        if self._alone_at is not None and self._alone_at <= now:
            self._alone_at = None
            outputs += self._end_sessions("expired", "Idle session timeout", now)
        for sid in [sid for sid, (at, _) in self._closing.items() if at <= now]:
            outputs.append(self._closing.pop(sid)[1])
        return outputs

    def _grant(self, member: Member) -> Send:
        member.owner_at = None
        member.affiliation = "owner"
        query = element("query", NS_MUC_ADMIN)
        child(query, "item", NS_MUC_ADMIN, affiliation="owner", jid=Jid.parse(member.jid).bare)
        return self._iq("set", self.room, query, self._new_id())

    def _end_sessions(self, condition: str, text: str, now: float) -> list[Output]:
        outputs: list[Output] = []
        for member in self.members.values():
            for output in self.terminate(member, condition, text):
                if isinstance(output, CloseEndpoint):
                    self._closing[output.sid] = now + CLOSE_GRACE, output
                else:
                    outputs.append(output)
        self._bridges = 0
        return [*outputs, self._own_presence()]

    # --- requests ------------------------------------------------------------------------------------------

    def _new_id(self) -> str:
        return f"{self._rng.getrandbits(48):012x}"

    def _iq(self, kind: str, to: str, payload: ET.Element, identifier: str) -> Send:
        iq = ET.Element(IQ, {"type": kind, "id": identifier, "from": self._config.jid, "to": to})
        iq.append(payload)
        return Send(iq)

    def _request(self, purpose: str, member: Member, kind: str, payload: ET.Element) -> Send:
        identifier = self._new_id()
        self._requests[identifier] = (purpose, member.nick, member.sid)
        return self._iq(kind, f"{member.room}/{member.nick}", payload, identifier)

    def _tell(self, member: Member, payload: ET.Element) -> Send:
        """A request whose answer changes nothing."""
        return self._iq("set", f"{member.room}/{member.nick}", payload, self._new_id())

    def answer(self, stanza: ET.Element) -> list[Output]:
        """Take the answer to a request of ours."""
        identifier = stanza.get("id", "")
        purpose, nick, sid = self._requests.get(identifier, ("", "", None))
        member = self.members.get(nick)
        if member is None or Jid.parse(stanza.get("from", "")).resource != nick:
            return []
        del self._requests[identifier]
        if purpose == "terminate" and sid in self._closing:
            return [self._closing.pop(sid)[1]]
        failed = stanza.get("type") == "error"
        if purpose == "disco" and member.features is None:
            query = stanza.find(_DISCO)
            features = Features()
            if not failed and query is not None:
                features = Features.parse(f.get("var", "") for f in query.iter(f"{{{NS_DISCO_INFO}}}feature"))
            return self._discovered(member, features)
        if purpose == "offer" and failed and sid == member.sid:
            member.refused = True
            return self._close(member)
        return []

    def _discovered(self, member: Member, features: Features) -> list[Output]:
        member.features = features
        member.disco_deadline = None
        return self._invite()

    def _invite(self) -> list[Output]:
        """Have transports opened for all who may have a session and have none."""
        if len(self.members) < self._config.min_participants:
            return []
        outputs: list[Output] = []
        for member in self.members.values():
            if member.features is not None and member.sid is None and not member.refused:
                member.sid = f"{self._rng.getrandbits(64):x}"
                outputs.append(
                    OpenEndpoint(self.room, member.nick, member.sid, member.features, self._bridge_sources)
                )
        if outputs and self._bridges != 1:
            self._bridges = 1
            outputs.append(self._own_presence())
        return outputs

    # --- the bridge ----------------------------------------------------------------------------------------

    def _with_session(self, endpoint: str, sid: str) -> Member | None:
        member = self.members.get(endpoint)
        return member if member is not None and member.sid == sid else None

    def opened(self, endpoint: str, sid: str, transport: Transport, now: float) -> list[Output]:
        """Offer the session: the bridge's side is there. Where he is alone by now, his time runs."""
        member = self._with_session(endpoint, sid)
        if member is None or member.features is None:
            return []
        offer = build_offer(
            member.features,
            transport,
            sid=sid,
            initiator=self._config.jid,
            bridge_session=self._bridge_session,
            sources=sharing.initial(self.members, member, self._bridge_sources),
        )
        member.offered = True
        return [self._request("offer", member, "set", offer), *self._watch_alone(now)]

    def failed(self, endpoint: str, sid: str) -> list[Output]:
        """Forget a session that could not be offered, as the bridge has no transport for it.

        One that was offered stays when its transport is lost, as no bridge tells Jicofo of that: its participant
        finds it out, and asks for another one. To end it here would leave him without any: his request comes too
        late then, for a session that is no more.
        """
        member = self._with_session(endpoint, sid)
        return [] if member is None or member.offered else self._close(member)

    def _reconcile(self) -> list[Output]:
        """Tell each participant the difference between what he knows and what he should know."""
        news = sharing.news(self.members)
        return [self._tell(member, build_jingle(jingle)) for member, jingle in news]

    # --- the participant's requests ------------------------------------------------------------------------

    def request(self, stanza: ET.Element, payload: ET.Element, now: float) -> list[Output]:
        """Take a request that a participant sent to the focus in the room."""
        if payload.tag != _JINGLE or stanza.get("type") != "set":
            return [Send(error_reply(stanza, "service-unavailable"))]
        try:
            jingle = parse_jingle(payload)
        except JingleError as error:
            return [Send(error_reply(stanza, error.condition, str(error)))]
        member = self.members.get(Jid.parse(stanza.get("from", "")).resource)
        if member is None or member.sid is None or not member.offered or jingle.sid != member.sid:
            unknown = element("unknown-session", _JINGLE_ERRORS)
            return [Send(error_reply(stanza, "item-not-found", f"No session {jingle.sid}", details=unknown))]
        return self._jingle(stanza, jingle, member, now)

    def _jingle(self, stanza: ET.Element, jingle: Jingle, member: Member, now: float) -> list[Output]:
        handlers: dict[str, Callable[[ET.Element, Jingle, Member], list[Output]]] = {
            Action.SESSION_ACCEPT: self._accept,
            Action.SOURCE_ADD: self._source_add,
            Action.SOURCE_REMOVE: self._source_remove,
            Action.SESSION_INFO: _session_info,
            Action.TRANSPORT_INFO: lambda iq, _jingle, _member: [Send(iq_result(iq))],
            Action.SESSION_TERMINATE: lambda iq, end, who: self._terminated(iq, end, who, now),
        }
        handler = handlers.get(jingle.action)
        if handler is None:
            return [Send(error_reply(stanza, "feature-not-implemented", f"action '{jingle.action}'"))]
        if member.active is (jingle.action == Action.SESSION_ACCEPT) and jingle.action in _ORDERED:
            out_of_order = element("out-of-order", _JINGLE_ERRORS)
            text = f"'{jingle.action}' is not expected now"
            return [Send(error_reply(stanza, "unexpected-request", text, details=out_of_order))]
        return handler(stanza, jingle, member)

    def _accept(self, stanza: ET.Element, jingle: Jingle, member: Member) -> list[Output]:
        assert member.sid is not None
        try:
            transport = bundle_transport(jingle)
        except BotError as error:
            return [Send(error_reply(stanza, "bad-request", str(error)))]
        if member.visitor and jingle.sources:
            return [Send(error_reply(stanza, "forbidden", "sources not allowed for visitors"))]
        problem = sharing.problem(self.members, member, jingle.sources, self._config.max_ssrcs)
        if problem is not None:
            return [Send(error_reply(stanza, "bad-request", problem))]
        member.active = True
        member.sources = owned(jingle.sources, member.nick)
        return [
            Send(iq_result(stanza)),
            SetSources(self.room, member.nick, member.sources),
            ConnectEndpoint(self.room, member.nick, member.sid, transport),
            *self._reconcile(),
        ]

    def _source_add(self, stanza: ET.Element, jingle: Jingle, member: Member) -> list[Output]:
        if member.visitor:
            return [Send(error_reply(stanza, "forbidden", "add-source not allowed for visitors"))]
        problem = sharing.problem(self.members, member, jingle.sources, self._config.max_ssrcs)
        if problem is not None:
            return [Send(error_reply(stanza, "bad-request", problem))]
        return self._changed(stanza, member, member.sources.merged(owned(jingle.sources, member.nick)))

    def _source_remove(self, stanza: ET.Element, jingle: Jingle, member: Member) -> list[Output]:
        unknown = sharing.unknown(member, jingle.sources)
        if unknown is not None:
            return [Send(error_reply(stanza, "bad-request", unknown))]
        return self._changed(stanza, member, without(member.sources, jingle.sources))

    def _changed(self, stanza: ET.Element, member: Member, sources: SourceMap) -> list[Output]:
        member.sources = sources
        changed = SetSources(self.room, member.nick, sources)
        return [Send(iq_result(stanza)), changed, *self._reconcile()]

    def _terminated(self, stanza: ET.Element, jingle: Jingle, member: Member, now: float) -> list[Output]:
        if jingle.bridge_session_id not in {None, self._bridge_session}:
            text = f"{jingle.bridge_session_id} is not the bridge session of now"
            return [Send(error_reply(stanza, "item-not-found", text))]
        member.refused = not (jingle.restart and _may_restart(member, now))
        answer = iq_result(stanza)
        if jingle.restart and member.refused:
            # As Jicofo does it: the session is ended all the same, only no other is offered.
            answer = error_reply(stanza, "resource-constraint", "rate-limited")
        return [Send(answer), *self._close(member), *self._reconcile(), *self._invite()]

    # --- the end of a session ------------------------------------------------------------------------------

    def terminate(self, member: Member, condition: str, text: str) -> list[Output]:
        """End a participant's session and tell him why; ``condition`` is a reason of XEP-0166 section 7.4."""
        outputs: list[Output] = []
        if member.sid is not None and member.offered:
            jingle = Jingle(action=Action.SESSION_TERMINATE, sid=member.sid, reason=Reason(condition, text))
            outputs.append(self._request("terminate", member, "set", build_jingle(jingle)))
        return [*outputs, *self._close(member)]

    def _close(self, member: Member) -> list[Output]:
        sid, member.sid = member.sid, None
        member.offered = member.active = False
        member.sources = SourceMap()
        member.told = {}
        return [CloseEndpoint(self.room, member.nick, sid)] if sid is not None else []


def _role(stanza: ET.Element) -> str:
    item = stanza.find(f"{{{NS_MUC_USER}}}x/{{{NS_MUC_USER}}}item")
    return item.get("role", "none") if item is not None else "none"


def _session_info(stanza: ET.Element, jingle: Jingle, _member: Member) -> list[Output]:
    """Restarting ICE in place is refused, as by a Jicofo that has it off: a new session is asked for then."""
    if jingle.ice_restart:
        return [Send(error_reply(stanza, "feature-not-implemented", "in-place ICE restart is disabled"))]
    return [Send(iq_result(stanza))]


def _may_restart(member: Member, now: float) -> bool:
    """Whether a restart may be asked for now; it counts if so."""
    member.restarts = [at for at in member.restarts if at > now - 60]
    too_soon = bool(member.restarts) and member.restarts[-1] > now - RESTART_INTERVAL
    if too_soon or len(member.restarts) >= RESTARTS_A_MINUTE:
        return False
    member.restarts.append(now)
    return True
