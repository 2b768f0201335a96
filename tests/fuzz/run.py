"""One target under atheris, in a process of its own: ``python -m tests.fuzz.run TARGET [libFuzzer's options]``."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["bot"]):
    from tests.fuzz.targets import TARGETS


def canary(data: bytes) -> None:
    """Fail soon: the proof that a fault is found, kept and reported."""
    if data[:1] == b"!":
        raise ValueError("the canary's fault")


def main() -> None:
    """Run the target for as long as libFuzzer is told to, or on the files named."""
    name, *options = sys.argv[1:]
    atheris.Setup([name, *options], {**TARGETS, "canary": canary}[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
