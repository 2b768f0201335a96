"""The console in Debian's Chromium: what it shows and starts, by keyboard, on a phone, light and dark."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.browser_support import OUTPUT, chromium, until
from tests.control_support import OPERATE, READ, Daemon, daemon
from tests.requirements import require

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

EVIL = "<img src=x onerror='document.title=1'>"
PATIENCE = 20_000
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    require("chromium")
    with daemon(tmp_path_factory.mktemp("console"), "--bots", "1", "--room", "meeting") as found:
        yield found


@pytest_asyncio.fixture
async def browser() -> AsyncIterator[Browser]:
    require("chromium")
    async with chromium() as found:
        yield found


@asynccontextmanager
async def console(browser: Browser, running: Daemon, token: str = OPERATE, **context: Any) -> AsyncIterator[Page]:
    """The page, once the token was given; what goes wrong in it fails the test."""
    inside = await browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
    page = await inside.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
    try:
        await page.goto(running.base)
        await page.get_by_role("textbox", name="Token").fill(token)
        await page.keyboard.press("Enter")
        await expect(page.locator("#seats")).to_contain_text("participants")
        yield page
        assert wrong == []
    finally:
        await inside.close()


def card(page: Page, text: str) -> Any:
    return page.locator(".card").filter(has_text=text)


async def shot(page: Page, name: str) -> None:
    """The whole page, from its top, as the bar of sections stays where the window is."""
    OUTPUT.mkdir(exist_ok=True)
    await page.evaluate("scrollTo(0, 0)")
    await page.screenshot(path=OUTPUT / f"console-{name}.png", full_page=True)


async def test_participants_come_are_seen_muted_and_leave_by_keyboard_alone(
    running: Daemon, browser: Browser
) -> None:
    async with console(browser, running) as page:
        await page.locator("#participants summary").focus()
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        await page.keyboard.type("meeting")  # the focus selects what was in it
        await page.keyboard.press("Tab")
        await page.keyboard.type(EVIL)
        await page.keyboard.press("Enter")
        own = card(page, EVIL)
        await expect(own.locator('[data-part="state"]')).to_have_text("active")
        await expect(own.locator('[data-part="in"]')).to_contain_text("bit/s")
        await expect(own.locator('[data-part="loss"]')).to_contain_text("%")
        await expect(own.locator('[data-part="phase-text"]')).to_contain_text("joined in")
        assert await own.locator(".phases span").count() >= 8
        await expect(page.locator("#states")).to_contain_text("2 active")

        mute = own.get_by_role("button", name="Mute sound")
        await mute.focus()
        await page.keyboard.press("Space")
        await expect(mute).to_have_attribute("aria-pressed", "true")
        await expect(mute).to_be_focused()
        await own.get_by_label("Message of").fill("Hello all")
        await page.keyboard.press("Enter")
        await expect(own.get_by_label("Message of")).to_have_value("")
        await own.get_by_role("button", name="Log").press("Enter")
        await expect(page.locator("#lines li").first).to_be_visible()
        assert set(await page.locator("#lines b").all_inner_texts()) == {await owner(page)}
        await page.get_by_label("With").fill("Conference joined!")
        await expect(page.locator("#lines li")).to_have_count(1)
        await shot(page, "participants")

        await own.get_by_role("button", name="Leave").press("Enter")
        await expect(own).to_have_count(0)
        assert await page.title() == "jitsi-bot"


async def owner(page: Page) -> str:
    return str(await page.locator("#filter select").input_value())


async def test_a_recording_a_load_run_and_a_probe_are_started_shown_and_stopped(
    running: Daemon, browser: Browser
) -> None:
    async with console(browser, running, color_scheme="dark") as page:
        await page.get_by_text("Record a room").click()
        await page.locator("#recordings").get_by_label("Room").fill("meeting")
        await page.get_by_role("button", name="Record", exact=True).click()
        recording = page.locator("#recording-cards .card").first
        await expect(recording.locator("li", has_text="v0")).to_be_visible()

        await page.get_by_text("Load the deployment").click()
        await page.locator("#loads").get_by_label("Lines of").select_option("180")
        await page.locator("#loads").get_by_label("Threshold").fill("p95(join) < 30s")
        await page.get_by_role("button", name="Start").click()
        load = page.locator("#load-cards .card").first
        await expect(load.locator('[data-part="in-room"]')).to_have_text("in rooms 2")
        await expect(load).to_contain_text("met")
        await load.get_by_role("button", name="Stop").click()

        await page.get_by_text("Probe the deployment").click()
        await page.locator("#probes").get_by_label("Seconds of media").fill("2")
        await page.get_by_role("button", name="Probe", exact=True).click()
        await recording.get_by_role("button", name="Stop").click()
        await expect(recording.locator('[data-part="state"]')).to_have_text("done")
        await until(lambda: page.evaluate("document.querySelector('.card img')?.naturalWidth > 0"), "a picture")
        await recording.locator("li", has_text="v0").get_by_role("button", name="Play").click()
        await until(lambda: page.evaluate("document.querySelector('video')?.currentTime > 0"), "it plays")
        await expect(load.get_by_role("link", name="report.html")).to_be_visible()
        probe = page.locator("#probe-cards .card").first
        await expect(probe.locator(".history li")).to_have_count(1)
        await expect(probe.locator('[data-part="measures"]')).to_contain_text("delay")
        await shot(page, "jobs-dark")


async def test_a_phone_shows_all_of_it_and_a_reader_can_start_nothing(running: Daemon, browser: Browser) -> None:
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    async with console(browser, running, READ, **phone) as page:
        own = page.locator("#rooms .card").first
        await expect(own.locator('[data-part="state"]')).to_have_text(re.compile("active|waiting for peers"))
        assert await page.evaluate("document.documentElement.scrollWidth") == 360
        await expect(page.get_by_role("button", name="Leave")).to_be_disabled()
        await expect(page.get_by_text("Let participants join")).to_be_hidden()
        await expect(page.locator("#lines")).to_contain_text("Conference joined!")
        await shot(page, "phone")


async def test_a_daemon_that_is_gone_is_told(tmp_path: Path, browser: Browser) -> None:
    with daemon(tmp_path) as found:
        async with console(browser, found) as page:
            await page.locator("#participants summary").click()
            await page.locator("#participants").get_by_label("Room").fill("x" * 201)
            await (
                page.locator("#participants")
                .get_by_label("Room")
                .evaluate("field => field.removeAttribute('pattern')")
            )
            await page.get_by_role("button", name="Join", exact=True).click()
            await expect(page.get_by_role("alert")).to_contain_text("body.room")
            found.process.terminate()
            await expect(page.get_by_role("alert")).to_contain_text("does not answer")
