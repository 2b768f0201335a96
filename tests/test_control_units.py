"""What of the API needs no server: tokens, the ring of events, the document, and the end of who does not leave."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st

from bot.control import options
from bot.control.auth import Scope, Tokens, allows, split_tokens
from bot.control.eventlog import EventLog, Wanted
from bot.control.fleet import Fleet, Member
from bot.control.limits import Seats
from bot.control.model import ParticipantSpec
from bot.control.openapi import document
from bot.control.options import ApiSettings, check_listens, is_loopback
from bot.control.problems import RequestError
from bot.control.reload import named
from bot.control.server import OPERATIONS, make_app
from bot.control.service import Service
from bot.errors import ConfigurationError
from bot.events import Event, Left
from bot.participant.config import expand
from bot.settings import ParticipantSpec as Group
from bot.settings import load

LONG = "0123456789abcdef"


def test_tokens_have_scopes_and_whoever_operates_may_read() -> None:
    tokens = Tokens([LONG + "r"], [LONG + "o", LONG + "p"])
    found = [tokens.scope_of(f"Bearer {LONG}{end}") for end in ("r", "o", "p", "x", "")]
    assert found == [Scope.READ, Scope.OPERATE, Scope.OPERATE, None, None]
    assert tokens.scope_of(f"Basic {LONG}r") is tokens.scope_of(None) is None
    assert [allows(has, needed) for has in Scope for needed in Scope] == [True, False, True, True]
    assert (tokens.open, Tokens().open) == (False, True)
    assert LONG not in repr(tokens)


def test_every_known_token_is_compared_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []

    def compare(one: bytes, two: bytes) -> bool:
        compared.append((len(one), len(two)))
        return one == two

    monkeypatch.setattr("hmac.compare_digest", compare)
    tokens = Tokens([LONG + "a"], [LONG + "b"])
    for given_token in (LONG + "b", "x", "ü" * 1000):
        tokens.scope_of(f"Bearer {given_token}")
    assert compared == [(32, 32)] * 6


def test_tokens_come_from_files_and_errors_do_not_repeat_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "tokens").write_text(f"{LONG}1\n{LONG}2\n")
    monkeypatch.setenv("JITSI_API_READ_TOKENS_FILE", str(tmp_path / "tokens"))
    api = options.load()
    assert api.tokens.scope_of(f"Bearer {LONG}2") is Scope.READ
    assert LONG not in repr(api)
    monkeypatch.setenv("JITSI_API_OPERATE_TOKENS", "short")
    with pytest.raises(ConfigurationError, match=r"api\.operate_tokens: token 1 has fewer than 16") as caught:
        options.load()
    assert "short" not in str(caught.value)
    with pytest.raises(ValueError, match="RFC 6750"):
        split_tokens("with:a:colon:in:it")


def test_where_it_listens_without_a_token() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "[::1]", "localhost", "127.9.9.9")] == [True] * 5
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "localhost.evil.example", "")] == [
        False
    ] * 5
    with pytest.raises(ConfigurationError, match="without a token"):
        check_listens("0.0.0.0", ApiSettings())
    check_listens("0.0.0.0", ApiSettings.model_validate({"read_tokens": LONG}))


def left(participant: str, room: str = "r") -> Event:
    return Left(room=room, participant=participant, clean=True)


def text_of(parts: Iterable[bytes]) -> str:
    return b"".join(parts).decode()


async def test_a_reader_hears_what_it_wants_and_how_much_it_has_missed() -> None:
    log = EventLog(3, wall=lambda: 1.5)
    for owner in ("a", "b", "a", "b", "a"):
        log.add(owner, left(owner))
    reader = log.follow(1, Wanted(owner="a"), 5)
    text = (await anext(reader)).decode()
    assert text.startswith('event: dropped\ndata: {"count": 1}\n\n')
    assert [line for line in text.splitlines() if line.startswith("id: ")] == [
        f"id: {log.id_of(at)}" for at in (3, 5)
    ]
    following = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0)
    log.add("a", left("a"))
    assert f"id: {log.id_of(6)}" in (await following).decode()
    log.close()
    assert [part async for part in reader] == []
    assert "0 readers" in repr(log)


async def test_a_silent_stream_says_that_it_is_alive() -> None:
    reader = EventLog(3).follow(0, Wanted(), 0.01)
    assert await anext(reader) == b": nothing new\n\n"
    await reader.aclose()


def test_ids_of_another_process_begin_from_the_start() -> None:
    log = EventLog(3)
    log.add("a", left("a"))
    assert log.after(log.id_of(1)) == 1
    assert [log.after(text) for text in ("", "1", "deadbeef-1", log.id_of(1) + "x", log.id_of(10**30))] == [0] * 5


@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(1, 10), st.integers(1, 10))
def test_the_last_events_are_those_that_are_wanted(owners: list[str], size: int, limit: int) -> None:
    log = EventLog(size)
    for number, owner in enumerate(owners):
        log.add(owner, left(owner, room=str(number)))
    found = [item.event.room for item in log.last(limit, Wanted(owner="a"))]
    kept = list(enumerate(owners))[-size:]
    assert found == [str(number) for number, owner in kept if owner == "a"][-limit:]


def test_seats_are_given_back_once() -> None:
    seats = Seats(3)
    two, one = seats.take(2), seats.take(1)
    with pytest.raises(RequestError, match="3 of 3"):
        seats.take(1)
    two.free()
    two.free()
    assert seats.taken == 1
    one.free()
    assert seats.taken == 0


def test_every_operation_is_described_with_its_refusals() -> None:
    found = document(OPERATIONS)
    operations = {(method, path): item for path, items in found["paths"].items() for method, item in items.items()}
    assert len({item["operationId"] for item in operations.values()}) == len(OPERATIONS)
    for (method, path), item in operations.items():
        assert {"400", "401", "403"} <= set(item["responses"]), (method, path)
        assert ("404" in item["responses"]) == ("{" in path), (method, path)
        assert ("requestBody" in item) == (method in {"put", "patch", "post"} and not path.endswith("/stop")), path
    put = operations["put", "/api/v1/participants/{id}"]
    assert {"201", "200", "409", "413", "415", "422", "503"} <= set(put["responses"])


def test_participants_of_the_settings_have_ids_of_their_own() -> None:
    groups = (Group(room="Größe", name="b", count=2), Group(room="Größe", name="b-1"), Group(room="x" * 90))
    ids = list(named(expand(load(participants=groups))))
    assert ids[:3] == ["Gr__e.b-1", "Gr__e.b-2", "Gr__e.b-1-2"]
    assert len(ids[3]) <= 64


async def test_who_drains_is_not_ready_begins_nothing_and_still_tells() -> None:
    service = Service(load(), ApiSettings(), lambda _: None)
    before = service.ready
    service.begun = True
    begun = service.ready
    service.draining = True
    assert (before, begun, service.ready) == (False, True, False)
    async with TestClient(TestServer(make_app(service))) as client:
        for path in ("participants/a", "recordings/a", "loads/a", "probes/a"):
            async with client.put(f"/api/v1/{path}", json={"room": "r"}) as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (503, "30")
                assert (await answer.json())["code"] == "draining"
        async with client.get("/api/v1/status") as answer:
            assert (answer.status, (await answer.json())["draining"]) == (200, True)
        async with client.get("/") as answer:
            assert "script-src 'self'" in answer.headers["Content-Security-Policy"]


class Endless(Member):
    """One that does not leave, however often it is told."""

    async def run(self) -> None:
        await asyncio.Event().wait()


async def test_who_does_not_leave_in_time_is_made_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.control.fleet.Member", Endless)
    seats = Seats(2)
    fleet = Fleet(seats, EventLog(10), lambda _: None, interval=0)
    fleet.start()
    fleet.add("a", expand(load())[0], ParticipantSpec(room="r"), origin="api", cool_down=1)
    assert await fleet.close(0.05) is False
    assert seats.taken == 0
    assert fleet.members == ()


class Broken(Member):
    """One with a defect."""

    async def run(self) -> None:
        raise RuntimeError("defect")


async def test_a_defect_ends_one_participant_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.control.fleet.Member", Broken)
    seats = Seats(2)
    fleet = Fleet(seats, EventLog(10), lambda _: None, interval=0)
    member = fleet.add("a", expand(load())[0], ParticipantSpec(room="r"), origin="api", cool_down=1)
    await asyncio.sleep(0.01)
    assert (member.error, seats.taken, fleet.ready) == (("internal", "RuntimeError"), 0, True)
    fleet.remove(member)
    assert fleet.get("a") is None
    assert await fleet.close(1)
