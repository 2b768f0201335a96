"""The documentation holds: its pages build, its table names tests that exist, its examples run."""

import re
import subprocess
import sys
from pathlib import Path

import pdoc
import pytest

from bot.events import all_event_types
from bot.monitor.meeting_metrics import MeetingMetrics
from bot.monitor.metrics import ProbeMetrics
from bot.service.metrics import Metrics
from docs.pages import PAGES, lines_of

ROOT = Path(__file__).parents[1]
#: What a program may import; the pages of `make docs`.
PUBLIC = ("bot.api", "bot.events", "bot.settings", "bot.errors", "bot.media.remote", "bot.media.synthetic")


def rows() -> list[list[str]]:
    lines = [line for line in (ROOT / "docs" / "features.md").read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_pages_build_and_the_makefile_names_the_same(tmp_path: Path) -> None:
    pdoc.pdoc(*PUBLIC, output_directory=tmp_path)
    page = (tmp_path / "bot" / "api.html").read_text()
    assert "joins (or raises why not) and leaves" in page
    assert " ".join(PUBLIC) in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_each_feature_names_what_shows_it_and_where(row: list[str]) -> None:
    assert len(row) == 6
    named = re.findall(r"`(tests/[^`]+|make [^`]+|jitsi-bot [^`]+)`", row[1])
    assert named
    for item in named:
        if item.startswith("tests/"):
            file, _, function = item.partition("::")
            text = (ROOT / file).read_text()
            assert not function or re.search(rf"def {re.escape(function)}\(", text), item
    assert set(row[2:]) <= {"yes", ""}
    assert "yes" in row[2:]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_the_reference_is_what_the_code_says(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == PAGES[name](), "run `make reference`"


def test_the_reference_knows_metrics_events_and_lines() -> None:
    metrics, logs = PAGES["metrics.md"](), PAGES["logs.md"]()
    for text in (Metrics().render(), ProbeMetrics().render(), MeetingMetrics().render()):
        for line in text.decode().splitlines():
            if line.startswith("# TYPE ") and not line.split()[2].endswith("_created"):
                assert f"| `{line.split()[2]}` | {line.split()[3]} |" in metrics
    for kind in all_event_types():
        assert f"| `{kind.name}` | {kind.level} |" in logs
    assert "| `embedded_started` | info | Embedded server is listening | `url` |" in logs


def test_lines_of_the_log_are_found_in_the_source() -> None:
    source = 'log.warning("It broke", event_name="broke", cause=x)\nlog.info("No event")\n'
    assert list(lines_of(source)) == [("broke", "warning", "It broke", ("cause",))]


def test_the_site_builds_and_has_no_dead_links(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {page.stem for page in (tmp_path / "site").glob("*.html")}
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} <= pages
    index = (tmp_path / "site" / "index.html").read_text()
    assert 'href="python/bot/api.html"' in index
