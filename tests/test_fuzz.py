"""The fuzzer's targets under hypothesis, and the fuzzer itself: it finds a fault, keeps it, and fails."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.bridge import streams
from tests.fuzz import corpus
from tests.fuzz.targets import TARGETS
from tests.requirements import unavailable

NAMES = sorted(TARGETS)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60)
@given(data=st.binary(max_size=300))
def test_whatever_is_said_is_read_or_refused(name: str, data: bytes) -> None:
    TARGETS[name](data)


@pytest.mark.parametrize("name", NAMES)
def test_the_corpus_of_each_target_passes(name: str, tmp_path: Path) -> None:
    assert corpus.write(name, tmp_path) >= corpus.RUNS * len(corpus.LENGTHS)
    for path in tmp_path.iterdir():
        TARGETS[name](path.read_bytes())


@pytest.mark.parametrize("name", ["frame", "message", "json_sources"])
def test_recorded_traffic_is_in_the_corpus(name: str, tmp_path: Path) -> None:
    assert corpus.write(name, tmp_path) > corpus.RUNS * len(corpus.LENGTHS)


def test_a_target_sees_a_fault_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was there: SSRCs of a bridge's map that have more than 32 bits."""
    monkeypatch.setattr(streams, "_is_ssrc", lambda value: isinstance(value, int))
    rng = random.Random(1)
    with pytest.raises(AssertionError):
        for _ in range(5000):
            TARGETS["message"](rng.randbytes(200))


def fuzz(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


def test_what_the_fuzzer_finds_is_kept_and_fails_the_run(tmp_path: Path) -> None:
    try:
        import atheris  # noqa: F401, PLC0415
    except ImportError:
        unavailable("there is no atheris for this Python or machine")
    done = fuzz("tests.fuzz", "--target", "canary", "--seconds", "10", "--output", str(tmp_path))
    assert done.returncode == 1, done.stdout
    (found,) = tmp_path.glob("canary-crash-*")
    assert found.read_bytes()[:1] == b"!"
    assert str(found) in done.stdout
    assert "the canary's fault" in done.stdout
    assert fuzz("tests.fuzz.run", "canary", str(found)).returncode != 0


def test_a_machine_without_the_fuzzer_says_so() -> None:
    code = "import sys; sys.modules['atheris'] = None; from tests.fuzz.__main__ import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stdout.partition(":")[0]) == (0, "not fuzzed")
