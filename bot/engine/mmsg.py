"""Many datagrams with one system call: recvmmsg and sendmmsg through cffi, and plain calls where there are none.

The kernel's receive times (SO_TIMESTAMPNS, socket(7)) make a tick of some milliseconds invisible to jitter and to
transport-wide-cc feedback.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import sys
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any

import numpy as np
from cffi import FFI
from numpy.typing import NDArray

#: Bytes of one datagram that are kept: more than any path takes in one piece. No power of two, so that headers do
#: not fall on the same cache lines.
SLOT_BYTES = 1600
#: Datagrams that one buffer holds.
CAPACITY = 1024
_SOL_SOCKET, _SO_TIMESTAMPNS, _SO_MEMINFO = 1, 35, 55  # Linux, asm-generic/socket.h
MSG_DONTWAIT = 0x40
_CONTROL_BYTES = 32  # one struct timespec with its header (CMSG_SPACE(16))
_NAME_BYTES = 28  # sockaddr_in6
_HEADER_BYTES = 64
#: Of struct timespec.
_NANOSECONDS = np.array((1_000_000_000, 1), np.int64)
#: The two clocks are read one after the other; a pair that took longer (ns) was interrupted.
_CLOSE_READINGS = 20_000

_CDEF = """
struct iovec { void *iov_base; size_t iov_len; };
struct msghdr { void *msg_name; uint32_t msg_namelen; struct iovec *msg_iov; size_t msg_iovlen; void *msg_control;
                size_t msg_controllen; int msg_flags; };
struct mmsghdr { struct msghdr msg_hdr; unsigned int msg_len; };
int recvmmsg(int sockfd, struct mmsghdr *msgvec, unsigned int vlen, int flags, void *timeout);
int sendmmsg(int sockfd, struct mmsghdr *msgvec, unsigned int vlen, int flags);
"""


def _load() -> tuple[Any, Any] | None:
    """What calls the C library, None where it lacks the calls or has other structures (recvmmsg(2))."""
    if sys.platform != "linux" or sys.maxsize < 2**32:
        return None
    ffi = FFI()
    ffi.cdef(_CDEF)
    try:
        lib = ffi.dlopen(None)
        found = bool(lib.recvmmsg and lib.sendmmsg)
    except (OSError, AttributeError):
        return None
    return (ffi, lib) if found and ffi.sizeof("struct mmsghdr") == _HEADER_BYTES else None


_loaded = _load()


def library() -> tuple[Any, Any] | None:
    """What calls the C library, None on a platform without these calls."""
    return _loaded


def available() -> bool:
    """Whether this platform has recvmmsg and sendmmsg."""
    return _loaded is not None


class ClockOffset:
    """Monotonic time minus Unix time in ns, read anew for each batch: the system's clock may be set.

    A reading that was interrupted, and says no more than what is known, changes nothing.
    """

    def __init__(self) -> None:
        self._offset: int | None = None

    def read(self) -> int:
        """The offset now."""
        before = time.monotonic_ns()
        unix = time.time_ns()
        took = time.monotonic_ns() - before
        offset = before + took // 2 - unix
        if self._offset is None or took < _CLOSE_READINGS or abs(offset - self._offset) > took:
            self._offset = offset
        return self._offset


def enable_arrival_times(sock: socket.socket) -> None:
    """Let the kernel note when each datagram comes; where it can't, the time of reading is taken."""
    if _loaded is not None:
        with suppress(OSError):
            sock.setsockopt(_SOL_SOCKET, _SO_TIMESTAMPNS, 1)


def dropped(sock: socket.socket) -> int:
    """Datagrams that the socket's full buffer turned away so far; 0 where the system doesn't tell."""
    if _loaded is None:
        return 0
    try:
        info = sock.getsockopt(_SOL_SOCKET, _SO_MEMINFO, 36)
    except OSError:
        return 0
    return int(struct.unpack("=9I", info)[8]) if len(info) >= 36 else 0


class DatagramBuffer(ABC):
    """Slots for datagrams, filled from any socket. ``data`` has a row of ``SLOT_BYTES`` bytes for each."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.data: NDArray[np.uint8] = np.zeros((capacity, SLOT_BYTES), np.uint8)
        self._bytes = self.data.reshape(-1).data

    @property
    @abstractmethod
    def sizes(self) -> NDArray[Any]:
        """Bytes of each datagram."""

    @abstractmethod
    def receive(self, sock: socket.socket, start: int) -> int:
        """Read what waits into the slots from ``start`` on; returns how many. Raises OSError."""

    @abstractmethod
    def arrivals(self, start: int, stop: int) -> NDArray[np.float64]:
        """When the datagrams of these slots came, in seconds on the monotonic clock; the array is the caller's."""

    @abstractmethod
    def address(self, slot: int) -> tuple[str, int]:
        """Where a datagram came from."""

    @abstractmethod
    def release(self, stop: int) -> None:
        """Make the slots up to ``stop`` ready to be filled again."""

    def datagram(self, slot: int) -> bytes:
        """The bytes of one datagram."""
        start = slot * SLOT_BYTES
        return bytes(self._bytes[start : start + int(self.sizes[slot])])


