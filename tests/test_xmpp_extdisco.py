"""TURN servers: how they are written, how a deployment names them (XEP-0215), and which one is taken."""

from __future__ import annotations

import base64
import hashlib
import hmac
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from bot.embedded.config import EmbeddedConfig
from bot.embedded.server import EmbeddedServer
from bot.embedded.services import ExternalService, services_answer
from bot.errors import IceFailedError
from bot.participant.relay import UNKNOWN_TIME, TurnLookup, choose
from bot.settings import load
from bot.turn import TurnServer, parse_turn_url
from bot.xmpp.connection import XmppConfig, XmppConnection
from bot.xmpp.extdisco import NAMESPACES, Service, parse_services, request_services
from bot.xmpp.stanza_errors import IqTimeoutError, StanzaError

NEW, OLD = NAMESPACES


def services(*lines: str, namespace: str = NEW) -> ET.Element:
    return ET.fromstring(f"<services xmlns='{namespace}'>{''.join(lines)}</services>")


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_services_are_read(namespace: str) -> None:
    answer = services(
        "<service type='stun' host='stun.example' port='3479'/>",
        "<service type='turn' host='turn.example' transport='tcp' username='u' password='p'"
        " expires='2026-11-24T10:00:00Z' restricted='1'/>",
        "<service type='turns' host='turn.example'/>",
        "<service type='turns' host='turn.example' transport='udp'/>",
        "<service type='ftp' host='files.example'/>",
        "<service type='turn' host='gone.example' action='delete'/>",
        namespace=namespace,
    )
    with capture_logs() as lines:
        found = parse_services(answer)
    assert lines == []
    assert found == (
        Service("stun", "stun.example", 3479, "udp"),
        Service("turn", "turn.example", 3478, "tcp", "u", "p", datetime(2026, 11, 24, 10, tzinfo=UTC)),
        Service("turns", "turn.example", 5349, "tcp"),
        Service("turns", "turn.example", 5349, "udp"),
    )
    assert [item.turn for item in found] == [
        None,
        TurnServer("turn.example", 3478, "tcp", tls=False, username="u", password="p"),
        TurnServer("turn.example", 5349, "tcp", tls=True),
        None,
    ]
    assert "'p'" not in repr(found)


def test_broken_services_cost_one_line() -> None:
    answer = services(
        "<service type='turn'/>",
        "<service type='turn' host='a b'/>",
        "<service type='turn' host='one.example' port='many'/>",
        "<service type='turn' host='one.example' port='0'/>",
        "<service type='turn' host='one.example' port='65536'/>",
        "<service type='turn' host='one.example' port='٣'/>",
        "<service type='turn' host='one.example' transport='sctp'/>",
        "<service type='turn' host='[::1]' expires='soon'/>",
        "<service type='turn' host='two.example' expires='2026-11-24T10:00:00'/>",
    )
    with capture_logs() as lines:
        found = parse_services(answer)
    assert [(item.host, item.expires) for item in found] == [
        ("::1", None),
        ("two.example", datetime(2026, 11, 24, 10, tzinfo=UTC)),
    ]
    assert [line["event_name"] for line in lines] == ["services_ignored"]


@pytest.mark.parametrize(
    ("url", "found", "written"),
    [
        ("turn:h", TurnServer("h", 3478), "turn:h:3478?transport=udp"),
        ("turn:h:1?transport=tcp", TurnServer("h", 1, "tcp"), "turn:h:1?transport=tcp"),
        ("turns:h", TurnServer("h", 5349, "tcp", tls=True), "turns:h:5349?transport=tcp"),
        ("TURNS:10.0.0.1:443?transport=TCP", TurnServer("10.0.0.1", 443, "tcp", tls=True), None),
        ("turn:[2001:db8::1]:80", TurnServer("2001:db8::1", 80), "turn:[2001:db8::1]:80?transport=udp"),
    ],
)
def test_turn_urls(url: str, found: TurnServer, written: str | None) -> None:
    assert parse_turn_url(url) == found
    assert str(found) == (written or "turns:10.0.0.1:443?transport=tcp")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h",
        "stun:h",
        "turn:",
        "turn:h:0",
        "turn:h:65536",
        "turn:u@h",
        "turn://h",
        "turn:h?transport=dtls",
        "turn:a b",
    ],
)
def test_what_is_no_turn_url(url: str) -> None:
    with pytest.raises(ValueError, match="no TURN URL"):
        parse_turn_url(url)


def test_turn_over_dtls_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="DTLS is not supported"):
        parse_turn_url("turns:h?transport=udp")


def test_the_server_that_gets_through_most_firewalls_is_chosen() -> None:
    udp, tcp, tls = TurnServer("a", 1), TurnServer("b", 1, "tcp"), TurnServer("c", 1, "tcp", tls=True)
    assert choose([None, udp, tcp, tls]) is tls
    assert choose([udp, tcp]) is tcp
    assert choose([udp, None]) is udp
    assert choose([None]) is None


