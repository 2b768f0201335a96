"""Reading of XML attributes and children with bounds; all raise JingleError, which names both."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from bot.jingle import names
from bot.jingle.model import JingleError
from bot.jingle.names import local_name


def required(element: ET.Element, name: str) -> str:
    """Attribute ``name``, which must be there and hold something."""
    value = element.get(name)
    if not value:
        raise JingleError(f"<{local_name(element.tag)}> lacks its attribute '{name}'")
    return value


def number(element: ET.Element, name: str, low: int, high: int, default: int | None = None) -> int:
    """Attribute ``name`` as a whole number from ``low`` to ``high``; ``default`` where there is none."""
    text = element.get(name)
    if text is None and default is not None:
        return default
    if text and text.isascii() and text.isdecimal() and len(text) <= 20 and low <= int(text) <= high:
        return int(text)
    raise JingleError(
        f"<{local_name(element.tag)}> attribute '{name}' is not a number from {low} to {high}: {str(text)[:40]!r}"
    )


def optional_number(element: ET.Element, name: str, high: int) -> int | None:
    """Attribute ``name`` as a whole number from 0 to ``high``, None where it is missing."""
    return None if element.get(name) is None else number(element, name, 0, high)


def flag(element: ET.Element, name: str) -> bool | None:
    """Attribute ``name`` as XML Schema's boolean, None where it is missing."""
    value = element.get(name)
    return None if value is None else value.lower() in {"true", "1"}


def children(element: ET.Element, tag: str, limit: int = names.MAX_ELEMENTS) -> list[ET.Element]:
    """Children named ``tag``, JingleError when there are more than ``limit``."""
    found = element.findall(tag)
    if len(found) > limit:
        raise JingleError(
            f"<{local_name(element.tag)}> has more than {limit} <{local_name(tag)}>", "resource-constraint"
        )
    return found
