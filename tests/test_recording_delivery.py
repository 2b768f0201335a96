"""Finished recordings on their way: to a folder, a command, a web-hook; over failures and new starts."""

from __future__ import annotations

import asyncio
import errno
import json
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from bot import events
from bot.errors import ConfigurationError
from bot.recording import delivery, targets
from bot.recording.delivery import (
    STATE,
    Deliverer,
    DeliveryState,
    NotDeliveredError,
    Stopped,
    Target,
    files_of,
    in_thread,
    mark,
    read_state,
    undelivered,
)
from bot.recording.destinations import targets_of
from bot.recording.manifest import MANIFEST, Manifest
from bot.recording.options import RecordOptions
from bot.recording.recover import locked
from bot.recording.targets import CommandTarget, FolderTarget, WebHookTarget
from bot.service.signing import IDENTITY, SIGNATURE, STAMP, signature
from tests.recording_support import STARTED


def recording(out: Path, name: str = "room-20260102T030405Z", *, state: str = "finished") -> Path:
    """A recording that has ended and is to be delivered."""
    folder = out / name
    folder.mkdir(parents=True)
    manifest = Manifest(program="test", room="room", started=STARTED, duration=4.5)
    manifest.participant("ab12").name = "Ann"
    manifest.state = "finished" if state == "finished" else "recording"
    (folder / MANIFEST).write_bytes(manifest.to_json())
    for number in range(3):
        (folder / f"Ann-a0-{number}.webm").write_bytes(bytes([number]) * 100_000)
    mark(folder)
    return folder


class FakeTarget:
    """A target that fails as it is told to."""

    def __init__(self, name: str, *failures: Exception, stores: bool = False) -> None:
        self.name = name
        self.stores = stores
        self.failures = list(failures)
        self.calls: list[Path] = []

    async def deliver(self, folder: Path, delivery: DeliveryState, save: Callable[[], None]) -> None:
        self.calls.append(folder)
        if self.failures:
            raise self.failures.pop(0)


class Run:
    """A deliverer whose pauses are over at once."""

    def __init__(self, *wanted: Target, remove: bool = False) -> None:
        self.events: list[events.Event] = []
        self.pauses: list[float] = []
        self.deliverer = Deliverer(wanted, emit=self.events.append, remove=remove, sleep=self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)

    async def of(self, *folders: Path) -> bool:
        for folder in folders:
            self.deliverer.add(folder)
        try:
            return await self.deliverer.drain(30) and not self.deliverer.left
        finally:
            await self.deliverer.close()

    @property
    def told(self) -> list[tuple[str, str]]:
        found = (events.RecordingDelivered, events.RecordingNotDelivered)
        return [(item.name, item.target) for item in self.events if isinstance(item, found)]


# --- the deliverer ----------------------------------------------------------------------------------------


async def test_storage_comes_first_and_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    folder = recording(tmp_path)
    assert undelivered(tmp_path) == [folder]
    order: list[str] = []
    hook, store = FakeTarget("hook"), FakeTarget("store", stores=True)
    run = Run(hook, store)
    run.deliverer._prepare = lambda *_: order.append("prepared")
    assert await run.of(folder)
    assert run.told == [("recording_delivered", "store"), ("recording_delivered", "hook")]
    assert order == ["prepared"]
    assert undelivered(tmp_path) == []
    assert not (folder / ".lock").exists()
    again = Run(hook, store)
    assert await again.of(folder)
    assert (len(hook.calls), len(store.calls), again.told) == (1, 1, [])


async def test_failures_are_tried_again_later_and_later(tmp_path: Path) -> None:
    folder = recording(tmp_path)
    full = OSError(errno.ENOSPC, "No space left on device")
    store = FakeTarget("store", NotDeliveredError("down"), full, *[NotDeliveredError("x")] * 7, stores=True)
    run = Run(store)
    assert await run.of(folder)
    assert run.pauses == [2, 4, 8, 16, 32, 64, 128, 256, 300]
    state = read_state(folder)
    assert state is not None
    assert (state.done, state.targets["store"].attempts, state.targets["store"].error) == (True, 10, None)
    causes = [item.cause for item in run.events if isinstance(item, events.RecordingNotDelivered)]
    assert causes[:2] == ["down", "[Errno 28] No space left on device"]


async def test_what_is_refused_waits_for_the_next_start_and_nobody_is_told_of_it(tmp_path: Path) -> None:
    folder = recording(tmp_path)
    store = FakeTarget("store", NotDeliveredError("no such bucket", retryable=False), stores=True)
    hook = FakeTarget("hook")
    run = Run(store, hook)
    assert not await run.of(folder)
    assert run.told == [("recording_not_delivered", "store")]
    assert (run.pauses, hook.calls) == ([], [])
    assert undelivered(tmp_path) == [folder]
    assert await Run(store, hook).of(folder)
    assert (len(store.calls), len(hook.calls)) == (2, 1)


