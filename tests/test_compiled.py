"""The package as a C compiler makes it: the engine's tests pass on the compiled modules, too."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.requirements import require, unavailable

ROOT = Path(__file__).parents[1]
#: Those that say most of what is compiled: one by one, and beside the path packet by packet.
TESTED = ("oracle", "send", "session", "pacer", "sockets")
WHICH = "import bot.engine.streams as found; print(found.__file__)"

pytestmark = pytest.mark.timeout(600)  # the first test waits for the compiler


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that imports the compiled package."""
    require("cc")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        unavailable("Python's headers are not installed")
    directory = tmp_path_factory.mktemp("compiled")
    words = (
        "setup.py",
        "--quiet",
        "build",
        "--build-base",
        str(directory / "base"),
        "--build-lib",
        str(directory),
    )
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True)
    paths = os.pathsep.join((str(directory), str(ROOT)))
    return os.environ | {"PYTHONSAFEPATH": "1", "PYTHONPATH": paths, "PYTEST_ADDOPTS": ""}


def _run(environment: dict[str, str], *words: str) -> str:
    """What Python says with ``words``; the assertion shows what went wrong."""
    found = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def test_what_is_imported_is_compiled(compiled: dict[str, str]) -> None:
    assert Path(_run(compiled, "-c", WHICH).strip()).suffix == ".so"


def test_the_tests_of_the_engine_pass(compiled: dict[str, str]) -> None:
    files = [f"tests/test_engine_{name}.py" for name in TESTED]
    said = _run(compiled, "-m", "pytest", "-q", "--import-mode=append", "-p", "no:cacheprovider", *files)
    assert " passed" in said
