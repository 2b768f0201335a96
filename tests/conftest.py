"""Guards around every test: no leaked task, no leaked thread pool, no file of the user's home."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import structlog
from hypothesis import settings

from bot.participant.expectation import sctp_advertising
from tests.prosody import Stack, make_stack

# An example's time says how busy the machine is, nothing of what it tests.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

DATA = Path(__file__).parent / "data"
CAPTURES = DATA / "captures"


def _own_tasks() -> set[asyncio.Task[object]]:
    return {task for task in asyncio.all_tasks() if not task.done() and task is not asyncio.current_task()}


@pytest_asyncio.fixture(autouse=True)
async def no_leaked_tasks(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Fail a test that leaves tasks behind: nothing in this program is fired and forgotten."""
    if not inspect.iscoroutinefunction(getattr(request, "function", None)):
        yield
        return
    before = _own_tasks()
    yield
    leaked = _own_tasks() - before
    for _ in range(20):  # what was cancelled a moment ago needs some turns of the loop to end
        if not leaked:
            break
        await asyncio.sleep(0)
        leaked = {task for task in leaked if not task.done()}
    for task in leaked:
        task.cancel()
    assert not leaked, f"tasks left behind: {[task.get_coro() for task in leaked]}"


@pytest.fixture(autouse=True)
def plain_logs() -> Iterator[None]:
    """Let no test log as another one has set it up."""
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def forgotten_deployments() -> Iterator[None]:
    """Let no test know what another one has learnt of a deployment: ports, and so addresses, come again."""
    yield
    sctp_advertising.cache_clear()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests out of them."""
    for name in list(os.environ):
        if name.startswith(("JITSI_", "NEXT_PUBLIC_JITSI_")):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Encoded media of the tests, made once for all of them, and away from the user's."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest_asyncio.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    """Debian's Prosody behind Debian's nginx, started."""
    found = make_stack(tmp_path)
    await found.start()
    yield found
    await found.stop()
