"""Frames to elements and back (RFC 7395), addresses (RFC 7622), stanza errors (RFC 6120)."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.embedded.config import EmbeddedConfig, RoomPolicy
from bot.embedded.stanza import (
    MAX_DEPTH,
    NS_CLIENT,
    NS_STREAM,
    XML_LANG,
    FrameError,
    Jid,
    child,
    clone,
    element,
    error_reply,
    is_request,
    parse_frame,
    payload_of,
    serialize,
    split_tag,
)

names = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True)
namespaces = st.sampled_from(["jabber:client", "urn:a", "urn:b", NS_STREAM])
contents = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), include_characters="\t\n\r"))
attribute_names = names | st.builds("{{urn:x}}{}".format, names) | st.builds("{{urn:y}}{}".format, names)
attributes = st.dictionaries(attribute_names | st.just(XML_LANG), contents, max_size=4)


@st.composite
def elements(draw: st.DrawFn, depth: int = 3) -> ET.Element:
    made = ET.Element(f"{{{draw(namespaces)}}}{draw(names)}", draw(attributes))
    made.text = draw(contents)
    for _ in range(draw(st.integers(0, 3)) if depth else 0):
        inner = draw(elements(depth=depth - 1))
        inner.tail = draw(contents)
        made.append(inner)
    return made


def form(node: ET.Element) -> object:
    return node.tag, dict(node.attrib), node.text or "", node.tail or "", [form(inner) for inner in node]


@given(elements())
def test_what_is_written_is_read_again(made: ET.Element) -> None:
    assert form(parse_frame(serialize(made))) == form(made)


@given(elements())
def test_inside_a_stream_too(made: ET.Element) -> None:
    """As a component sends it, where the stream header has declared the default namespace."""
    stream = f"<s xmlns='{NS_CLIENT}' xmlns:stream='{NS_STREAM}'>{serialize(made, NS_CLIENT)}</s>"
    assert form(ET.fromstring(stream)[0]) == form(made)


def test_namespaces_are_defaults_since_web_clients_compare_names() -> None:
    query = element("iq", NS_CLIENT, {"id": "1"})
    child(query, "query", "urn:q")
    assert serialize(query) == '<iq xmlns="jabber:client" id="1"><query xmlns="urn:q"/></iq>'
    features = ET.Element(f"{{{NS_STREAM}}}features")
    assert serialize(features) == f'<stream:features xmlns:stream="{NS_STREAM}" xmlns="jabber:client"/>'


def test_a_stanza_without_a_namespace_is_the_clients() -> None:
    assert parse_frame("<iq><a xmlns='urn:a'/><b/></iq>")[1].tag == f"{{{NS_CLIENT}}}b"


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        ("", "does not begin"),
        (" ", "does not begin"),
        ("hello", "does not begin"),
        ("<?xml version='1.0'?><a/>", "does not begin"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "does not begin"),
        ("<!-- no --><a/>", "does not begin"),
        ("<a><b></a>", "not well-formed"),
        ("<a/><b/>", "not well-formed"),
        ("<a>", "not well-formed"),
        ("<a>\x00</a>", "not well-formed"),
        ("<a>&b;</a>", "not well-formed"),
        ("<a><!DOCTYPE b></a>", "not well-formed"),
        ("<a>" * (MAX_DEPTH + 1) + "</a>" * (MAX_DEPTH + 1), "inside each other"),
        ("<a>" * 50_000 + "</a>" * 50_000, "inside each other"),
    ],
)
def test_frames_that_are_no_single_element(frame: str, why: str) -> None:
    with pytest.raises(FrameError, match=why):
        parse_frame(frame)


def test_as_deep_as_allowed_is_read_and_written() -> None:
    frame = "<a>" * MAX_DEPTH + "</a>" * MAX_DEPTH
    assert serialize(parse_frame(frame, "")).count("<a") == MAX_DEPTH


def test_a_document_type_in_text_is_text() -> None:
    assert parse_frame("<body><![CDATA[<!DOCTYPE html>]]></body>").text == "<!DOCTYPE html>"


@given(st.text(max_size=60))
def test_any_text_is_an_element_or_a_frame_error(text: str) -> None:
    try:
        found = parse_frame(text)
    except FrameError:
        return
    assert isinstance(found, ET.Element)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a@b/c", ("a", "b", "c")),
        ("b", ("", "b", "")),
        ("b/c/d@e", ("", "b", "c/d@e")),
        ("", ("", "", "")),
        ("@b", ("", "b", "")),
    ],
)
def test_addresses(text: str, parts: tuple[str, str, str]) -> None:
    assert tuple(Jid.parse(text)) == parts


def test_addresses_as_text_and_folded() -> None:
    assert str(Jid("a", "b", "c")) == "a@b/c"
    assert str(Jid("", "b", "")) == Jid("", "b", "c").bare == "b"
    assert Jid("Room", "MUC.Meet.jitsi", "Nick").folded() == Jid("room", "muc.meet.jitsi", "Nick")
    assert Jid("a" * 1023, "b", "c").fits
    assert not Jid("a", "b", "\u00e9" * 512).fits


def test_names_are_split() -> None:
    assert split_tag("{urn:a}b") == ("urn:a", "b")
    assert split_tag("b") == ("", "b")


def test_an_error_goes_back_and_says_why() -> None:
    stanza = parse_frame("<iq type='get' id='1' from='a@b/c' to='d'><q xmlns='urn:q'/></iq>")
    answer = error_reply(stanza, "forbidden", "no", by="d", details=element("own", "urn:own"))
    assert serialize(answer) == (
        '<iq xmlns="jabber:client" type="error" id="1" to="a@b/c" from="d">'
        '<error type="auth" by="d"><forbidden xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/>'
        '<text xmlns="urn:ietf:params:xml:ns:xmpp-stanzas">no</text><own xmlns="urn:own"/></error></iq>'
    )
    assert not is_request(answer)
    assert is_request(stanza)
    assert payload_of(answer) is None
    assert payload_of(stanza) is stanza[0]


def test_a_copy_has_other_attributes_and_the_same_content() -> None:
    stanza = parse_frame("<message to='a'>t<b/></message>")
    copy = clone(stanza, to="c")
    assert (copy.get("to"), stanza.get("to"), copy.text, list(copy)) == ("c", "a", "t", list(stanza))


def test_names_of_the_deployment() -> None:
    config = EmbeddedConfig(rooms={"a": RoomPolicy(password="x")})
    assert config.focus_jid == "focus@auth.meet.jitsi/focus"
    assert RoomPolicy() == RoomPolicy(None, None, frozenset(), members_only=False)
