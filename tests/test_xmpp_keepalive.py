"""The keep-alive URL: polled on an injected clock, its failures told, never raised."""

import asyncio

from aiohttp import web

from bot.xmpp.keepalive import keep_alive


async def test_without_a_url_nothing_is_polled() -> None:
    await asyncio.wait_for(keep_alive(None, 60, lambda _: None), 5)


async def test_failures_are_told_and_the_polling_goes_on() -> None:
    asked: list[str] = []
    failures: list[str] = []
    slept: list[float] = []
    statuses = iter([200, 503, 200])
    enough = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=next(statuses))

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) > 3:
            await runner.cleanup()
        if len(slept) > 5:
            enough.set()
            await asyncio.Event().wait()

    app = web.Application()
    app.router.add_get("/alive", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    task = asyncio.create_task(keep_alive(f"http://127.0.0.1:{port}/alive", 60.0, failures.append, sleep=sleep))
    await asyncio.wait_for(enough.wait(), 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert asked == ["/alive"] * 3
    assert slept[0] == 60.0
    assert failures[0] == "HTTP 503"
    assert len(failures) == 3
    assert "127.0.0.1" in failures[1]
