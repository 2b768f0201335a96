"""The peers' UDP sockets: read by the event loop until they are connected, then asked when it suits the peer."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from bench.mmsg import SO_TIMESTAMPNS

_BUFFER = 1024 * 1024


class PolledSocket(asyncio.DatagramTransport):
    """A socket for ``protocol`` at ``host``. After ``poll`` nobody reads it but whoever has its ``number``."""

    def __init__(self, protocol: asyncio.DatagramProtocol, host: str) -> None:
        super().__init__()
        self.protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.bind((host, 0))
        self.number = self._socket.fileno()
        self._closing = False
        self._loop.add_reader(self.number, self._read)
        protocol.connection_made(self)

    def _read(self) -> None:
        try:
            while True:
                data, address = self._socket.recvfrom(2048)
                self.protocol.datagram_received(data, address)
        except OSError:
            return  # nothing waits, or the other end is gone

    def poll(self, remote: tuple[str, int]) -> None:
        """Take datagrams of ``remote`` alone, and only when asked."""
        self._loop.remove_reader(self.number)
        self._socket.connect(remote)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What asyncio's sockets tell of themselves; here only their address."""
        return self._socket.getsockname() if name == "sockname" else default

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send one datagram; what the system does not take is lost, as on any network."""
        if self._closing:
            return
        try:
            self._socket.sendto(data, addr)
        except OSError:
            return

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self._closing

    def close(self) -> None:
        """Close the socket; may be called twice."""
        if self._closing:
            return
        self._closing = True
        self._loop.remove_reader(self.number)
        self._socket.close()
        self._loop.call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        """Close the socket."""
        self.close()
