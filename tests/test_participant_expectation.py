"""Sessions that do not come: given up on in time, and SCTP left out where that is what hinders."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bot import events
from bot.embedded.offer import Features
from bot.embedded.server import EmbeddedServer
from bot.errors import IceFailedError
from bot.jingle.model import SourceMap, Transport
from bot.participant import expectation
from bot.participant.expectation import (
    MAX_TRIES,
    PATIENCE,
    SctpAdvertising,
    SessionExpectation,
    sctp_advertising,
)
from tests.bridge_support import until
from tests.test_participant_prosody import Seen, participant


def test_only_a_session_that_could_come_is_missed() -> None:
    waiting = SessionExpectation()
    assert not waiting.feed(0.0, expected=False, patience=PATIENCE)
    assert not waiting.feed(1000.0, expected=True, patience=PATIENCE)
    assert not waiting.feed(1000.0 + PATIENCE - 0.1, expected=True, patience=PATIENCE)
    assert repr(waiting) == "<SessionExpectation since 1000.0>"
    assert waiting.feed(1000.0 + PATIENCE, expected=True, patience=PATIENCE)
    assert not waiting.feed(1001.0 + PATIENCE, expected=False, patience=PATIENCE)
    assert not waiting.feed(1002.0 + PATIENCE, expected=True, patience=PATIENCE)
    assert PATIENCE > 60  # as long as Jicofo avoids a bridge that failed


def test_without_sctp_a_session_comes() -> None:
    found = SctpAdvertising()
    assert repr(found) == "<SctpAdvertising True, not sure>"
    assert found.given_up("a", tried=True)
    assert found.given_up("b", tried=True)  # the second one learns from the first
    assert repr(found) == "<SctpAdvertising False, not sure>"
    assert found.patience(tried=True) == PATIENCE
    assert found.offered("a", tried=False, web_socket=True)
    assert (found.patience(tried=True), found.patience(tried=False)) == (0.0, PATIENCE)
    assert found.given_up("a", tried=False)
    assert repr(found) == "<SctpAdvertising False>"  # remembered, whatever happens later


def test_with_sctp_a_session_comes() -> None:
    found = SctpAdvertising()
    assert found.offered("a", tried=True, web_socket=False)
    assert found.given_up("a", tried=True)
    assert found.advertised


def test_without_sctp_there_is_no_channel() -> None:
    """The bridge was away for another reason."""
    found = SctpAdvertising()
    assert found.given_up("a", tried=True)
    assert not found.offered("a", tried=False, web_socket=False)
    assert found.advertised
    assert found.offered("a", tried=True, web_socket=False)


def test_who_gets_none_either_way_stays() -> None:
    found = SctpAdvertising()
    tried = []
    while found.given_up("a", tried=found.advertised):
        tried.append(found.advertised)
    assert tried == [False, True, False]
    assert len(tried) == MAX_TRIES
    assert found.given_up("b", tried=found.advertised)
    found.offered("a", tried=True, web_socket=True)
    assert found.given_up("a", tried=True)


@pytest.mark.parametrize(("channel", "wanted"), [("sctp", True), ("websocket", False), ("none", False)])
def test_a_setting_is_obeyed(channel: str, wanted: bool) -> None:
    found = sctp_advertising("ws://test.example", "meet.jitsi", channel)
    assert found is sctp_advertising("ws://test.example", "meet.jitsi", channel)
    assert found.advertised is wanted
    assert found.given_up("a", tried=wanted)
    assert found.advertised is wanted
    assert found.offered("a", tried=wanted, web_socket=False)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expectation, "PATIENCE", 1.5)


def refusing(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Let the bridge refuse who advertises SCTP; returns what each was asked for."""
    asked: list[bool] = []
    allocate = server.bridge.open

    async def open_without_sctp(room: str, name: str, sid: str, features: Features, own: SourceMap) -> Transport:
        asked.append(features.sctp)
        if features.sctp:
            raise IceFailedError("SCTP support is not configured")
        return await allocate(room, name, sid, features, own)

    monkeypatch.setattr(server.bridge, "open", open_without_sctp)
    return asked


async def test_a_bridge_that_refuses_sctp(monkeypatch: pytest.MonkeyPatch, impatient: None) -> None:
    server = EmbeddedServer(port=0)
    await server.start()
    asked = refusing(server, monkeypatch)
    settings: dict[str, Any] = {"ice_addresses": "127.0.0.1", "use_turn": "off"}
    seen, other = Seen(), Seen()
    one = participant(server.url, seen, name="one", **settings)
    two = participant(server.url, other, name="two", **settings)
    tasks = [asyncio.create_task(one.run()), asyncio.create_task(two.run())]
    try:
        missing = await seen.wait("session_missing")
        assert isinstance(missing, events.SessionMissing)
        assert (missing.sctp, missing.level) == (False, "warning")
        for who in (seen, other):
            connected = await who.wait("media_connected")
            assert isinstance(connected, events.MediaConnected)
            assert connected.channel == "websocket"
            assert who.names().count("session_missing") == 1
        late, known = Seen(), len(asked)
        three = participant(server.url, late, name="three", **settings)
        tasks.append(asyncio.create_task(three.run()))
        await late.wait("media_connected")  # it has been learnt
        assert asked[known:] == [False]
        assert "session_missing" not in late.names()
        three.stop()
    finally:
        one.stop()
        two.stop()
        await asyncio.gather(*tasks)
        await server.stop()


async def test_whoever_is_alone_misses_nothing(impatient: None) -> None:
    server = EmbeddedServer(port=0)
    await server.start()
    seen = Seen()
    one = participant(server.url, seen, name="one", use_turn="off")
    task = asyncio.create_task(one.run())
    try:
        await until(lambda: one.conference is not None and one.conference.room.occupants.focus is not None)
        await asyncio.sleep(3.0)
        assert "session_missing" not in seen.names()
    finally:
        one.stop()
        await task
        await server.stop()
