"""Several who ask for one room at the same moment: the first one alone, then the others at once."""

import asyncio

import pytest

from bot.errors import FocusError
from bot.participant.opening import Key, after_the_first

ROOM, OTHER = ("ws://h", "room@muc"), ("ws://h", "other@muc")


class Asked:
    """Requests by number; each is answered when the test says so."""

    def __init__(self) -> None:
        self.first: dict[Key, asyncio.Future[None]] = {}
        self.waiting: dict[int, asyncio.Future[int]] = {}

    def start(self, number: int, key: Key = ROOM) -> asyncio.Task[int]:
        async def ask() -> int:
            answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            self.waiting[number] = answer
            try:
                return await answer
            finally:
                del self.waiting[number]

        return asyncio.create_task(after_the_first(key, ask, first=self.first))


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_others_wait_for_the_first_and_not_for_each_other() -> None:
    asked = Asked()
    tasks = [asked.start(number) for number in range(3)]
    elsewhere = asked.start(3, OTHER)
    await turns()
    assert set(asked.waiting) == {0, 3}
    asked.waiting[0].set_result(0)
    await turns()
    assert set(asked.waiting) == {1, 2, 3}
    for number, waiting in list(asked.waiting.items()):
        waiting.set_result(number)
    assert await asyncio.gather(*tasks, elsewhere) == [0, 1, 2, 3]
    assert asked.first == {}


@pytest.mark.parametrize("how", ["refused", "cancelled"])
async def test_a_first_one_without_an_answer_holds_up_nobody(how: str) -> None:
    asked = Asked()
    one, two = asked.start(1), asked.start(2)
    await turns()
    if how == "refused":
        asked.waiting[1].set_exception(FocusError("no"))
    else:
        one.cancel()
    await turns()
    asked.waiting[2].set_result(2)
    assert await two == 2
    with pytest.raises((FocusError, asyncio.CancelledError)):
        await one
    assert asked.first == {}


async def test_who_gives_up_waiting_leaves_the_first_alone() -> None:
    asked = Asked()
    one, two = asked.start(1), asked.start(2)
    await turns()
    two.cancel()
    with pytest.raises(asyncio.CancelledError):
        await two
    asked.waiting[1].set_result(1)
    assert await one == 1
