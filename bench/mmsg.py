"""Many datagrams with one system call (recvmmsg and sendmmsg of Linux), for the peers."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence

import numpy as np

#: Socket option for arrival times by the kernel, as a timespec (socket(7), SO_TIMESTAMPNS).
SO_TIMESTAMPNS = 35
_SIZE = 2048
_CONTROL = 64
#: The timespec comes behind the cmsghdr, which has 16 bytes: the third and fourth number of eight bytes.
_TIMESPEC = 2


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vector", ctypes.POINTER(_Iovec)),
        ("vector_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("header", _Msghdr), ("length", ctypes.c_uint))


_libc = ctypes.CDLL(None, use_errno=True)


class _Headers:
    """Room for ``depth`` datagrams and their message headers, which are set through views of numpy."""

    def __init__(self, depth: int) -> None:
        self.data = bytearray(depth * _SIZE)
        self.view = memoryview(self.data)
        self.control = np.zeros((depth, _CONTROL // 8), np.int64)
        self.raw = (_Mmsghdr * depth)()
        vectors = (_Iovec * depth)()
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.data))
        for number in range(depth):
            vectors[number].base = start + number * _SIZE
            vectors[number].length = _SIZE
            self.raw[number].header.vector = ctypes.pointer(vectors[number])
            self.raw[number].header.vector_length = 1
        self._vectors = vectors
        #: Bytes of each datagram that is to be sent.
        self.sizes = np.frombuffer(memoryview(vectors).cast("B"), np.uint64).reshape(depth, -1)[:, 1]
        words = np.frombuffer(memoryview(self.raw).cast("B"), np.uint32).reshape(depth, -1)
        #: Bytes of each datagram that came.
        self.lengths = words[:, _Mmsghdr.length.offset // 4]
        self.control_lengths = np.frombuffer(memoryview(self.raw).cast("B"), np.uint64).reshape(depth, -1)[
            :, _Msghdr.control_length.offset // 8
        ]

    def take_times(self) -> None:
        """Let the kernel write arrival times."""
        for number in range(len(self.raw)):
            self.raw[number].header.control = self.control.ctypes.data + number * _CONTROL
        self.control_lengths[:] = _CONTROL


class Batch:
    """Sends and receives up to ``depth`` datagrams at once, on sockets that are connected and do not block."""

    def __init__(self, depth: int = 64) -> None:
        self._depth = depth
        self._in, self._out = _Headers(depth), _Headers(depth)
        self._in.take_times()

    def receive(self, number: int) -> list[tuple[float, bytes]]:
        """What waits at the socket ``number``, with arrival times on the monotonic clock."""
        found: list[tuple[float, bytes]] = []
        room = self._in
        while True:
            count = _libc.recvmmsg(number, room.raw, self._depth, 0, None)
            if count <= 0:
                return found
            offset = time.monotonic() - time.time()
            times = room.control[:count, _TIMESPEC] + offset
            stamps = (times + room.control[:count, _TIMESPEC + 1] * 1e-9).tolist()
            for at, (stamp, length) in enumerate(zip(stamps, room.lengths[:count].tolist(), strict=True)):
                found.append((stamp, bytes(room.view[at * _SIZE : at * _SIZE + length])))
            room.control_lengths[:count] = _CONTROL
            if count < self._depth:
                return found

    def send(self, number: int, packets: Sequence[bytes]) -> int:
        """Send ``packets``; returns how many the system took."""
        return sum(
            self._send(number, packets[first : first + self._depth])
            for first in range(0, len(packets), self._depth)
        )

    def _send(self, number: int, packets: Sequence[bytes]) -> int:
        room = self._out
        sizes = [len(packet) for packet in packets]
        for at, (packet, size) in enumerate(zip(packets, sizes, strict=True)):
            room.view[at * _SIZE : at * _SIZE + size] = packet
        room.sizes[: len(packets)] = sizes
        done = 0
        while done < len(packets):
            rest = ctypes.byref(room.raw, done * ctypes.sizeof(_Mmsghdr))
            count = _libc.sendmmsg(number, rest, len(packets) - done, 0)
            if count <= 0:
                break
            done += count
        return done
