"""What this machine has to offer."""

from __future__ import annotations

import os
import platform
import resource
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import ifaddr

_UNKNOWN_MEMORY = 2**63


@dataclass(frozen=True, slots=True)
class Machine:
    """``memory`` in bytes that are free; ``open_files`` one process may have; ``addresses`` that ICE offers."""

    cores: int
    memory: int
    open_files: int
    addresses: int
    system: str = ""
    python: str = ""


def this_machine(addresses: int | None = None) -> Machine:
    """The machine that this runs on, or the part of it that this process may use.

    ``addresses`` are those that the settings name; else all but loopback and link-local ones.
    """
    return Machine(
        cores=cores(),
        memory=_memory(),
        # The hard limit: a process may raise its own soft one up to there.
        open_files=_limit(resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
        addresses=_addresses() if addresses is None else addresses,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
    )


def raise_file_limit() -> None:
    """Allow this process, and those that it starts, all the open files that the system lets it have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS says unlimited and takes no such number
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _limit(value: int) -> int:
    return 2**31 if value == resource.RLIM_INFINITY else value


def _memory() -> int:
    """Bytes that are available (``MemAvailable``), or the rest of the cgroup's limit where that is less."""
    return min(_available(Path("/proc/meminfo")), _cgroup(Path("/sys/fs/cgroup")))


def _available(path: Path) -> int:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return _UNKNOWN_MEMORY
    sizes = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(sizes[0]) * 1024 if sizes else _UNKNOWN_MEMORY


def _cgroup(directory: Path) -> int:
    try:
        limit = (directory / "memory.max").read_text(encoding="ascii").strip()
        used = (directory / "memory.current").read_text(encoding="ascii").strip()
    except OSError:
        return _UNKNOWN_MEMORY
    return _UNKNOWN_MEMORY if limit == "max" else max(0, int(limit) - int(used))


def _addresses() -> int:
    found = [ip for adapter in ifaddr.get_adapters() for ip in adapter.ips]
    texts = [ip.ip if isinstance(ip.ip, str) else ip.ip[0] for ip in found]
    return max(1, sum(not _is_local(text) for text in texts))


def _is_local(address: str) -> bool:
    return address.startswith(("127.", "169.254.", "fe80:")) or address == "::1"
