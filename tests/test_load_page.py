"""The report's page in Debian's Chromium, at the widths of a desktop and of a phone, light and dark."""

import shutil
from pathlib import Path

import pytest
from playwright.async_api import async_playwright

from bot.load.report import files
from tests.load_support import eventful
from tests.requirements import require

#: Where the pictures are kept after a run.
OUTPUT = Path(__file__).parents[1] / "test-output"


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
async def test_the_page_fits_needs_nothing_else_and_can_be_read(tmp_path: Path, width: int, scheme: str) -> None:
    require("chromium")
    files.write(eventful(), tmp_path)
    said: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--disable-gpu"]
        )
        page = await browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme="dark" if scheme == "dark" else "light"
        )
        page.on("console", lambda message: said.append(message.text))
        page.on("request", lambda request: said.append(request.url))
        await page.goto((tmp_path / "report.html").as_uri())
        assert said == [(tmp_path / "report.html").as_uri()], "one request, no message on the console"
        assert await page.evaluate("document.documentElement.scrollWidth") == width, "nothing sticks out"
        charts = page.locator("svg:visible")
        assert await charts.count() == 8
        for box in [await charts.nth(number).bounding_box() for number in range(8)]:
            assert box is not None
            assert box["width"] > 300
            assert box["x"] + box["width"] <= width
        # Texts of charts are not scaled with the page: they stay as large as they are drawn.
        heights = await page.evaluate(
            "[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height)"
        )
        assert min(height for height in heights if height) >= 11
        OUTPUT.mkdir(exist_ok=True)
        await page.screenshot(path=OUTPUT / f"load-report-{width}-{scheme}.png", full_page=True)
        await browser.close()
