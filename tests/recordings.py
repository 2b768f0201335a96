"""Recorded dialogues with real servers, and the shape of a stanza: all but what each run has anew."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

from tests.conftest import CAPTURES

_ENTRY = re.compile(
    r"<!-- (SENT|RECV|BRIDGE-RECV\((?:ws|sctp[^)]*)\)) t=([\d.]+) -->\n(.*?)(?=\n<!-- |\Z)", re.DOTALL
)
_LINE = re.compile(r"^\S+ (>>>|<<<) (.*)$")


class Frame(NamedTuple):
    """One frame; ``sent`` by the client, else received by it, ``at`` seconds where that was noted."""

    sent: bool
    element: ET.Element
    at: float = 0.0


def dialogue(name: str) -> list[Frame]:
    """The XMPP frames of a dialogue in their order."""
    path = next(CAPTURES.glob(f"{name}.*"))
    return list(_of_probe(path.read_text()) if path.suffix == ".xml" else _of_web_client(path.read_text()))


def advertised(name: str) -> list[str]:
    """The features that a client had, asked for them or not, where its recording begins with them."""
    path = next(CAPTURES.glob(f"{name}.*"))
    found = re.match(r"<!-- [^>]* features=\[([^\]]*)\] -->", path.read_text())
    return re.findall(r"'([^']*)'", found[1]) if found else []


def _of_probe(text: str) -> Iterator[Frame]:
    for direction, at, body in _ENTRY.findall(text):
        if not direction.startswith("BRIDGE"):
            yield Frame(direction == "SENT", _without_indentation(ET.fromstring(body)), float(at))


def _without_indentation(element: ET.Element) -> ET.Element:
    """Probes wrote their frames indented; white space alone says nothing in them."""
    for node in element.iter():
        node.text = node.text if node.text and node.text.strip() else None
        node.tail = None
    return element


def _of_web_client(text: str) -> Iterator[Frame]:
    for line in text.splitlines():
        if match := _LINE.match(line):
            yield Frame(match[1] == ">>>", ET.fromstring(match[2]))


def bridge_messages(name: str) -> list[dict[str, Any]]:
    """What the bridge said on its channel."""
    path = next(CAPTURES.glob(f"{name}.*"))
    if path.suffix == ".xml":
        found = [body for direction, _, body in _ENTRY.findall(path.read_text()) if direction.startswith("BRIDGE")]
        return [json.loads(ET.fromstring(body).text or "") for body in found]
    lines = [match for line in path.read_text().splitlines() if (match := _LINE.match(line))]
    return [json.loads(match[2]) for match in lines if match[1] == "<<<"]


class ChannelFrame(NamedTuple):
    """One message on a bridge channel; ``sent`` by the client, else received by it."""

    sent: bool
    message: dict[str, Any]


def channel_parts(name: str) -> list[list[ChannelFrame]]:
    """The messages of a client's bridge channel both ways, a list for each time that it was opened."""
    parts: list[list[ChannelFrame]] = []
    for line in (CAPTURES / f"{name}.txt").read_text().splitlines():
        if " --- " in line:
            parts.append([])
        elif match := _LINE.match(line):
            parts[-1].append(ChannelFrame(match[1] == ">>>", json.loads(match[2])))
    return parts


# --- shapes -----------------------------------------------------------------------------------------------

#: Attributes whose values each run has anew: everywhere, and by element.
_ANEW = {"to", "from", "jid", "sid", "ufrag", "pwd", "url", "ip", "port", "room", "ssrc", "owner"}
_ANEW_OF = {
    "iq": {"id"},
    "presence": {"id"},
    "open": {"id"},
    "enabled": {"id"},
    "occupant-id": {"id"},
    "bridge-session": {"id"},
    "candidate": {"id", "foundation", "priority"},
}
#: Texts that each run has anew.
_ANEW_TEXTS = {"jid", "fingerprint", "etherpad", "nick", "SourceInfo", "stats-id"}
#: Elements whose children come in any order: the real servers' come in another one each time.
_UNORDERED = {"features", "query", "permissions", "payload-type"}
_FIELDS_ANEW = {"muc#roominfo_meetingId", "muc#roominfo_created_timestamp"}


def shape(element: ET.Element) -> str:
    """Everything that has to be the same, one line for each element, as text that can be compared and read."""
    return "\n".join(_lines(element, 0, ""))


def _lines(element: ET.Element, depth: int, field: str) -> Iterator[str]:
    name = _local(element.tag)
    field = element.get("var", field) if name == "field" else field
    anew = _ANEW | _ANEW_OF.get(name, set())
    attributes = " ".join(
        f"{_local(key)}={'…' if key in anew else value}" for key, value in sorted(element.attrib.items())
    )
    yield f"{'  ' * depth}{element.tag} {attributes} {_text(name, element, field)}".rstrip()
    blocks = ["\n".join(_lines(child, depth + 1, field)) for child in element]
    yield from sorted(blocks) if name in _UNORDERED else blocks


def _text(name: str, element: ET.Element, field: str) -> str:
    text = (element.text or "").strip()
    if name == "json-message":
        return json.dumps(json_shape(json.loads(text)), sort_keys=True)
    return "…" if text and (name in _ANEW_TEXTS or field in _FIELDS_ANEW) else text


def json_shape(value: object) -> object:
    """The same with the names of types in place of values."""
    if isinstance(value, dict):
        return {key: json_shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [json_shape(item) for item in value]
    return type(value).__name__


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
