"""Which addresses media goes over: IPv6 alone, and candidates that come after the offer."""

from __future__ import annotations

import asyncio
import socket
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bot.bridge.session import MediaSession
from bot.embedded.server import EmbeddedServer
from bot.jingle.build import build_jingle
from bot.jingle.model import Action, Candidate, Content, Jingle, Transport
from bot.participant.participant import Participant
from tests.bridge_support import until
from tests.requirements import unavailable
from tests.test_participant_prosody import Seen, participant


def has_ipv6() -> bool:
    """Whether this machine has ::1."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest_asyncio.fixture
async def server() -> AsyncIterator[EmbeddedServer]:
    if not has_ipv6():
        unavailable("this machine has no ::1")
    found = EmbeddedServer("::1", 0, addresses=("::1",))
    await found.start()
    yield found
    await found.stop()


def media_of(bot: Participant) -> MediaSession:
    assert bot.conference is not None
    assert bot.conference.media is not None
    return bot.conference.media


@pytest.mark.parametrize("channel", ["sctp", "websocket"])
async def test_two_bots_meet_on_ipv6(server: EmbeddedServer, channel: str) -> None:
    assert server.url.startswith("ws://[::1]:")
    seen, other = Seen(), Seen()
    one = participant(server.url, seen, name="one", ice_addresses="::1", bridge_channel=channel)
    two = participant(server.url, other, name="two", ice_addresses="::1", bridge_channel=channel)
    tasks = [asyncio.create_task(one.run()), asyncio.create_task(two.run())]
    await seen.wait("media_connected")
    await other.wait("media_connected")
    media = media_of(one)
    await until(lambda: media.received.packets > 50 and media_of(two).received.packets > 50)
    ice = media.transport._ice
    assert {item.ip for item in ice.getRemoteCandidates()} == {"::1"}
    assert {item.ip for item in ice.iceGatherer.getLocalCandidates()} == {"::1"}
    await until(
        lambda: any(event.name == "phase_done" and event.as_dict()["phase"] == "channel" for event in seen.events)
    )
    for bot in (one, two):
        bot.stop()
    await asyncio.gather(*tasks)


async def test_candidates_come_by_transport_info_too(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, other = Seen(), Seen()
    one = participant(server.url, seen, name="one", ice_addresses="::1", media_timeout=10)
    two = participant(server.url, other, name="two", ice_addresses="::1")
    tasks = [asyncio.create_task(one.run()), asyncio.create_task(two.run())]
    await seen.wait("media_connected")
    media = media_of(one)
    taken: list[Transport] = []

    async def take(transport: Transport) -> None:
        taken.append(transport)

    monkeypatch.setattr(media.transport, "add_candidates", take)
    assert one.conference is not None
    candidate = Candidate("7", 1, "udp", 5, "::1", 9, "host")
    audio = Content("audio", "audio", transport=Transport(candidates=(candidate,)))
    sid = one.conference.session._session.sid
    assert sid is not None
    iq = ET.Element("{jabber:client}iq", type="set", id="t1", to=one.conference._connection.jid)
    iq.set("from", f"{one.conference.room.jid}/focus")
    iq.append(build_jingle(Jingle(Action.TRANSPORT_INFO, sid, contents=(audio, Content("video", "video")))))
    server.send(iq)
    await until(lambda: bool(taken))
    assert [item.candidates for item in taken] == [(candidate,)]
    for bot in (one, two):
        bot.stop()
    await asyncio.gather(*tasks)