class Asked:
    """A connection whose domain answers with what it is given, one after the other."""

    def __init__(self, *answers: ET.Element | Exception | None) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, str]] = []

    async def iq(self, kind: str, to: str, payload: ET.Element, timeout: float) -> ET.Element | None:
        self.asked.append((kind, to, payload.tag))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def lookup(connection: Asked, **settings: Any) -> TurnLookup:
    return TurnLookup(load(**settings), connection, unknown={})  # type: ignore[arg-type]


UNKNOWN = StanzaError("service-unavailable")
TURN = "<service type='turn' host='turn.example' username='u' password='p'/>"


async def test_the_older_protocol_is_tried_second() -> None:
    connection = Asked(UNKNOWN, services(TURN, namespace=OLD))
    assert await lookup(connection).find() == TurnServer("turn.example", 3478, username="u", password="p")
    assert connection.asked == [
        ("get", "meet.jitsi", f"{{{NEW}}}services"),
        ("get", "meet.jitsi", f"{{{OLD}}}services"),
    ]


async def test_a_deployment_that_knows_nothing_of_it_is_asked_seldom() -> None:
    now, unknown = [5.0], dict[tuple[str, str], float]()
    connection = Asked(UNKNOWN, UNKNOWN, services(TURN))
    one, two = (
        TurnLookup(load(), connection, clock=lambda: now[0], unknown=unknown)  # type: ignore[arg-type]
        for _ in range(2)
    )
    assert await one.find() is None
    assert await two.find() is None
    assert len(connection.asked) == 2
    now[0] += UNKNOWN_TIME
    assert await two.find() is not None
    assert len(connection.asked) == 3


async def test_one_that_does_not_answer_is_asked_again() -> None:
    connection = Asked(IqTimeoutError("none"), services(TURN), None)
    found = lookup(connection)
    with capture_logs() as lines:
        assert await found.find() is None
    assert [line["event_name"] for line in lines] == ["services_timeout"]
    assert await found.find() is not None
    assert await found.find() is None


async def test_without_a_server_relayed_media_alone_is_an_error() -> None:
    with pytest.raises(IceFailedError, match="names no TURN server"):
        await lookup(Asked(services()), use_turn="relay").find()


async def test_settings_come_first_and_off_asks_nobody() -> None:
    nobody = Asked()
    assert await lookup(nobody, use_turn="off", turn_url="turn:h").find() is None
    found = await lookup(nobody, turn_url="turn:h:1", turn_username="u", turn_password="p").find()
    assert found == TurnServer("h", 1, username="u", password="p")
    assert nobody.asked == []


def test_credentials_are_those_that_coturn_checks() -> None:
    service = ExternalService("turn", "h", 1, secret="s", ttl=60)
    [found] = parse_services(services_answer(NEW, [service], 1000.9))
    assert found.username == "1060"
    assert found.password == base64.b64encode(hmac.digest(b"s", b"1060", hashlib.sha1)).decode()
    assert found.expires == datetime.fromtimestamp(1060, UTC)
    assert repr(service).count("'s'") == 0


def test_the_embedded_server_answers_as_prosody_does() -> None:
    """What mod_external_services of Prosody 0.12 said to the secret ``shared``, for an hour."""
    recorded = services(
        "<service type='stun' port='13479' host='10.77.0.1'/>",
        "<service password='uEv0FWtqh2zlHGlGt0YprlTnDFs=' transport='udp' port='13479' host='10.77.0.1'"
        " username='1795523315' expires='2026-11-24T12:28:35Z' type='turn' restricted='1'/>",
        "<service password='uEv0FWtqh2zlHGlGt0YprlTnDFs=' transport='tcp' port='15350' host='10.77.0.1'"
        " username='1795523315' expires='2026-11-24T12:28:35Z' type='turns' restricted='1'/>",
    )
    configured = (
        ExternalService("stun", "10.77.0.1", 13479),
        ExternalService("turn", "10.77.0.1", 13479, "udp", "shared", 3600),
        ExternalService("turns", "10.77.0.1", 15350, "tcp", "shared", 3600),
    )
    made = services_answer(NEW, configured, 1795519715.4)
    assert parse_services(made) == parse_services(recorded)
    assert [item.attrib for item in made[1:]] == [item.attrib for item in recorded[1:]]


async def test_the_embedded_server_names_what_it_is_told_to() -> None:
    config = EmbeddedConfig(
        services=(ExternalService("turn", "turn.example", 3478), ExternalService("stun", "h", 1))
    )
    for wanted, server in ((2, EmbeddedServer(port=0, config=config)), (None, EmbeddedServer(port=0))):
        await server.start()
        connection = XmppConnection(XmppConfig(url=server.url, domain="meet.jitsi", room="r"))
        try:
            await connection.connect()
            found = await request_services(connection, "meet.jitsi")
        finally:
            await connection.close()
            await server.stop()
        assert (None if found is None else len(found)) == wanted
