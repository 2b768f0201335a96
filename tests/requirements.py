"""What tests need beside Python: missing, it skips them where a user can't install it, and fails them in CI."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def unavailable(reason: str) -> NoReturn:
    """Skip the test for ``reason``; fail it in CI, which installs all that tests need."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def require(*programs: str) -> None:
    """Go on only where all ``programs`` are installed."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [program for program in programs if shutil.which(program, path=path) is None]
    if missing:
        unavailable(f"Debian's packages are not installed: {', '.join(missing)}")