async def test_one_hook_that_refuses_does_not_keep_another_from_being_told(tmp_path: Path) -> None:
    folder = recording(tmp_path)
    one, two = FakeTarget("one", NotDeliveredError("no", retryable=False)), FakeTarget("two")
    assert not await Run(one, two).of(folder)
    assert len(two.calls) == 1
    assert await Run(one, two).of(folder)
    assert (len(one.calls), len(two.calls)) == (2, 1)


async def test_an_interrupted_delivery_is_left_for_the_next_start(tmp_path: Path) -> None:
    folder = recording(tmp_path)
    began = asyncio.Event()

    class Endless(FakeTarget):
        async def deliver(self, folder: Path, delivery: DeliveryState, save: Callable[[], None]) -> None:
            began.set()
            await asyncio.Event().wait()

    run = Run(Endless("store", stores=True))
    run.deliverer.add(folder)
    run.deliverer.add(folder)
    await began.wait()
    assert not await run.deliverer.drain(0.01)
    assert run.deliverer.waiting == (folder,)
    await run.deliverer.close()
    assert undelivered(tmp_path) == [folder]
    assert await Run(FakeTarget("store", stores=True)).of(folder)


async def test_a_recording_that_somebody_has_is_left_alone(tmp_path: Path) -> None:
    folder = recording(tmp_path)
    hook = FakeTarget("hook")
    with locked(folder):
        assert not await Run(hook).of(folder)
    assert hook.calls == []


async def test_local_files_go_only_after_storage_has_them_and_where_that_is_asked_for(tmp_path: Path) -> None:
    one, two, three = (recording(tmp_path / "out", name) for name in ("a", "b", "c"))
    assert await Run(FolderTarget(tmp_path / "there")).of(one)
    assert one.exists()
    refused = FakeTarget("store", NotDeliveredError("no", retryable=False), stores=True)
    assert not await Run(FolderTarget(tmp_path / "there"), refused, remove=True).of(two)
    assert two.exists()
    assert await Run(FolderTarget(tmp_path / "there"), remove=True).of(three)
    assert not three.exists()
    assert await Run(FakeTarget("hook"), remove=True).of(one)
    assert one.exists()  # nobody holds a copy that this deliverer knows of
    assert len(files_of(tmp_path / "there" / "c")) == 4


async def test_only_what_has_ended_and_was_to_be_delivered_is(tmp_path: Path) -> None:
    going_on = recording(tmp_path, "going-on", state="recording")
    mine, wanted, broken = (recording(tmp_path, name) for name in ("mine", "wanted", "broken"))
    (mine / STATE).unlink()
    (broken / STATE).write_text("{")
    (tmp_path / "other").mkdir()
    assert undelivered(tmp_path) == [broken, wanted]
    assert delivery.finished(mine) == [mine]
    assert going_on not in delivery.finished(tmp_path)
    assert undelivered(tmp_path / "nowhere") == []


async def test_a_thread_is_over_when_its_caller_is() -> None:
    begun, ended = threading.Event(), threading.Event()

    def work(stopped: Stopped) -> None:
        begun.set()
        try:
            while True:
                stopped.check()
        finally:
            ended.set()

    task = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


# --- a folder ---------------------------------------------------------------------------------------------


async def test_a_copy_goes_on_where_it_was_broken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = recording(tmp_path)
    copied: list[str] = []
    copy = targets._copy_file

    def failing(source: Path, destination: Path, stopped: Stopped) -> None:
        copied.append(source.name)
        if len(copied) == 2:
            destination.write_bytes(b"half")
            raise OSError(errno.EIO, "Input/output error")
        copy(source, destination, stopped)

    monkeypatch.setattr(targets, "_copy_file", failing)
    there = tmp_path / "there"
    run = Run(FolderTarget(there))
    assert await run.of(folder)
    assert copied == ["Ann-a0-0.webm", "Ann-a0-1.webm", "Ann-a0-1.webm", "Ann-a0-2.webm", MANIFEST]
    [place] = there.iterdir()
    assert place.name == folder.name
    assert place.stat().st_mode & 0o777 == 0o700
    for path in files_of(folder):
        assert (place / path.name).read_bytes() == path.read_bytes()
        assert (place / path.name).stat().st_mode & 0o777 == 0o600
    state = read_state(folder)
    assert state is not None
    assert state.targets["folder"].place == str(place)


async def test_nothing_is_written_over(tmp_path: Path) -> None:
    folder = recording(tmp_path / "out")
    other = tmp_path / "there" / folder.name
    other.mkdir(parents=True)
    (other / MANIFEST).write_text("another one")
    run = Run(FolderTarget(tmp_path / "there"))
    assert not await run.of(folder)
    assert (other / MANIFEST).read_text() == "another one"


# --- a command --------------------------------------------------------------------------------------------


