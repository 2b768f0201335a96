"""The focus: answers conference requests, and leads what happens in its rooms. Pure (after Jicofo)."""

from __future__ import annotations

import random
from xml.etree import ElementTree as ET

from bot.embedded.conference import Conference
from bot.embedded.orders import FocusConfig, Output, Send
from bot.embedded.stanza import (
    IQ,
    NS_DISCO_INFO,
    NS_FOCUS,
    NS_PING,
    PRESENCE,
    XML_LANG,
    Jid,
    child,
    element,
    error_reply,
    iq_result,
    is_request,
    payload_of,
)
from bot.jingle.model import Transport

_CONFERENCE = f"{{{NS_FOCUS}}}conference"
_DISCO = f"{{{NS_DISCO_INFO}}}query"
_PING = f"{{{NS_PING}}}ping"
_ANSWERED_ANYWHERE = frozenset({_DISCO, _PING})
_FOCUS_FEATURES = (
    "urn:xmpp:jingle:1",
    "urn:xmpp:jingle:apps:rtp:1",
    "urn:xmpp:jingle:transports:ice-udp:1",
    "urn:xmpp:jingle:apps:dtls:0",
    "urn:xmpp:jingle:apps:rtp:audio",
    "urn:xmpp:jingle:apps:rtp:video",
    "urn:xmpp:jingle:transports:dtls-sctp:1",
    NS_DISCO_INFO,
)


class Focus:
    """``feed(stanza, now) -> outputs``; the stanzas come from, and go to, whatever XMPP server there is."""

    def __init__(self, config: FocusConfig, *, rng: random.Random | None = None) -> None:
        self.config = config
        self._rng = rng or random.Random()
        self._conferences: dict[str, Conference] = {}

    @property
    def conferences(self) -> dict[str, Conference]:
        """The conferences by the address of their room."""
        return self._conferences

    def feed(self, stanza: ET.Element, now: float) -> list[Output]:
        """Take a stanza that was sent to the focus."""
        conference = self._conferences.get(self._main_room(Jid.parse(stanza.get("from", ""))))
        if stanza.tag == PRESENCE:
            outputs = conference.presence(stanza, now) if conference is not None else []
        elif stanza.tag == IQ:
            outputs = self._iq(stanza, conference, now)
        else:
            outputs = []  # messages are heard and not answered
        return self._finished(outputs)

    def _main_room(self, address: Jid) -> str:
        """The room of the conference that ``address`` belongs to; rooms of visitor nodes have the same name."""
        node = address.domain in self.config.node_muc_domains.values()
        return f"{address.node}@{self.config.muc_domain}" if node else address.bare

    def opened(self, room: str, endpoint: str, sid: str, transport: Transport, now: float) -> list[Output]:
        """The bridge has opened its side of a participant's transport."""
        conference = self._conferences.get(room)
        return self._finished(conference.opened(endpoint, sid, transport, now) if conference is not None else [])

    def failed(self, room: str, endpoint: str, sid: str) -> list[Output]:
        """The bridge could not open, or has lost, a participant's transport."""
        conference = self._conferences.get(room)
        return self._finished(conference.failed(endpoint, sid) if conference is not None else [])

    def next_deadline(self) -> float | None:
        """When :meth:`tick` has something to do next, None if never."""
        deadlines = [conference.next_deadline() for conference in self._conferences.values()]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def tick(self, now: float) -> list[Output]:
        """Do what is due."""
        outputs: list[Output] = []
        for conference in list(self._conferences.values()):
            outputs += conference.tick(now)
        return self._finished(outputs)

    def leave_all(self) -> list[Output]:
        """Leave every room: the focus goes away."""
        outputs: list[Output] = []
        for conference in list(self._conferences.values()):
            outputs += conference.end()
        return self._finished(outputs)

    def _finished(self, outputs: list[Output]) -> list[Output]:
        """``outputs`` with the language that Jicofo's library puts on all stanzas; left rooms are forgotten."""
        for output in outputs:
            if isinstance(output, Send):
                output.stanza.set(XML_LANG, "en")
        for room in [room for room, conference in self._conferences.items() if conference.ended]:
            del self._conferences[room]
        return outputs

    def _iq(self, stanza: ET.Element, conference: Conference | None, now: float) -> list[Output]:
        payload = payload_of(stanza)
        if not is_request(stanza):
            return conference.answer(stanza) if conference is not None else []
        if payload is not None and payload.tag == _CONFERENCE and stanza.get("type") == "set":
            return self._conference_request(stanza, payload, now)
        if conference is not None and payload is not None and payload.tag not in _ANSWERED_ANYWHERE:
            return conference.request(stanza, payload, now)
        return [Send(_plain_answer(stanza, payload))]

    def _conference_request(self, stanza: ET.Element, payload: ET.Element, now: float) -> list[Output]:
        room = Jid.parse(payload.get("room", "").lower())
        if room.domain != self.config.muc_domain or not room.node:
            text = f"<conference room=…/> must be a room of {self.config.muc_domain}"
            return [Send(error_reply(stanza, "bad-request", text))]
        outputs: list[Output] = []
        if room.bare not in self._conferences:
            conference = Conference(room.bare, self.config, now, rng=self._rng)
            self._conferences[room.bare] = conference
            outputs += conference.join()
        attributes = {"focusjid": Jid.parse(self.config.jid).bare, "room": room.bare, "ready": "true"}
        asked = {item.get("name"): item.get("value") for item in payload.iter(f"{{{NS_FOCUS}}}property")}
        node = self._conferences[room.bare].node_for(asked)
        if node is not None:
            attributes["vnode"] = node
            outputs += self._conferences[room.bare].use(node)
        answer = element("conference", NS_FOCUS, attributes)
        child(answer, "property", NS_FOCUS, name="authentication", value="false")
        supported = str(bool(self.config.node_muc_domains)).lower()
        child(answer, "property", NS_FOCUS, name="visitors-supported", value=supported)
        return [*outputs, Send(iq_result(stanza, answer))]


def _plain_answer(stanza: ET.Element, payload: ET.Element | None) -> ET.Element:
    if payload is None:
        return error_reply(stanza, "bad-request")
    if payload.tag == _DISCO:
        return iq_result(stanza, _disco_info(payload.get("node")))
    return iq_result(stanza) if payload.tag == _PING else error_reply(stanza, "service-unavailable")


def _disco_info(node: str | None) -> ET.Element:
    query = element("query", NS_DISCO_INFO, {"node": node} if node else {})
    child(query, "identity", NS_DISCO_INFO, category="component", type="conference", name="focus")
    for feature in _FOCUS_FEATURES:
        child(query, "feature", NS_DISCO_INFO, var=feature)
    return query
