"""Stanzas written short: the same elements, in fewer characters."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slixmpp.xmlstream.tostring import tostring

from bot.bridge.session import OwnSsrcs
from bot.jingle.answer import build_answer
from bot.jingle.codec import build_jingle
from bot.jingle.model import Candidate, Fingerprint, Transport
from bot.xmpp.compact import SHORT, compact
from tests.jingle_support import JINGLE, offer, recorded

#: What nginx passes on of a WebSocket in one piece (proxy_buffer_size), less the reply to the offer that goes
#: before the accept, and the headers of both frames.
PIECE = 4096 - 204 - 2 * 8


def stanza(payload: ET.Element) -> str:
    """An IQ as slixmpp writes it."""
    iq = ET.Element(
        "{jabber:client}iq", type="set", to="room@muc.meet.jitsi/focus", id="3b5650aeca2b4f99b862c4b74a962688"
    )
    iq.append(payload)
    return str(tostring(iq))


def same(one: ET.Element, other: ET.Element) -> bool:
    """Whether the two trees say the same."""
    return (
        (one.tag, one.attrib, one.text or "", one.tail or "")
        == (other.tag, other.attrib, other.text or "", other.tail or "")
        and len(one) == len(other)
        and all(same(a, b) for a, b in zip(one, other, strict=True))
    )


@pytest.mark.parametrize("layers", [1, 3])
def test_an_accept_fits_in_one_piece_of_a_proxy(layers: int) -> None:
    """The whole media session waits for a second one, where what a client may send is limited."""
    own = OwnSsrcs(2**32 - 1, 2**32 - 2, 2**32 - 3)
    sources = own.source("deadbeef", "a0").sources.merged(own.source("deadbeef", "v0", layers=layers).sources)
    transport = Transport(
        ufrag="i4FD",
        pwd="1sbb840n39nMNfcqNYmSrQ",
        candidates=(Candidate("41c49a36", 1, "udp", 2130706431, "192.168.100.100", 48532, "host", id="c0"),) * 9,
        fingerprints=(Fingerprint("sha-256", ":".join(["70"] * 32), "active"),),
        rtcp_mux=True,
    )
    accept = build_answer(
        offer(),
        responder=f"{'x' * 36}@meet.jitsi/{'y' * 12}",
        transport=transport,
        own=sources,
    )
    long = stanza(build_jingle(accept))
    short = compact(long)
    assert len(short) < len(long)
    assert len(short) <= PIECE
    assert same(ET.fromstring(short), ET.fromstring(long))


@pytest.mark.parametrize("item", recorded(), ids=repr)
def test_recorded_stanzas_stay_the_same(item: object) -> None:
    element = item.element  # type: ignore[attr-defined]
    assert element.tag == JINGLE
    long = stanza(element)
    short = compact(long)
    assert len(short) <= len(long)
    assert same(ET.fromstring(short), ET.fromstring(long))


@pytest.mark.parametrize(
    "body",
    [
        "<x/>" * SHORT,  # the same namespace everywhere: nothing to gain
        '<a xmlns="">' + "<b/>" * SHORT + "</a>",
        '<a xmlns="urn:a" xml:lang="en">' + '<b xmlns="urn:b"/>' * SHORT + "</a>",
        "".join(f'<a xmlns="urn:{number}"/>' for number in range(SHORT)),
        "&amp;" * SHORT,
    ],
)
def test_what_is_not_shortened_is_left_alone(body: str) -> None:
    frame = f'<message xmlns="jabber:client">{body}</message>'
    assert compact(frame) == frame


def test_short_frames_are_not_touched() -> None:
    frame = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='meet.jitsi'/>"
    assert compact(frame) is frame


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=20)
NAMES = st.sampled_from(["a", "b-c", "d"])
SPACES = st.sampled_from(["jabber:client", "urn:one", "urn:two", "urn:a-longer-one"])


@st.composite
def elements(draw: st.DrawFn, depth: int = 3) -> ET.Element:
    """Trees in a few namespaces."""
    element = ET.Element(f"{{{draw(SPACES)}}}{draw(NAMES)}", draw(st.dictionaries(NAMES, TEXT, max_size=3)))
    element.text, element.tail = draw(TEXT), draw(TEXT)
    if depth:
        element.extend(draw(st.lists(elements(depth - 1), max_size=4)))
    return element


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(elements(), min_size=1, max_size=12))
def test_nothing_is_lost(children: list[ET.Element]) -> None:
    root = ET.Element("{jabber:client}iq", id="1")
    root.extend(children)
    ET.SubElement(root, "{urn:one}x").text = "x" * SHORT
    frame = str(tostring(root))
    short = compact(frame)
    assert len(short) <= len(frame)
    assert same(ET.fromstring(short), ET.fromstring(frame))