def script(tmp_path: Path, text: str) -> str:
    path = tmp_path / "hook.py"
    path.write_text(f"import os, sys, time\n{text}\n")
    return f"{sys.executable} '{path}' --flag"


async def test_a_command_gets_the_folder_and_is_run_again_where_it_fails(tmp_path: Path) -> None:
    folder = recording(tmp_path)
    command = script(
        tmp_path,
        "with open(os.path.join(os.path.dirname(sys.argv[0]), 'said'), 'a') as file:\n"
        "    print(*sys.argv[1:], os.environ['JITSI_RECORDING_ROOM'], file=file)\n"
        "sys.exit('not yet') if len(open(file.name).readlines()) < 2 else None",
    )
    run = Run(CommandTarget(command))
    assert await run.of(folder)
    assert (tmp_path / "said").read_text() == f"--flag {folder} room\n" * 2
    [failed] = [item for item in run.events if isinstance(item, events.RecordingNotDelivered)]
    assert failed.cause.endswith("ended with 1: not yet")
    assert failed.retry == 2


async def test_a_command_that_hangs_is_ended_and_one_that_is_not_there_refused(tmp_path: Path) -> None:
    folder = recording(tmp_path)
    hanging = CommandTarget(script(tmp_path, "time.sleep(100)"), timeout=0.2)
    state = DeliveryState()
    with pytest.raises(NotDeliveredError, match="took more than"):
        await hanging.deliver(folder, state, lambda: None)
    with pytest.raises(NotDeliveredError, match="No such file") as refused:
        await CommandTarget("/no/such/command").deliver(folder, state, lambda: None)
    assert not refused.value.retryable


# --- a web-hook -------------------------------------------------------------------------------------------


class Receiver:
    """A server that answers as it is told to, 204 afterwards."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.got: list[tuple[dict[str, str], bytes]] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        return web.Response(status=self.answers.pop(0) if self.answers else 204)


@asynccontextmanager
async def listening(receiver: Receiver) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_post("/hook", receiver.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/hook"
    finally:
        await runner.cleanup()


async def test_a_web_hook_is_signed_and_told_until_it_takes_it(tmp_path: Path) -> None:
    folder = recording(tmp_path / "out")
    receiver = Receiver(503, 429)
    async with listening(receiver) as url:
        hook = WebHookTarget(url, "geheim", wall=lambda: 1234.5)
        run = Run(hook, FolderTarget(tmp_path / "there"))
        assert await run.of(folder)
    assert len(receiver.got) == 3
    for headers, body in receiver.got:
        assert headers[STAMP] == "1234"
        assert headers[IDENTITY] == folder.name
        assert headers[SIGNATURE] == signature("geheim", "1234", body)
    said = json.loads(receiver.got[-1][1])
    assert said["places"] == {"folder": str(tmp_path / "there" / folder.name)}
    assert said["files"]["Ann-a0-0.webm"] == 100_000
    assert (said["room"], said["duration"], said["participants"]) == (
        "room",
        4.5,
        [{"endpoint": "ab12", "name": "Ann"}],
    )


@pytest.mark.parametrize("status", [302, 400, 404])
async def test_a_web_hook_that_refuses_is_not_bothered_again_by_this_process(tmp_path: Path, status: int) -> None:
    folder = recording(tmp_path)
    receiver = Receiver(status)
    async with listening(receiver) as url:
        run = Run(WebHookTarget(url))
        assert not await run.of(folder)
    assert len(receiver.got) == 1
    assert SIGNATURE not in receiver.got[0][0]


async def test_a_web_hook_that_is_not_there_may_come(tmp_path: Path) -> None:
    folder = recording(tmp_path)
    async with listening(Receiver()) as url:
        pass
    with pytest.raises(NotDeliveredError) as failed:
        await WebHookTarget(url).deliver(folder, DeliveryState(), lambda: None)
    assert failed.value.retryable


# --- the options ------------------------------------------------------------------------------------------


def test_the_options_say_where_recordings_go(tmp_path: Path) -> None:
    assert targets_of(RecordOptions()) == []
    assert not RecordOptions().delivers
    options = RecordOptions.of(deliver_folder=tmp_path, hook_command="true", webhook_url="https://example.com/x")
    assert [target.name for target in targets_of(options)] == ["folder", "command", "webhook"]
    assert options.delivers
    assert RecordOptions.of(audio="wav").delivers


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"remove_delivered": True}, "remove_delivered needs"),
        ({"remove_delivered": True, "hook_command": "true"}, "remove_delivered needs"),
        ({"s3_bucket": "b", "s3_access_key": "x"}, "s3_secret_key"),
        ({"webhook_secret": "x"}, "webhook_url"),
        ({"webhook_url": "example.com"}, "record webhook_url"),
        ({"hook_command": "  "}, "record hook_command"),
        ({"audio": "mp3"}, "record audio"),
    ],
)
def test_options_that_make_no_sense_name_what_is_wrong(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        RecordOptions.of(**options)
