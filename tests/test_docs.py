"""The documentation holds: its pages build, its table names tests that exist, its examples run."""

import re
from pathlib import Path

import pdoc
import pytest

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
