"""Recorded Jingle stanzas, and strategies for generated ones."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from types import MappingProxyType
from typing import NamedTuple

from hypothesis import strategies as st

from bot.jingle.codec import parse_jingle
from bot.jingle.model import (
    Action,
    Candidate,
    Content,
    Fingerprint,
    HeaderExtension,
    Jingle,
    MediaSources,
    PayloadType,
    Reason,
    RtcpFeedback,
    SctpMap,
    Source,
    SourceGroup,
    SourceMap,
    Transport,
)
from tests.conftest import CAPTURES

JINGLE = "{urn:xmpp:jingle:1}jingle"
_LINE = re.compile(r"^\S+ (?:>>>|<<<) (<.*)$")


class Recorded(NamedTuple):
    """A recorded stanza: the dialogue it is from and the element itself."""

    dialogue: str
    element: ET.Element

    def __repr__(self) -> str:
        return f"{self.dialogue}:{self.element.get('action')}"


def recorded() -> list[Recorded]:
    """Every Jingle stanza of every dialogue, in both directions."""
    return [
        Recorded(path.stem, element)
        for path in sorted(CAPTURES.iterdir())
        for element in _elements(path.suffix, path.read_text())
    ]


def _elements(suffix: str, text: str) -> Iterator[ET.Element]:
    if suffix == ".xml":
        yield from ET.fromstring(f"<all>{text}</all>").iter(JINGLE)
        return
    for line in text.splitlines():
        match = _LINE.match(line)
        if match:
            yield from ET.fromstring(match[1]).iter(JINGLE)


def one(dialogue: str, action: str) -> Jingle:
    """The one stanza of ``dialogue`` with ``action``."""
    [found] = [
        item.element for item in recorded() if item.dialogue == dialogue and item.element.get("action") == action
    ]
    return parse_jingle(found)


def offer(dialogue: str = "probe-media-both-alice") -> Jingle:
    """A recorded session-initiate."""
    return one(dialogue, "session-initiate")


def own_transport(setup: str = "actpass") -> Transport:
    """A transport as ours is: gathered, not yet answered with."""
    candidate = Candidate("1", 1, "udp", 2130706431, "192.0.2.1", 50000, "host", id="c0")
    return Transport("ufrg", "secretpassword", (candidate,), (Fingerprint("sha-256", "AB:CD", setup),))


def audio_video(*ssrcs: int, owner: str | None = None) -> SourceMap:
    """One audio source, then video: the first with RTX as second."""
    audio, video, rtx = ssrcs
    return SourceMap(
        audio=MediaSources((Source(audio, "ep-a0", owner, "ep-audio-0-1 a"),)),
        video=MediaSources(
            (
                Source(video, "ep-v0", owner, "ep-video-0-1 v", "camera"),
                Source(rtx, "ep-v0", owner, "ep-video-0-1 v", "camera"),
            ),
            (SourceGroup("FID", (video, rtx)),),
        ),
    )


# --- strategies --------------------------------------------------------------------------------------------

texts = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x24F, exclude_categories=("C", "Z")), min_size=1)
words = st.from_regex(r"[a-z][a-z0-9.-]{0,11}", fullmatch=True)
ssrcs = st.integers(0, 0xFFFFFFFF)
maybe_text = st.none() | texts

feedbacks = st.builds(RtcpFeedback, words, st.none() | words)
payload_types = st.builds(
    PayloadType,
    id=st.integers(0, 127),
    name=words | st.just(""),
    clockrate=st.integers(0, 192_000),
    channels=st.integers(1, 8),
    parameters=st.dictionaries(words, texts | st.just(""), max_size=3).map(MappingProxyType),
    feedback=st.lists(feedbacks, max_size=3).map(tuple),
)
candidates = st.builds(
    Candidate,
    foundation=words,
    component=st.integers(1, 256),
    protocol=st.sampled_from(["udp", "tcp", "ssltcp"]),
    priority=st.integers(0, 0xFFFFFFFF),
    ip=st.ip_addresses().map(str),
    port=st.integers(0, 65535),
    type=st.sampled_from(["host", "srflx", "prflx", "relay"]),
    generation=st.integers(0, 9),
    id=words | st.just(""),
    network=st.integers(0, 9),
    rel_addr=st.none() | st.ip_addresses().map(str),
    rel_port=st.none() | st.integers(0, 65535),
    tcptype=st.none() | st.sampled_from(["active", "passive", "so"]),
)
fingerprints = st.builds(
    Fingerprint, words, words.map(str.upper), st.sampled_from(["actpass", "active", "passive"])
)
transports = st.builds(
    Transport,
    ufrag=words | st.just(""),
    pwd=words | st.just(""),
    candidates=st.lists(candidates, max_size=3).map(tuple),
    fingerprints=st.lists(fingerprints, max_size=2).map(tuple),
    rtcp_mux=st.booleans(),
    web_socket_url=maybe_text,
    sctp=st.none() | st.builds(SctpMap, st.integers(0, 65535), words, st.integers(0, 65535)),
)
extensions = st.builds(HeaderExtension, st.integers(1, 255), texts)


def sources(video_types: st.SearchStrategy[str | None]) -> st.SearchStrategy[Source]:
    """Sources whose video types are drawn from ``video_types``."""
    return st.builds(Source, ssrcs, maybe_text, st.none() | words, maybe_text, video_types)


groups = st.builds(
    SourceGroup, st.sampled_from(["FID", "SIM", "FEC-FR"]), st.lists(ssrcs, min_size=1, max_size=4).map(tuple)
)


def media_sources(video_types: st.SearchStrategy[str | None]) -> st.SearchStrategy[MediaSources]:
    """Sources and groups of one kind."""
    return st.builds(
        MediaSources,
        st.lists(sources(video_types), max_size=5).map(tuple),
        st.lists(groups, max_size=3).map(tuple),
    )


source_maps = st.builds(
    SourceMap,
    audio=media_sources(st.none()),
    video=media_sources(st.sampled_from([None, "camera", "desktop"])),
)


@st.composite
def contents(draw: st.DrawFn, name: str) -> Content:
    """The content called ``name``."""
    return Content(
        name=name,
        media="application" if name == "data" else "audio" if name == "audio" else "video",
        creator=draw(st.sampled_from(["initiator", "responder"])),
        senders=draw(st.sampled_from(["both", "none", "initiator", "responder"])),
        payload_types=tuple(draw(st.lists(payload_types, max_size=3))),
        header_extensions=tuple(draw(st.lists(extensions, max_size=3))),
        extmap_allow_mixed=draw(st.booleans()),
        rtcp_mux=draw(st.booleans()),
        transport=draw(st.none() | transports),
        maxptime=draw(st.none() | st.integers(0, 120)),
    )


@st.composite
def jingles(draw: st.DrawFn) -> Jingle:
    """Whole stanzas whose sources are XML elements: audio and video contents are there to hold them."""
    action = draw(st.sampled_from(list(Action)))
    kinds = ["audio", "video", *draw(st.sampled_from([[], ["data"]]))]
    return Jingle(
        action=action,
        sid=draw(words),
        initiator=draw(maybe_text),
        responder=draw(maybe_text),
        contents=tuple(draw(contents(kind)) for kind in kinds),
        bundle=tuple(kinds) if draw(st.booleans()) else (),
        sources=draw(source_maps),
        bridge_session_id=draw(words),
        restart=draw(st.none() | st.booleans()),
        ice_restart=draw(st.none() | st.booleans()),
        reason=draw(st.none() | st.builds(Reason, st.sampled_from(["success", "expired"]), maybe_text)),
        info=("{urn:xmpp:jingle:apps:rtp:info:1}mute",) if action is Action.SESSION_INFO else (),
    )
