"""Builds the Dockerfile and runs the image without a container engine: buildah, mmdebstrap, and namespaces."""

from __future__ import annotations

import ast
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.requirements import require, unavailable

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "config"
NOTHING: Mapping[str, str] = MappingProxyType({})
#: pip's settings that say where packages come from.
INDEX = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
#: apt's settings that say how mirrors are reached and judged.
MIRRORS = re.compile(r"^Acquire::(Check-\S+|https?::\S+|Retries|ForceIPv\d) ")

# Run as the first process of namespaces of its own, with no network but loopback. $1 root, $2 folder seen as
# /config or nothing; the rest is the program. The mounts are those that a container runtime makes.
CONTAINER = """
root=$1 config=$2; shift 2
ip link set lo up
mount --bind "$root" "$root"
if [ -n "$config" ]; then
    mount --bind "$config" "$root/config"
    mount -o remount,bind,ro "$root/config"
fi
mount -o remount,bind,ro "$root"
mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
exec chroot "$root" "$@"
"""


def _run(*command: str) -> str:
    """Output of a program that must succeed."""
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{command[0]}: {result.stdout[-4000:]}{result.stderr[-4000:]}"
    return result.stdout


def apt_sources() -> list[str]:
    """Files with Debian's mirrors as this machine has them; empty for mmdebstrap's default."""
    codename = re.compile(rf"\s{platform.freedesktop_os_release()['VERSION_CODENAME']}(\s|$)")
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    return [str(file) for file in files if file.is_file() and codename.search(file.read_text())]


def pip_settings() -> dict[str, str]:
    """What pip is told on this machine, by file or environment (which comes first)."""
    listed = _run(sys.executable, "-m", "pip", "config", "list").splitlines()
    pairs = [line.partition("=") for line in listed]
    found: dict[str, str] = {}
    for name, _, value in sorted(pairs, key=lambda pair: pair[0].startswith(":env:")):
        found[name.rpartition(".")[2].removeprefix("default-")] = str(ast.literal_eval(value))
    return found


def secrets(directory: Path) -> list[str]:
    """The build's optional secrets: package index and certificate authorities, where this machine has its own."""
    settings = pip_settings()
    lines = [f"{key} = {settings[key]}" for key in INDEX if key in settings]
    authorities = settings.get("cert") or os.environ.get("SSL_CERT_FILE")
    given = []
    if authorities and Path(authorities).is_file():
        lines.append("cert = /run/secrets/ca")
        given += ["--secret", f"id=ca,src={authorities}"]
    if lines:
        (directory / "pip.conf").write_text("\n".join(["[global]", *lines, ""]))
        given += ["--secret", f"id=pip_conf,src={directory / 'pip.conf'}"]
    return given


