"""The command as a process and a server that hangs: one signal waits for the room, a second one does not."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest_asyncio

from tests.prosody import free_port

Process = asyncio.subprocess.Process


async def command(*words: str) -> Process:
    environment = {**os.environ, "JITSI_LOG_FORMAT": "json"}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", *words, stderr=asyncio.subprocess.PIPE, env=environment
    )


async def said(process: Process, text: str) -> None:
    """Read the log until ``text``."""
    assert process.stderr is not None
    async with asyncio.timeout(30):
        while text not in (await process.stderr.readline()).decode():
            assert process.returncode is None, f"ended before {text!r}"


@dataclass
class Pair:
    """A server and a bot in its room."""

    server: Process
    bot: Process


@pytest_asyncio.fixture
async def pair() -> AsyncIterator[Pair]:
    port = free_port()
    server = await command("serve", "--port", str(port))
    await said(server, "embedded_started")
    bot = await command("run", "--url", f"ws://127.0.0.1:{port}")
    await said(bot, "Local tracks created: 2")
    yield Pair(server, bot)
    server.send_signal(signal.SIGCONT)
    for process in (bot, server):
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.communicate(), 15)
    assert server.returncode == 0


async def test_one_signal_waits_for_a_server_that_hangs_but_not_for_ever(pair: Pair) -> None:
    pair.server.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    pair.bot.terminate()
    _, text = await asyncio.wait_for(pair.bot.communicate(), 15)
    took = time.monotonic() - began
    assert pair.bot.returncode == 0
    assert b'"clean": false' in text
    assert took < 7.0, took


async def test_a_second_signal_ends_at_once(pair: Pair) -> None:
    pair.server.send_signal(signal.SIGSTOP)
    pair.bot.terminate()
    await asyncio.sleep(0.5)
    assert pair.bot.returncode is None
    began = time.monotonic()
    pair.bot.terminate()
    assert await asyncio.wait_for(pair.bot.wait(), 10) == -signal.SIGTERM
    assert time.monotonic() - began < 1.0
