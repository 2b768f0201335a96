"""Recordings in an S3-compatible store: moto's server in a process, behind a proxy that breaks connections off."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bot import events
from bot.errors import ConfigurationError
from bot.recording import s3
from bot.recording.delivery import Deliverer, DeliveryState, NotDeliveredError, TargetState, mark, read_state
from bot.recording.destinations import deliverer_of
from bot.recording.manifest import MANIFEST, Manifest
from bot.recording.options import MEBIBYTE, RecordOptions
from bot.recording.s3 import S3Target
from tests.recording_support import STARTED

pytestmark = pytest.mark.timeout(60)
BUCKET = "recordings"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of moto's server."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("moto") / "log"
    with log.open("wb") as output:
        words = (sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port))
        process = subprocess.Popen(words, stdout=output, stderr=output)
    try:
        for _ in range(300):
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=5):
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


class Proxy:
    """Hands on what comes; once ``limit`` bytes went to the store, connections are broken off, until it is lifted.

    ``parts`` counts the parts that were begun.
    """

    def __init__(self, store: str) -> None:
        self._port = int(store.rpartition(":")[2])
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.limit: int | None = None
        self.passed = 0
        self.parts = 0

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        from_store, to_store = await asyncio.open_connection("127.0.0.1", self._port)
        both = [self._up(reader, to_store), self._down(from_store, writer)]
        try:
            with suppress(ConnectionError):
                await asyncio.gather(*both)
        finally:
            self._tasks.discard(task)
            for item in (writer, to_store):
                item.transport.abort()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if data.startswith(b"PUT ") and b"partNumber=" in data[:500]:
                self.parts += 1
            self.passed += len(data)
            if self.limit is not None and self.passed > self.limit:
                raise ConnectionResetError
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()


@pytest_asyncio.fixture
async def proxy(store: str) -> AsyncIterator[Proxy]:
    found = Proxy(store)
    yield found
    await found.stop()


def options(endpoint: str, **more: Any) -> RecordOptions:
    given = {"s3_bucket": BUCKET, "s3_region": "us-east-1", "s3_access_key": "a", "s3_secret_key": "b"}
    return RecordOptions.of(**(given | {"s3_endpoint": endpoint, "s3_prefix": "/meet/", "s3_part_size": 5} | more))


def client(store: str) -> Any:
    found = s3._client(store, "us-east-1", "a", "b")
    with suppress(found.exceptions.BucketAlreadyOwnedByYou):
        found.create_bucket(Bucket=BUCKET)
    return found


def recording(out: Path, name: str, size: int) -> Path:
    folder = out / name
    folder.mkdir(parents=True)
    manifest = Manifest(program="test", room="room", started=STARTED, duration=4.5, state="finished")
    (folder / MANIFEST).write_bytes(manifest.to_json())
    (folder / "Ann-a0-1.webm").write_bytes(os.urandom(1000))
    (folder / "Ann-v0-1.webm").write_bytes(os.urandom(size))
    mark(folder)
    return folder


def stored(client: Any, name: str) -> dict[str, bytes]:
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix=f"meet/{name}/").get("Contents", ())
    return {
        item["Key"].rpartition("/")[2]: client.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read()
        for item in listed
    }


def local(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


async def deliver(found: Deliverer, folder: Path) -> bool:
    found.add(folder)
    try:
        return await found.drain(40) and not found.left
    finally:
        await found.close()


async def test_an_upload_that_was_broken_off_goes_on_at_the_next_start(
    store: str, proxy: Proxy, tmp_path: Path
) -> None:
    bucket = client(store)
    folder = recording(tmp_path, "broken-off", 17 * MEBIBYTE)
    content = local(folder)
    endpoint = await proxy.start()
    proxy.limit = 12 * MEBIBYTE  # in the middle of the third part of four
    first = deliverer_of(options(endpoint, remove_delivered=True), emit=lambda _: None)
    first.add(folder)
    failed = asyncio.Event()
    first._emit = lambda event: failed.set() if isinstance(event, events.RecordingNotDelivered) else None
    await failed.wait()
    await first.close()  # as the process ends
    state = read_state(folder)
    assert state is not None
    assert list(state.targets["s3"].files) == ["Ann-a0-1.webm"]
    [upload] = state.targets["s3"].uploads.values()
    assert stored(bucket, folder.name).keys() == {"Ann-a0-1.webm"}
    assert [item["UploadId"] for item in bucket.list_multipart_uploads(Bucket=BUCKET)["Uploads"]] == [
        upload.upload_id
    ]
    assert local(folder) == content

    proxy.limit, proxy.parts = None, 0
    assert await deliver(deliverer_of(options(endpoint, remove_delivered=True), emit=lambda _: None), folder)
    assert proxy.parts == 2
    assert stored(bucket, folder.name) == content
    assert "Uploads" not in bucket.list_multipart_uploads(Bucket=BUCKET)
    assert not folder.exists()


async def test_a_part_that_changed_in_the_store_and_an_upload_that_is_gone_are_sent_again(
    store: str, tmp_path: Path
) -> None:
    bucket = client(store)
    target = S3Target(
        BUCKET,
        prefix="meet",
        endpoint=store,
        region="us-east-1",
        access_key="a",
        secret_key=options(store).s3_secret_key,
        part_size=5 * MEBIBYTE,
    )
    for number, spoil in enumerate(("part", "upload")):
        folder = recording(tmp_path, f"spoilt-{number}", 6 * MEBIBYTE)
        state = DeliveryState(targets={"s3": TargetState()})
        name, key = "Ann-v0-1.webm", f"meet/{folder.name}/Ann-v0-1.webm"
        upload, _ = await asyncio.to_thread(
            target._begun, name, key, 6 * MEBIBYTE, state.targets["s3"], lambda: None
        )
        if spoil == "part":
            bucket.upload_part(
                Bucket=BUCKET, Key=key, UploadId=upload.upload_id, PartNumber=1, Body=bytes(5 * MEBIBYTE)
            )
        else:
            bucket.abort_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload.upload_id)
        await target.deliver(folder, state, lambda: None)
        assert stored(bucket, folder.name) == local(folder)
        assert state.targets["s3"].place == f"s3://{BUCKET}/meet/{folder.name}/"


@pytest.mark.parametrize(
    ("changes", "words", "retryable"),
    [({"s3_bucket": "nobodys"}, "NoSuchBucket", False), ({"s3_endpoint": "http://127.0.0.1:9"}, "connect", True)],
)
async def test_what_a_store_refuses_is_told_and_tried_again_where_that_helps(
    store: str, tmp_path: Path, changes: dict[str, str], words: str, retryable: bool
) -> None:
    folder = recording(tmp_path, "refused", 10)
    told: asyncio.Queue[events.Event] = asyncio.Queue()
    found = deliverer_of(options(store, **changes), emit=told.put_nowait)
    found.add(folder)
    event = await told.get()
    await found.close()
    assert isinstance(event, events.RecordingNotDelivered)
    assert words in event.cause
    assert (event.retry is not None) == retryable


def test_without_boto3_the_setting_and_the_extra_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigurationError, match=r"s3_bucket needs boto3 .*jitsi-bot\[s3\]"):
        deliverer_of(options("http://127.0.0.1:9"), emit=lambda _: None)


def test_a_store_without_credentials_is_refused_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    folder = recording(tmp_path, "x", 10)
    target = S3Target(BUCKET, endpoint="http://127.0.0.1:9", region="us-east-1", part_size=5 * MEBIBYTE)
    with pytest.raises(NotDeliveredError, match="credentials") as failed:
        asyncio.run(target.deliver(folder, DeliveryState(targets={"s3": TargetState()}), lambda: None))
    assert not failed.value.retryable