@dataclass(frozen=True)
class Image:
    """A built image: its unpacked root and what its configuration says (docker's format)."""

    root: Path
    config: dict[str, Any]

    def inside(self, program: list[str], environment: Mapping[str, str]) -> list[str]:
        """``program`` with the image's environment and user, without any capability, as compose has it."""
        variables = [*self.config["Env"], *(f"{name}={value}" for name, value in environment.items())]
        user, _, group = self.config["User"].partition(":")
        return [
            *("/usr/bin/env", "-i", *variables),
            *("/usr/bin/setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs"),
            *("--bounding-set=-all", "--inh-caps=-all", "--", *program),
        ]

    @contextmanager
    def container(
        self, *arguments: str, config: Path | None = None, environment: Mapping[str, str] = NOTHING
    ) -> Iterator[Container]:
        """The image's entry point with ``arguments`` (else its command) on a read-only root; killed at the end."""
        program = [*self.config["Entrypoint"], *(arguments or self.config["Cmd"])]
        command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--", "sh", "-euc", CONTAINER]
        with subprocess.Popen(
            [*command, "sh", str(self.root), str(config or ""), *self.inside(program, environment)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield Container(self, process, environment)
            finally:
                process.kill()

    def output(self, *arguments: str, config: Path | None = None) -> str:
        """What the image's program prints when it is given ``arguments``; it must succeed."""
        with self.container(*arguments, config=config) as container:
            out, err = container.process.communicate(timeout=60)
        assert container.process.returncode == 0, err
        return str(out)


@dataclass
class Container:
    """A running image; ``process`` is its parent outside, whose exit code is the first process's."""

    image: Image
    process: subprocess.Popen[str]
    environment: Mapping[str, str]

    def _init(self) -> int | None:
        """Process id of the init program once it runs; what comes before it prepares the namespaces."""
        try:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            names = {Path(f"/proc/{child}/comm").read_text().strip(): int(child) for child in children}
        except OSError:  # just ended
            return None
        return names.get(self.image.config["Entrypoint"][0])

    @cached_property
    def first(self) -> int:
        """Process id, as seen from outside, of the container's first process."""
        end = time.monotonic() + 30
        while (found := self._init()) is None:
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < end
            time.sleep(0.01)
        return found

    def status(self, field: str) -> str:
        """A line of the first process's status (man 5 proc)."""
        lines = Path(f"/proc/{self.first}/status").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{field}:"))

    def execute(self, *program: str) -> subprocess.CompletedProcess[str]:
        """Run a program inside, as ``docker exec`` does."""
        enter = ["nsenter", f"--target={self.first}", "--net", "--mount", "--pid", "--root", "--wd"]
        return subprocess.run(
            [*enter, *self.image.inside(list(program), self.environment)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def check_health(self) -> subprocess.CompletedProcess[str]:
        """Run the image's HEALTHCHECK once."""
        kind, *program = self.image.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        return self.execute(*program)

    def until_healthy(self, seconds: float = 30) -> None:
        """Wait until the HEALTHCHECK succeeds."""
        end = time.monotonic() + seconds
        while (last := self.check_health()).returncode != 0:
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < end, last.stderr
            time.sleep(0.1)


def _base_image(directory: Path, buildah: list[str]) -> str:
    """Debian's own Python in place of the registry's base image; its name."""
    (directory / "apt.conf").write_text(
        "".join(line + "\n" for line in _run("apt-config", "dump").splitlines() if MIRRORS.match(line))
    )
    codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
    tree = directory / "base.tar"
    _run(
        *("mmdebstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates"),
        *(f"--aptopt={directory / 'apt.conf'}", "--dpkgopt=path-exclude=/usr/share/doc/*"),
        *("--dpkgopt=path-exclude=/usr/share/man/*", codename, str(tree), *apt_sources()),
    )
    working = _run(*buildah, "from", "scratch").strip()
    _run(*buildah, "add", "--quiet", working, str(tree), "/")
    _run(*buildah, "commit", "--quiet", "--rm", working, "localhost/base")
    tree.unlink()
    return "localhost/base"


@contextmanager
def built(directory: Path) -> Iterator[Image]:
    """The Dockerfile's image, built below ``directory``, which is removed at the end."""
    require("buildah", "mmdebstrap", "ip", "nsenter", "unshare")
    if os.geteuid() != 0:
        unavailable("only root may build and enter an image's root without a container engine")
    buildah = [
        "buildah",
        f"--root={directory / 'storage'}",
        f"--runroot={directory / 'run'}",
        "--storage-driver=vfs",
    ]
    try:
        _run(
            *buildah,
            *("build", "--isolation=chroot", "--format=docker", "--layers=false", "--tag=localhost/jitsi-bot"),
            *("--build-arg", f"BASE_IMAGE={_base_image(directory, buildah)}", *secrets(directory), str(ROOT)),
        )
        config = json.loads(_run(*buildah, "inspect", "--type=image", "localhost/jitsi-bot"))["Docker"]["config"]
        working = _run(*buildah, "from", "localhost/jitsi-bot").strip()
        root = Path(_run(*buildah, "mount", working).strip())
        (root / "config").mkdir()  # a container runtime makes the mount points
        yield Image(root, config)
    finally:
        shutil.rmtree(directory)
