"""Jitsi's JSON encoding of sources, as Jicofo writes it in place of ``<source>`` elements.

``{"sources": {owner: [video sources, video groups, audio sources, audio groups]}}``, where empty lists at the end
may be left out. A source is ``{"s": ssrc, "n": name, "m": msid, "v": "d"}``, ``v`` only for a desktop; a group is
``["f", ssrc, …]`` for FID and ``["s", ssrc, …]`` for SIM.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from bot.jingle import names
from bot.jingle.model import JingleError, MediaSources, Source, SourceGroup, SourceMap

_SEMANTICS: Final = {"f": "FID", "s": "SIM"}
_LETTERS: Final = {name: letter for letter, name in _SEMANTICS.items()}


def sources_from_json(text: str) -> SourceMap | None:
    """Read a JSON message; None when it is well formed but about something else than sources.

    Video that does not say so is of a camera, as web clients take it. Raises JingleError.
    """
    if len(text) > names.MAX_JSON:
        raise JingleError(f"<json-message> has more than {names.MAX_JSON} characters", "resource-constraint")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise JingleError(f"<json-message> is not JSON: {str(error)[:80]}") from error
    owners = message.get("sources") if isinstance(message, dict) else None
    if owners is None:
        return None
    if not isinstance(owners, dict):
        raise JingleError("<json-message> 'sources' is not an object")
    return _merge(_owner_sources(_text(owner, "owner"), lists) for owner, lists in owners.items())


def _merge(parts: Iterable[SourceMap]) -> SourceMap:
    """One map of many in one go: adding tuples one after the other would cost the square of the owners."""
    maps = list(parts)
    return SourceMap(
        audio=_joined([part.audio for part in maps]),
        video=_joined([part.video for part in maps]),
    )


def _joined(parts: list[MediaSources]) -> MediaSources:
    return MediaSources(
        tuple(source for part in parts for source in part.sources),
        tuple(group for part in parts for group in part.groups),
    )


def _owner_sources(owner: str | None, lists: object) -> SourceMap:
    parts = _list(lists, "an owner's entry")
    video, video_groups, audio, audio_groups = (
        _list(parts[index], "a list of sources") if index < len(parts) else [] for index in range(4)
    )
    return SourceMap(
        audio=MediaSources(tuple(_source(owner, item) for item in audio), _groups(audio_groups)),
        video=MediaSources(tuple(_source(owner, item, "camera") for item in video), _groups(video_groups)),
    )


def _list(value: object, what: str) -> list[object]:
    if isinstance(value, list):
        return value
    raise JingleError(f"<json-message> {what} is not a list")


def _text(value: object, what: str) -> str | None:
    """Text of a bounded length that XML can carry, too; None where it is missing or empty."""
    if value is None or value == "":
        return None
    if isinstance(value, str) and len(value) <= names.MAX_TEXT and value.isprintable():
        return value
    raise JingleError(f"<json-message> {what} is not a short text")


def _ssrc(value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 10:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= names.MAX_SSRC:
        return value
    raise JingleError("<json-message> an SSRC is not a number of 32 bits")


def _source(owner: str | None, item: object, video_type: str | None = None) -> Source:
    if not isinstance(item, dict):
        raise JingleError("<json-message> a source is not an object")
    desktop = video_type is not None and bool(item.get("v"))
    return Source(
        ssrc=_ssrc(item.get("s")),
        name=_text(item.get("n"), "a source's name"),
        owner=owner,
        msid=_text(item.get("m"), "a source's msid"),
        video_type="desktop" if desktop else video_type,
    )


def _groups(items: list[object]) -> tuple[SourceGroup, ...]:
    """Groups whose semantics are known; others say nothing to us and are left out."""
    found = []
    for item in items:
        letter, *ssrcs = _list(item, "a group") or [None]
        if len(ssrcs) > names.MAX_GROUP:
            raise JingleError(f"<json-message> a group has more than {names.MAX_GROUP} SSRCs")
        if isinstance(letter, str) and letter in _SEMANTICS:
            found.append(SourceGroup(_SEMANTICS[letter], tuple(map(_ssrc, ssrcs))))
    return tuple(found)


def sources_to_json(sources: SourceMap) -> str:
    """Write the JSON message, owner by owner.

    A group belongs to the owner of the first SSRC of it that ``sources`` names, else to nobody (the owner ``""``).
    Groups other than FID and SIM have no letter in this encoding and are left out.
    """
    owners: dict[str, list[list[object]]] = {}
    for media, first in ((sources.video, 0), (sources.audio, 2)):
        owner_of = {source.ssrc: source.owner or "" for source in media.sources}
        for source in media.sources:
            _lists(owners, source.owner or "")[first].append(_source_json(source))
        for group in media.groups:
            owner = next((owner_of[ssrc] for ssrc in group.ssrcs if ssrc in owner_of), "")
            if group.semantics in _LETTERS:
                _lists(owners, owner)[first + 1].append([_LETTERS[group.semantics], *group.ssrcs])
    trimmed = {owner: lists if lists[3] else lists[:3] for owner, lists in owners.items()}
    return json.dumps({"sources": trimmed}, separators=(",", ":"))


def _lists(owners: dict[str, list[list[object]]], owner: str) -> list[list[object]]:
    return owners.setdefault(owner, [[], [], [], []])


def _source_json(source: Source) -> dict[str, object]:
    item: dict[str, object] = {"s": source.ssrc}
    if source.name:
        item["n"] = source.name
    if source.msid:
        item["m"] = source.msid
    if source.video_type == "desktop":
        item["v"] = "d"
    return item
