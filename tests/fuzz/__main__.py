"""Coverage-guided fuzzing of all that a remote party reaches: ``make fuzz``, or ``python -m tests.fuzz --help``.

Each target runs in a process of its own, one after the other, for its share of the time. What fails is kept as a
file, which ``python -m tests.fuzz.run TARGET FILE`` repeats.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz import corpus
from tests.fuzz.targets import TARGETS

#: An input that takes longer (seconds), or a process that holds more (MiB), is a finding, too.
SLOW, MEMORY = 10, 1024
MAX_LENGTH = 4096


def main() -> int:
    """Fuzz; 1 where something was found."""
    options = _options()
    if importlib.util.find_spec("atheris") is None:
        sys.stdout.write("not fuzzed: there is no atheris for this Python or machine\n")
        return 0
    options.output.mkdir(parents=True, exist_ok=True)
    share = max(1, options.seconds // len(options.target))
    found = [name for name in options.target if not _fuzz(name, share, options.output)]
    for name in found:
        for path in sorted(options.output.glob(f"{name}-*")):
            sys.stdout.write(f"found: {path}; repeat it by: {sys.executable} -m tests.fuzz.run {name} {path}\n")
    return 1 if found else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="time for all targets together [60]")
    parser.add_argument("--output", type=Path, default=Path("test-output/fuzz"), help="where findings are kept")
    parser.add_argument("--target", action="append", help=f"one of {', '.join(TARGETS)}; may be repeated [all]")
    options = parser.parse_args()
    options.target = options.target or list(TARGETS)
    return options


def _fuzz(name: str, seconds: int, output: Path) -> bool:
    """Whether ``name`` lasted ``seconds``."""
    with tempfile.TemporaryDirectory() as directory:
        seeds = Path(directory)
        count = corpus.write(name, seeds)
        log = output / f"{name}.log"
        command = [
            *(sys.executable, "-m", "tests.fuzz.run", name, str(seeds)),
            *(f"-max_total_time={seconds}", f"-timeout={SLOW}", f"-rss_limit_mb={MEMORY}"),
            *(f"-max_len={MAX_LENGTH}", f"-artifact_prefix={output}/{name}-"),
        ]
        with log.open("wb") as out:
            # A process that hangs where libFuzzer can't see it is ended, and is a finding as well.
            try:
                code = subprocess.run(
                    command, stdout=out, stderr=out, env=os.environ, timeout=60 + 2 * seconds, check=False
                ).returncode
            except subprocess.TimeoutExpired:
                code = -1
        said = log.read_text(errors="replace")
    runs = next((line for line in said.splitlines()[::-1] if line.startswith("Done")), f"failed with {code}")
    sys.stdout.write(f"{name}: {count} seeds, {runs}\n" + ("" if code == 0 else f"{said[-4000:]}\n"))
    return code == 0


if __name__ == "__main__":
    sys.exit(main())
