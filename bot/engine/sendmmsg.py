"""Many datagrams to one peer with one system call: sendmmsg through cffi, and plain calls where there is none."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from typing import cast

from bot.engine import mmsg

#: Datagrams of one sendmmsg call.
_SENT_AT_ONCE = 64
#: Sends packets over a connected socket; returns how many the system took. Raises OSError when it took none.
SendMany = Callable[[socket.socket, Sequence[bytes]], int]


def send_plain(sock: socket.socket, packets: Sequence[bytes]) -> int:
    """One send for each packet."""
    for number, packet in enumerate(packets):
        try:
            sock.send(packet)
        except OSError:
            if number:
                return number
            raise
    return len(packets)


#: Fewer packets go out faster by calls of their own.
FEW = 3


class MmsgSender:
    """sendmmsg(2); of a few packets plain calls are faster."""

    def __init__(self) -> None:
        found = mmsg.library()
        if found is None:
            raise OSError(errno.ENOSYS, "no sendmmsg here")
        self._ffi, self._lib = found
        self._headers = self._ffi.new("struct mmsghdr[]", _SENT_AT_ONCE)
        self._vectors = self._ffi.new("struct iovec[]", _SENT_AT_ONCE)
        for number in range(_SENT_AT_ONCE):
            header = self._headers[number].msg_hdr
            header.msg_iov = self._vectors + number
            header.msg_iovlen = 1

    def __call__(self, sock: socket.socket, packets: Sequence[bytes]) -> int:
        """Send ``packets``; returns how many the system took. Raises OSError when it took none."""
        if len(packets) < FEW:
            return send_plain(sock, packets)
        sent = 0
        while sent < len(packets):
            chunk = packets[sent : sent + _SENT_AT_ONCE]
            took = self._send(sock, chunk, first=not sent)
            sent += took
            if took < len(chunk):
                break
        return sent

    def _send(self, sock: socket.socket, packets: Sequence[bytes], *, first: bool) -> int:
        kept = [self._ffi.from_buffer(packet) for packet in packets]
        for number, held in enumerate(kept):
            self._vectors[number].iov_base = held
            self._vectors[number].iov_len = len(held)
        took = cast("int", self._lib.sendmmsg(sock.fileno(), self._headers, len(kept), mmsg.MSG_DONTWAIT))
        if took < 0:
            if not first:
                return 0
            code = self._ffi.errno
            raise OSError(code, errno.errorcode.get(code, "sendmmsg"))
        return took


def make_sender() -> SendMany:
    """The best way of sending of this platform."""
    return MmsgSender() if mmsg.available() else send_plain
