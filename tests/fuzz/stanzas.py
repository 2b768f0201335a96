"""Hostile stanzas: recorded ones with some of their attributes, texts and elements spoilt, moved or repeated."""

from __future__ import annotations

import copy
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from functools import cache

from tests.fuzz.choices import NASTY, Choices
from tests.jingle_support import recorded
from tests.recordings import dialogue

ACTIONS = (
    "session-initiate",
    "session-accept",
    "session-info",
    "session-terminate",
    "transport-info",
    "transport-replace",
    "transport-accept",
    "transport-reject",
    "source-add",
    "source-remove",
    "addsource",
    "",
)
MAX_CHANGES = 6
WORST = ("", "0", "-1", "9" * 5000, "NaN", "٣", "²", "a" * 70_000)


@cache
def seeds() -> tuple[ET.Element, ...]:
    """Each recorded ``<jingle/>`` and each presence that a client received, whatever its dialogue."""
    names = ("probe-media-both-alice", "probe-modern-alice", "web-client-0-xmpp")
    presences = [
        frame.element
        for name in names
        for frame in dialogue(name)
        if not frame.sent and frame.element.tag.endswith("}presence")
    ]
    return (*(item.element for item in recorded()), *presences[:12])


def hostile(choices: Choices, kind: Callable[[ET.Element], bool] = lambda _: True) -> ET.Element:
    """A seed of ``kind`` with a few changes."""
    element = copy.deepcopy(choices.one([seed for seed in seeds() if kind(seed)]))
    for _ in range(choices.number(MAX_CHANGES + 1)):
        _change(element, choices)
    return element


def _change(element: ET.Element, choices: Choices) -> None:
    """Change a node of some name, so that a hundred candidates are no likelier to be met than one fingerprint."""
    nodes = list(element.iter())
    tag = choices.one(list(dict.fromkeys(node.tag for node in nodes)))
    choices.one(_CHANGES)(choices.one([node for node in nodes if node.tag == tag]), choices, nodes)


def _spoil_attribute(node: ET.Element, choices: Choices, _: list[ET.Element]) -> None:
    if node.attrib:
        node.set(choices.one(sorted(node.attrib)), choices.one(NASTY))


def _spoil_attributes(node: ET.Element, choices: Choices, nodes: list[ET.Element]) -> None:
    """The same in every element of that name."""
    if node.attrib:
        name, spoilt = choices.one(sorted(node.attrib)), choices.one(WORST)
        for other in nodes:
            if other.tag == node.tag:
                other.set(name, spoilt)


def _drop_attribute(node: ET.Element, choices: Choices, _: list[ET.Element]) -> None:
    if node.attrib:
        del node.attrib[choices.one(sorted(node.attrib))]


def _spoil_text(node: ET.Element, choices: Choices, _: list[ET.Element]) -> None:
    node.text = choices.one(NASTY)


def _drop_child(node: ET.Element, choices: Choices, _: list[ET.Element]) -> None:
    if len(node):
        node.remove(choices.one(list(node)))


def _repeat_child(node: ET.Element, choices: Choices, _: list[ET.Element]) -> None:
    if len(node) and len(node) < 100:
        child = choices.one(list(node))
        node.extend([copy.deepcopy(child) for _ in range(1 + choices.number(3))])


def _move(node: ET.Element, choices: Choices, nodes: list[ET.Element]) -> None:
    node.append(copy.deepcopy(choices.one([item for item in nodes if len(item) < 5] or nodes[-1:])))


def _rename(node: ET.Element, choices: Choices, nodes: list[ET.Element]) -> None:
    node.tag = choices.one(nodes).tag if choices.number(2) else "{urn:nobody}knows"


def _act(_: ET.Element, choices: Choices, nodes: list[ET.Element]) -> None:
    nodes[0].set("action", choices.one(ACTIONS))


def _json(node: ET.Element, choices: Choices, _: list[ET.Element]) -> None:
    message = ET.SubElement(node, "{http://jitsi.org/jitmeet}json-message")
    message.text = json.dumps({"sources": {"o": value(choices, 5)}})


_CHANGES = (
    _act,
    _spoil_attribute,
    _spoil_attributes,
    _drop_attribute,
    _spoil_text,
    _drop_child,
    _repeat_child,
    _move,
    _rename,
    _json,
)

_SCALARS = (0, 1, -1, 2**31, 2**32 - 1, 2**32, 10**400, True, None, 1.5, float("nan"), float("inf"), *NASTY[:11])


def value(choices: Choices, depth: int) -> object:
    """A JSON value of any shape: scalars, lists, and objects with the names that bridge and focus use."""
    kind = choices.number(4)
    if depth == 0 or kind < 2:
        return choices.one(_SCALARS)
    if kind == 2:
        return [value(choices, depth - 1) for _ in range(choices.number(6))]
    return {choices.one(_NAMES): value(choices, depth - 1) for _ in range(choices.number(6))}


_NAMES = ("colibriClass", "mappedSources", "source", "owner", "ssrc", "rtx", "videoType", "s", "n", "m", "v", "x")
