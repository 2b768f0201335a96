"""SRTP (RFC 3711) by libsrtp, without what pylibsrtp makes anew for each packet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pylibsrtp
from pylibsrtp import _binding

Process = Callable[[bytes], bytes]


def protector(session: pylibsrtp.Session) -> Process:
    """What ``session.protect`` does. Raises pylibsrtp.Error, or ValueError for a packet that is too long."""
    return _process(session, _binding.lib.srtp_protect, pylibsrtp.SRTP_MAX_TRAILER_LEN)


def rtcp_protector(session: pylibsrtp.Session) -> Process:
    """What ``session.protect_rtcp`` does; raises as ``protector``."""
    return _process(session, _binding.lib.srtp_protect_rtcp, pylibsrtp.SRTP_MAX_SRTCP_TRAILER_LEN)


def rtcp_unprotector(session: pylibsrtp.Session) -> Process:
    """What ``session.unprotect_rtcp`` does; raises as ``protector``."""
    return _process(session, _binding.lib.srtp_unprotect_rtcp, 0)


def _process(session: pylibsrtp.Session, function: Callable[[Any, Any, Any], int], trailer: int) -> Process:
    room = len(session._cdata) - trailer
    handle, data, view = session._srtp, session._cdata, session._buffer
    length = _binding.ffi.new("int *")

    def process(packet: bytes) -> bytes:
        size = len(packet)
        if size > room:
            raise ValueError("packet is too long")
        length[0] = size
        view[0:size] = packet
        if code := function(handle[0], data, length):
            raise pylibsrtp.Error(f"libsrtp error {code} of {session}")  # it must live as long as this does
        return cast("bytes", view[0 : length[0]])

    return process