class PlainBuffer(DatagramBuffer):
    """One call for each datagram; its arrival is when it was read."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        super().__init__(capacity)
        self._sizes = np.zeros(capacity, np.int32)
        self._arrivals = np.zeros(capacity, np.float64)
        self._addresses: list[tuple[str, int]] = [("", 0)] * capacity

    @property
    def sizes(self) -> NDArray[Any]:
        """Bytes of each datagram."""
        return self._sizes

    def receive(self, sock: socket.socket, start: int) -> int:
        """Read what waits; returns how many. Raises OSError."""
        slot = start
        while slot < self.capacity:
            at = slot * SLOT_BYTES
            try:
                size, address = sock.recvfrom_into(self._bytes[at : at + SLOT_BYTES])
            except (BlockingIOError, InterruptedError):
                break
            self._sizes[slot] = size
            self._arrivals[slot] = time.monotonic()
            self._addresses[slot] = address[0], address[1]
            slot += 1
        return slot - start

    def arrivals(self, start: int, stop: int) -> NDArray[np.float64]:
        """Seconds on the monotonic clock."""
        return self._arrivals[start:stop].copy()

    def address(self, slot: int) -> tuple[str, int]:
        """Where a datagram came from."""
        return self._addresses[slot]

    def release(self, stop: int) -> None:
        """Make slots ready to be filled again."""
        del stop  # nothing of a slot has to be prepared


class MmsgBuffer(DatagramBuffer):
    """recvmmsg(2) into all free slots at once, with the kernel's receive times."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        super().__init__(capacity)
        if _loaded is None:
            raise OSError(errno.ENOSYS, "no recvmmsg here")
        self._ffi, self._lib = _loaded
        self._names = np.zeros((capacity, _NAME_BYTES), np.uint8)
        self._control = np.zeros((capacity, _CONTROL_BYTES), np.uint8)
        self._vectors = np.zeros((capacity, 2), np.uint64)
        self._vectors[:, 0] = self.data.ctypes.data + SLOT_BYTES * np.arange(capacity, dtype=np.uint64)
        self._vectors[:, 1] = SLOT_BYTES
        # Words of struct mmsghdr: name, its length, vectors, their count, control, its length, flags, size.
        self._headers = np.zeros((capacity, 8), np.uint64)
        self._headers[:, 0] = self._names.ctypes.data + _NAME_BYTES * np.arange(capacity, dtype=np.uint64)
        self._headers[:, 2] = self._vectors.ctypes.data + 16 * np.arange(capacity, dtype=np.uint64)
        self._headers[:, 3] = 1
        self._headers[:, 4] = self._control.ctypes.data + _CONTROL_BYTES * np.arange(capacity, dtype=np.uint64)
        self._pointer = self._ffi.cast("struct mmsghdr *", self._headers.ctypes.data)
        self._sizes = self._headers.view(np.uint32)[:, 14]
        self._lengths = self._headers[:, 5]
        self._times = self._control.view(np.int64)
        self._offset = ClockOffset()
        self.release(capacity)

    @property
    def sizes(self) -> NDArray[Any]:
        """Bytes of each datagram."""
        return self._sizes

    def receive(self, sock: socket.socket, start: int) -> int:
        """Read what waits; returns how many. Raises OSError."""
        room = self.capacity - start
        if room <= 0:
            return 0
        found = self._lib.recvmmsg(sock.fileno(), self._pointer + start, room, MSG_DONTWAIT, self._ffi.NULL)
        if found >= 0:
            return int(found)
        code = self._ffi.errno
        if code in (errno.EAGAIN, errno.EINTR):
            return 0
        raise OSError(code, errno.errorcode.get(code, "recvmmsg"))

    def arrivals(self, start: int, stop: int) -> NDArray[np.float64]:
        """Seconds on the monotonic clock."""
        unix: NDArray[np.int64] = np.dot(self._times[start:stop, 2:4], _NANOSECONDS)
        unix += self._offset.read()
        times: NDArray[np.float64] = np.multiply(unix, 1e-9)
        return times

    def address(self, slot: int) -> tuple[str, int]:
        """Where a datagram came from."""
        return parse_sockaddr(self._names[slot].tobytes())

    def release(self, stop: int) -> None:
        """Make slots ready to be filled again."""
        # The kernel writes there what it used of it.
        self._headers[:stop, 1] = _NAME_BYTES
        self._headers[:stop, 5] = _CONTROL_BYTES


def make_buffer(capacity: int = CAPACITY) -> DatagramBuffer:
    """The best buffer of this platform."""
    return MmsgBuffer(capacity) if available() else PlainBuffer(capacity)


def parse_sockaddr(data: bytes) -> tuple[str, int]:
    """Host and port of a struct sockaddr_in or sockaddr_in6."""
    family = int.from_bytes(data[:2], sys.byteorder)
    port = int.from_bytes(data[2:4], "big")
    if family == socket.AF_INET6:
        return str(ipaddress.IPv6Address(data[8:24])), port
    return socket.inet_ntoa(data[4:8]), port
