"""When what there is is taken out of the garbage collections, and when it is put back."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from bot.engine import calm
from bot.engine.calm import Calm


@pytest.fixture(autouse=True)
def collected(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(calm, "SETTLED", 0.02)
    yield
    gc.unfreeze()


async def test_what_has_settled_is_frozen_until_somebody_goes() -> None:
    one = Calm()
    one.enabled = True
    before = gc.get_freeze_count()
    one.came()
    await asyncio.sleep(0.01)
    one.came()
    assert gc.get_freeze_count() == before
    await asyncio.sleep(0.05)
    assert gc.get_freeze_count() > before
    assert repr(one) == "<Calm 2 sessions frozen>"
    one.went()
    assert gc.get_freeze_count() == 0


async def test_while_others_last_nothing_is_frozen_after_one_went() -> None:
    one = Calm()
    one.enabled = True
    one.came()
    one.came()
    one.went()
    one.came()
    await asyncio.sleep(0.05)
    assert repr(one) == "<Calm 2 sessions collected>"
    one.went()
    one.went()
    one.came()
    await asyncio.sleep(0.05)
    assert repr(one) == "<Calm 1 sessions frozen>"
    one.went()


async def test_off_it_does_nothing() -> None:
    one = Calm()
    one.came()
    await asyncio.sleep(0.05)
    assert repr(one) == "<Calm 1 sessions collected>"
    one.went()
