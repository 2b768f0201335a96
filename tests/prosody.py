"""Debian's Prosody behind Debian's nginx, as the web container has them, each test on ports of its own."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from pathlib import Path

from tests.requirements import require

PROSODY = """
pidfile = "{dir}/prosody.pid"
data_path = "{dir}/data"
log = {{ {{ levels = {{ min = "debug" }}, to = "file", filename = "{dir}/prosody.log" }} }}
run_as_root = true
modules_enabled = {{ "disco", "saslauth", "tls", "ping", "posix", "smacks", "websocket", "admin_shell" }}
modules_disabled = {{ "s2s", "offline" }}
admin_socket = "{dir}/prosody.sock"
c2s_ports = {{ }}
s2s_ports = {{ }}
http_interfaces = {{ "127.0.0.1" }}
http_ports = {{ {http} }}
https_ports = {{ }}
component_interfaces = {{ "127.0.0.1" }}
component_ports = {{ {component} }}
consider_websocket_secure = true
cross_domain_websocket = true
smacks_hibernation_time = 60
http_host = "localhost"
trusted_proxies = {{ "127.0.0.1" }}

VirtualHost "meet.jitsi"
    authentication = "anonymous"
    http_host = "localhost"

VirtualHost "auth.meet.jitsi"
    authentication = "internal_plain"

Component "muc.meet.jitsi" "muc"
    restrict_room_creation = false
    muc_room_default_public_jids = true
    muc_room_locking = false

Component "lobby.meet.jitsi" "muc"
    muc_room_default_public_jids = true
    muc_room_locking = false

Component "focus.meet.jitsi"
    component_secret = "secret"
"""

NGINX = """
daemon off;
pid {dir}/nginx.pid;
error_log {dir}/nginx.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
    server {{
        listen 127.0.0.1:{web}{ssl};
        {tls}
        location = /xmpp-websocket {{
            proxy_pass http://127.0.0.1:{http}/xmpp-websocket;
            proxy_http_version 1.1;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Host localhost;
            proxy_set_header X-Forwarded-For $remote_addr;
            tcp_nodelay on;
        }}
        location / {{ default_type text/html; return 200 "<html>Jitsi Meet</html>"; }}
    }}
}}
"""


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until_open(port: int) -> None:
    """Wait until something listens on ``port``."""
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                await writer.wait_closed()
                return


@dataclass
class Stack:
    """Prosody and nginx; ``url`` is what a bot is given."""

    dir: Path
    http: int
    component: int
    web: int
    tls: str = ""
    prosody: asyncio.subprocess.Process | None = None
    nginx: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Address of the proxied WebSocket, without its path."""
        return f"{'wss' if self.tls else 'ws'}://localhost:{self.web}"

    async def start(self) -> None:
        """Start both and wait until they listen."""
        (self.dir / "data").mkdir(exist_ok=True)
        values = {
            "dir": self.dir,
            "http": self.http,
            "component": self.component,
            "web": self.web,
            "tls": self.tls,
            "ssl": " ssl" if self.tls else "",
        }
        (self.dir / "prosody.cfg.lua").write_text(PROSODY.format(**values))
        (self.dir / "nginx.conf").write_text(NGINX.format(**values))
        await self.start_prosody()
        await self.start_nginx()

    def add_account(self, name: str, password: str) -> None:
        """Make an account of auth.meet.jitsi; before ``start``."""
        folder = self.dir / "data" / "auth%2emeet%2ejitsi" / "accounts"
        folder.mkdir(parents=True)
        (folder / f"{name}.dat").write_text(f'return {{ ["password"] = "{password}"; }};')

    async def start_prosody(self) -> None:
        """Start Prosody."""
        self.prosody = await asyncio.create_subprocess_exec(
            "prosody", "--config", str(self.dir / "prosody.cfg.lua"), "-F", stdout=-3, stderr=-3
        )
        await until_open(self.http)
        await until_open(self.component)

    async def start_nginx(self) -> None:
        """Start nginx."""
        self.nginx = await asyncio.create_subprocess_exec(
            "/usr/sbin/nginx", "-c", str(self.dir / "nginx.conf"), "-p", str(self.dir), stdout=-3, stderr=-3
        )
        await until_open(self.web)

    async def stop_nginx(self) -> None:
        """Stop nginx: every WebSocket through it is lost."""
        await _end(self.nginx)
        self.nginx = None

    async def stop(self) -> None:
        """Stop both."""
        await self.stop_nginx()
        await _end(self.prosody)
        self.prosody = None


async def _end(process: asyncio.subprocess.Process | None) -> None:
    if process is not None and process.returncode is None:
        process.terminate()
        await asyncio.wait_for(process.wait(), 10)


def make_stack(directory: Path, tls: str = "") -> Stack:
    """A stack on free ports, not started yet."""
    require("prosody", "nginx")
    return Stack(directory, free_port(), free_port(), free_port(), tls)
