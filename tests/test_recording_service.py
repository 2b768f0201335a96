"""Several recorders in one process, and recorders that moderators command, in rooms of the embedded server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bot import events
from bot.api import Participant
from bot.embedded.server import EmbeddedServer
from bot.errors import ConfigurationError
from bot.participant.participant import Participant as Bot
from bot.recording import chat
from bot.recording.manifest import read_manifest
from bot.recording.options import RecordOptions
from bot.recording.recorder import PROPERTY
from bot.recording.service import RecordingInfo, RecordingService
from bot.settings import load
from tests.bridge_support import until

pytestmark = pytest.mark.timeout(120)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[EmbeddedServer]:
    found = EmbeddedServer(port=0)
    await found.start()
    yield found
    await found.stop()


def folders(out: Path) -> list[Path]:
    return sorted(out.iterdir())


def someone(server: EmbeddedServer, name: str, room: str = "room") -> Participant:
    return Participant(server.url, room, name=name, ice_addresses="127.0.0.1", video="none")


class Told:
    """A service, the events of its recorders, and the folders that are complete."""

    def __init__(self, server: EmbeddedServer, out: Path, **options: Any) -> None:
        self.events: list[events.Event] = []
        self.finished: list[Path] = []
        settings = load(ws_url=server.url, ice_addresses="127.0.0.1", retries=0)
        self.options = RecordOptions.of(out=out, disk_soft=0, disk_hard=0, **options)
        self.service = RecordingService(
            settings, self.options, emit=self.events.append, finished=self.finished.append
        )

    def info(self, identity: str) -> RecordingInfo:
        [found] = [item for item in self.service.list() if item.id == identity]
        return found

    async def reaches(self, identity: str, state: str) -> None:
        await until(lambda: self.info(identity).state == state, 60)


@asynccontextmanager
async def serving(server: EmbeddedServer, out: Path, **options: Any) -> AsyncIterator[Told]:
    told = Told(server, out, **options)
    async with told.service:
        yield told


async def test_rooms_are_recorded_apart_and_one_that_fails_ends_alone(
    server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Bot.run

    async def broken(bot: Bot) -> None:
        if bot.config.room == "c":
            raise RuntimeError("out of order")
        await run(bot)

    monkeypatch.setattr(Bot, "run", broken)
    async with someone(server, "Ann", "a"), someone(server, "Bob", "b"), serving(server, tmp_path) as told:
        service = told.service
        one, two, three = (service.start(room).id for room in "abc")
        with pytest.raises(ConfigurationError, match="a recorder of a already"):
            service.start("a")
        await told.reaches(three, "failed")
        assert told.info(three).error == "out of order"
        await until(lambda: told.info(one).files == told.info(two).files == 1, 60)
        ended = await service.stop(one)
        assert (ended.state, ended.cause, ended.files) == ("over", "stopped", 1)
        assert told.info(two).state == "recording"
        assert told.finished == [ended.folder]
        assert service.start("a").id != one  # it is over
    made = {info.room: info.folder for info in service.list() if info.files}
    for room, name in {"a": "Ann", "b": "Bob"}.items():
        folder = made[room]
        assert folder is not None
        manifest = read_manifest(folder)
        assert (manifest.room, manifest.state, [who.name for who in manifest.participants]) == (
            room,
            "finished",
            [name],
        )
    assert [str(error) for error in service.errors()] == ["out of order"]


async def test_a_recorder_joins_and_leaves_when_its_schedule_says(server: EmbeddedServer, tmp_path: Path) -> None:
    async with someone(server, "Ann") as ann, serving(server, tmp_path) as told:
        start = datetime.now(UTC) + timedelta(seconds=1)
        end = start + timedelta(seconds=2)
        options = told.options.changed(start=start.isoformat(), end=end.isoformat())
        identity = told.service.start("room", options=options).id
        assert told.info(identity).state == "scheduled"
        assert folders(tmp_path) == []
        later = told.options.changed(start=(end + timedelta(hours=1)).isoformat())
        never = told.service.start("other", options=later).id
        assert (await told.service.stop(never)).state == "over"
        await until(lambda: len(ann.others) == 1)
        assert datetime.now(UTC) >= start
        await told.reaches(identity, "over")
    assert datetime.now(UTC) >= end
    assert told.info(identity).cause == "schedule"
    assert told.info(never).folder is None


def chats(participant: Participant) -> tuple[list[str], asyncio.Task[None]]:
    heard: list[str] = []

    async def listen() -> None:
        async for event in participant.events():
            heard.extend([event.body] if isinstance(event, events.ChatMessageReceived) else [])

    return heard, asyncio.create_task(listen())


async def test_moderators_start_and_stop_by_chat_and_nobody_else(server: EmbeddedServer, tmp_path: Path) -> None:
    async with someone(server, "Ann") as ann:
        await until(lambda: ann.room.moderator)
        async with someone(server, "Bob") as bob, serving(server, tmp_path, standby=True) as told:
            identity = told.service.start("room").id
            await told.reaches(identity, "standby")
            heard, listening = chats(ann)
            recorder = told.service.recorder(identity)
            assert recorder is not None

            def flag() -> str | None:
                conference = recorder.participant.conference
                assert conference is not None
                assert conference.room.presence is not None
                said = {item.tag.rpartition("}")[2]: item.text for item in conference.room.presence.elements()}
                return said[f"jitsi_participant_{PROPERTY}"]

            assert not bob.room.moderator
            bob.room.send_chat("!record start")
            await until(lambda: chat.REFUSED in heard)
            assert (told.info(identity).state, flag(), folders(tmp_path)) == ("standby", "false", [])
            for number in (1, 2):
                heard.clear()
                ann.room.send_chat("!record start")
                await told.reaches(identity, "recording")
                await until(lambda n=number: told.info(identity).files == 2, 60)  # type: ignore[misc]
                assert flag() == "true"
                ann.room.send_chat("!record start")
                ann.room.send_chat("!record")
                await until(lambda: heard[-1].startswith("Recording sound and pictures for 0:0"))
                assert heard[:-1] == [chat.BEGINS, told.options.announcement, chat.RUNS]
                ann.room.send_chat("!record stop")
                await until(lambda n=number: len(told.finished) == n)  # type: ignore[misc]
                assert told.info(identity).state == "standby"
                assert flag() == "false"
            await until(lambda: chat.ENDED in heard)
            listening.cancel()
            await asyncio.wait([listening])
    assert len(set(told.finished)) == 2
    for folder in told.finished:
        manifest = read_manifest(folder)
        assert (manifest.state, manifest.end_cause) == ("finished", "moderator")
        assert sorted(who.name for who in manifest.participants) == ["Ann", "Bob"]
        assert not (folder / ".lock").exists()


async def test_a_moderator_ends_a_recorder_that_does_not_stand_by(server: EmbeddedServer, tmp_path: Path) -> None:
    async with someone(server, "Ann") as ann:
        await until(lambda: ann.room.moderator)
        async with serving(server, tmp_path) as told:
            identity = told.service.start("room").id
            await told.reaches(identity, "recording")
            ann.room.send_chat("!record stop")
            await told.reaches(identity, "over")
            await until(lambda: not ann.others)
    assert told.info(identity).cause == "moderator"
