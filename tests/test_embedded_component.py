"""The server's side of a component stream (XEP-0114): its parser, and what a port says of a bad server."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from bot.embedded.component import (
    MAX_STANZA_BYTES,
    NS_COMPONENT,
    AttachedFocus,
    ComponentParser,
    ComponentPort,
    component_focus_config,
)
from bot.embedded.stanza import NS_STREAM, parse_frame
from bot.errors import AuthenticationError, BotError, ConfigurationError, ConnectionFailedError, ProtocolError
from tests.embedded_support import local
from tests.prosody import free_port

HEADER = f"<?xml version='1.0'?><stream:stream xmlns:stream='{NS_STREAM}' xmlns='{NS_COMPONENT}' id='s1'>".encode()
STANZAS = b"<handshake/><iq id='1'><a xmlns='urn:a'><b/></a></iq>\n<message id='2'><body>\xc3\xa9</body></message>"


def fed(parser: ComponentParser, *parts: bytes) -> Iterator[tuple[str, str | None]]:
    for part in parts:
        for element in parser.feed(part):
            yield element.tag, element.get("id")


@given(st.lists(st.integers(0, len(HEADER + STANZAS)), max_size=12))
def test_a_stream_is_the_same_in_whatever_pieces(cuts: list[int]) -> None:
    data = HEADER + STANZAS
    ends = [0, *sorted(cuts), len(data)]
    parts = [data[start:end] for start, end in itertools.pairwise(ends)]
    assert list(fed(ComponentParser(), *parts)) == [
        (f"{{{NS_STREAM}}}stream", "s1"),
        ("{jabber:client}handshake", None),
        ("{jabber:client}iq", "1"),
        ("{jabber:client}message", "2"),
    ]


def test_names_of_other_namespaces_stay() -> None:
    parser = ComponentParser()
    parser.feed(HEADER)
    _, iq, message = parser.feed(STANZAS)
    assert iq[0].tag == "{urn:a}a"
    assert message.findtext("{jabber:client}body") == "\u00e9"


def test_stanzas_are_not_kept() -> None:
    parser = ComponentParser()
    parser.feed(HEADER)
    for _ in range(100):
        parser.feed(b"<presence/>\n")
    assert parser._root is not None
    assert len(parser._root) == 0


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([b"<a></b>"], "not well-formed"),
        ([b"<a/><b/>"], "not well-formed"),
        ([b"\xff<a/>"], "not well-formed"),
        ([b"<!DOCTYPE a [<!ENTITY b 'c'>]>"], "document type"),
        ([b"<!DOC", b"TYPE a>"], "document type"),
        ([b"<", b"!", b"DOCTYPE a>"], "document type"),
        ([HEADER, b"<a>", *[b"x" * 65_536] * (MAX_STANZA_BYTES // 65_536)], "more than"),
    ],
)
def test_streams_that_end_in_an_error(parts: list[bytes], why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        list(fed(ComponentParser(), *parts))


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_any_bytes_are_elements_or_a_protocol_error(parts: list[bytes]) -> None:
    try:
        found = list(fed(ComponentParser(), *parts))
    except ProtocolError:
        return
    assert all(tag for tag, _ in found)


# --- the port -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def server(*answers: bytes) -> AsyncIterator[int]:
    """Send each answer after one read, then close."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.read(65_536)
            writer.write(answer)
            await writer.drain()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("answers", "error", "why"),
    [
        (
            [HEADER, b"<stream:error><not-authorized xmlns='urn:x'/></stream:error>"],
            AuthenticationError,
            "not-auth",
        ),
        ([HEADER], ConnectionFailedError, "closed the connection"),
        ([b"<a></b>"], ProtocolError, "not well-formed"),
    ],
)
async def test_servers_that_do_not_take_the_component(
    answers: list[bytes], error: type[BotError], why: str
) -> None:
    async with server(*answers) as number:
        port = ComponentPort("127.0.0.1", number, "focus.meet.jitsi", "secret")
        with pytest.raises(error, match=why):
            await port.connect(lambda _stanza: None)
        port.send(parse_frame("<presence/>"))
        await port.wait_closed()


async def test_a_port_where_nobody_listens() -> None:
    port = ComponentPort("127.0.0.1", free_port(), "focus.meet.jitsi", "secret")
    with pytest.raises(ConnectionFailedError, match="component port"):
        await port.connect(lambda _stanza: None)


async def test_stanzas_that_come_with_the_handshake_are_taken_and_the_end_is_told() -> None:
    taken: list[ET.Element] = []
    async with server(HEADER, b"<handshake/><iq id='1'/>") as number:
        port = ComponentPort("127.0.0.1", number, "focus.meet.jitsi", "secret")
        await port.connect(taken.append)
        await asyncio.wait_for(port.wait_closed(), 5)
        await port.close()
        await port.close()
    assert [local(stanza) for stanza in taken] == ["iq"]


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (b"<iq></message>", "not well-formed"),
        (b"<stream:error><system-shutdown xmlns='urn:x'/></stream:error></stream:stream>", "system-shutdown"),
        (b"</stream:stream>", "Prosody closed it"),
    ],
)
async def test_a_stream_that_ends_later_is_one_log_line(end: bytes, why: str) -> None:
    with capture_logs() as logs:
        async with server(HEADER, b"<handshake/>", end) as number:
            port = ComponentPort("127.0.0.1", number, "focus.meet.jitsi", "secret")
            await port.connect(lambda _stanza: None)
            port.send(parse_frame("<presence/>"))
            await asyncio.wait_for(port.wait_closed(), 5)
            await port.close()
    assert [line["event_name"] for line in logs] == ["component_lost"]
    assert why in logs[0]["cause"]


async def test_the_bridges_web_socket_stays_on_loopback() -> None:
    port = ComponentPort("127.0.0.1", 1, "focus.meet.jitsi", "secret")
    with pytest.raises(ConfigurationError, match="loopback"):
        AttachedFocus(port, component_focus_config("focus.meet.jitsi"), colibri_host="0.0.0.0")


async def test_a_focus_that_can_not_attach_leaves_nothing_open() -> None:
    port = ComponentPort("127.0.0.1", free_port(), "focus.meet.jitsi", "secret")
    focus = AttachedFocus(port, component_focus_config("focus.meet.jitsi"))
    with pytest.raises(ConnectionFailedError):
        await focus.start()
    await focus.stop()
