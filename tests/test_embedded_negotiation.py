"""The way in: RFC 7395 framing, SASL ANONYMOUS and PLAIN, binding a resource; and how a stream ends."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.embedded.config import EmbeddedConfig
from bot.embedded.negotiation import StreamError
from tests.embedded_support import AUTH, BIND, ENABLE, OPEN, ROOM, Client, World, condition, local

CLOSE = '<close xmlns="urn:ietf:params:xml:ns:xmpp-framing"/>'
ACCOUNTS = EmbeddedConfig(accounts={"bot": "sécret"})


def plain(message: str) -> str:
    text = base64.b64encode(message.encode()).decode()
    return f'<auth xmlns="urn:ietf:params:xml:ns:xmpp-sasl" mechanism="PLAIN">{text}</auth>'


def stream_error(client: Client, *frames: str) -> str:
    """Condition of the error that ends the stream; the end is a close (RFC 7395 section 3.6)."""
    *_, error, close = client.send(*frames)
    assert [local(error), local(close)] == ["error", "close"]
    assert client.closed
    assert client.send("<presence/>") == []
    return local(error[0])


def test_the_way_in_of_a_guest() -> None:
    world = World()
    client = world.client()
    opened, features = client.send(OPEN)
    assert (opened.get("from"), opened.get("version")) == ("meet.jitsi", "1.0")
    assert [mechanism.text for mechanism in features[0]] == ["ANONYMOUS"]
    assert [local(answer) for answer in client.send(AUTH)] == ["success"]
    again, features = client.send(OPEN)
    assert again.get("id") != opened.get("id")
    assert {"bind", "session", "sm"} <= {local(feature) for feature in features}
    [bound] = client.send(BIND)
    jid = bound.findtext(".//{*}jid") or ""
    assert jid.startswith("00000002-0000-4000@meet.jitsi/")
    assert world.core.sessions == (jid,)


def test_a_client_names_its_resource_or_gets_one() -> None:
    world = World()
    client = world.client()
    client.send(OPEN, AUTH, OPEN)
    [bound] = client.send(BIND.replace("/></iq>", "><resource>mine</resource></bind></iq>"))
    assert (bound.findtext(".//{*}jid") or "").endswith("@meet.jitsi/mine")
    other, third = world.bound(), world.bound()
    assert other.jid != third.jid


def test_a_resource_longer_than_an_address_may_have_it_is_refused() -> None:
    client = World().client()
    client.send(OPEN, AUTH, OPEN)
    [answer] = client.send(BIND.replace("/></iq>", f"><resource>{'r' * 1024}</resource></bind></iq>"))
    assert condition(answer) == ("modify", "bad-request")
    [bound] = client.send(BIND)
    assert bound.get("type") == "result"


@pytest.mark.parametrize(
    "message", ["bot\0sécret", "\0bot\0wrong", "\0nobody\0sécret", "\0bot\0", "", "\0bot\0sécret\0", "\0\0"]
)
def test_an_account_with_wrong_credentials_may_try_again(message: str) -> None:
    client = World(ACCOUNTS).client()
    _, features = client.send(OPEN)
    assert [mechanism.text for mechanism in features[0]] == ["ANONYMOUS", "PLAIN"]
    [failure] = client.send(plain(message))
    assert [local(node) for node in failure] == ["not-authorized", "text"]
    [success] = client.send(plain("\0bot\0sécret"))
    assert local(success) == "success"
    client.send(OPEN)
    [bound] = client.send(BIND)
    assert (bound.findtext(".//{*}jid") or "").startswith("bot@meet.jitsi/")


@pytest.mark.parametrize("text", ["!", "_w==", "AGJvdA=", base64.b64encode(b"\0bot\0\xff").decode()])
def test_broken_base64_is_told_apart_from_a_wrong_password(text: str) -> None:
    client = World(ACCOUNTS).client()
    client.send(OPEN)
    [failure] = client.send(f'<auth xmlns="urn:ietf:params:xml:ns:xmpp-sasl" mechanism="PLAIN">{text}</auth>')
    assert local(failure[0]) == "incorrect-encoding"


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1", "PLAIN", ""])
def test_mechanisms_that_were_not_offered(mechanism: str) -> None:
    client = World().client()
    client.send(OPEN)
    [failure] = client.send(f'<auth xmlns="urn:ietf:params:xml:ns:xmpp-sasl" mechanism="{mechanism}">AA==</auth>')
    assert local(failure[0]) == "invalid-mechanism"
    assert [local(answer) for answer in client.send(AUTH)] == ["success"]


@pytest.mark.parametrize(
    ("frames", "wanted"),
    [
        (["<presence/>"], "not-authorized"),
        ([AUTH], "not-authorized"),
        ([OPEN.replace("meet.jitsi", "other.example")], "host-unknown"),
        ([OPEN.replace(' to="meet.jitsi"', "")], "host-unknown"),
        ([OPEN, OPEN], "not-authorized"),
        ([OPEN, "<presence/>"], "not-authorized"),
        ([OPEN, AUTH, "<presence/>"], "not-authorized"),
        ([OPEN, AUTH, OPEN, "<presence/>"], "not-authorized"),
        ([OPEN, AUTH, OPEN, "<iq type='set' id='1'><q xmlns='urn:q'/></iq>"], "not-authorized"),
        ([OPEN, AUTH, OPEN, BIND, OPEN], "not-authorized"),
        ([OPEN, AUTH, OPEN, BIND, "<what xmlns='urn:what'/>"], "unsupported-stanza-type"),
        (["<open"], "not-well-formed"),
        ([OPEN, "<presence><x></presence>"], "not-well-formed"),
        ([OPEN, AUTH, OPEN, BIND, "broken"], "not-well-formed"),
    ],
)
def test_what_ends_the_stream(frames: list[str], wanted: str) -> None:
    world = World()
    assert stream_error(world.client(), *frames) == wanted
    assert [failed.condition for failed in world.failed] == [wanted]
    assert world.core.sessions == ()


def test_an_error_before_the_header_comes_after_ours() -> None:
    """RFC 6120 section 4.9.1.1: the entity that finds the error opens the stream first."""
    client = World().client()
    assert [local(frame) for frame in client.send("<open")] == ["open", "error", "close"]


def test_a_stream_error_as_text_and_element() -> None:
    error = StreamError("conflict")
    assert str(error) == "conflict"
    assert [local(node) for node in error.element()] == ["conflict"]


def test_enabling_stream_management_has_to_wait_for_the_resource() -> None:
    client = World().client()
    client.send(OPEN, AUTH, OPEN)
    [failed] = client.send(ENABLE)
    assert (local(failed), local(failed[0])) == ("failed", "unexpected-request")
    assert local(client.send(BIND)[0]) == "iq"


def test_a_close_is_answered_and_takes_the_client_out_of_its_rooms() -> None:
    world = World()
    stays, goes = world.joined("stays"), world.joined("goes")
    stays.take()
    assert [local(frame) for frame in goes.send(CLOSE)] == ["close"]
    assert goes.closed
    [left] = stays.take()
    assert (left.get("type"), left.get("from")) == ("unavailable", f"{ROOM}/goes")
    goes.lost()
    assert world.core.sessions == (stays.jid,)


def test_a_close_before_the_login_and_with_stream_management() -> None:
    world = World()
    assert [local(frame) for frame in world.client().send(OPEN, CLOSE)] == ["open", "features", "close"]
    client = world.bound(managed=True)
    client.send("<presence/>")
    ack, close = client.send(CLOSE)
    assert (local(ack), ack.get("h"), local(close)) == ("a", "1", "close")
    assert world.core.next_deadline() is None


def test_the_same_resource_again_replaces_the_older_connection() -> None:
    world = World(ACCOUNTS)
    bind = BIND.replace("/></iq>", "><resource>r</resource></bind></iq>")
    old, new = world.client(), world.client()
    for client in (old, new):
        client.send(OPEN, plain("\0bot\0sécret"), OPEN, bind)
    assert [local(frame) for frame in old.take()] == ["error", "close"]
    assert old.closed
    assert world.core.sessions == ("bot@meet.jitsi/r",)
    old.lost()
    assert [local(frame) for frame in new.iq("get", "meet.jitsi", '<ping xmlns="urn:xmpp:ping"/>')] == ["iq"]


def test_a_session_that_waits_to_be_resumed_is_replaced_too() -> None:
    world = World(ACCOUNTS)
    bind = BIND.replace("/></iq>", "><resource>r</resource></bind></iq>")
    old, new = world.client(), world.client()
    old.send(OPEN, plain("\0bot\0sécret"), OPEN, bind, ENABLE)
    old.lost()
    assert local(new.send(OPEN, plain("\0bot\0sécret"), OPEN, bind)[-1]) == "iq"
    assert world.core.sessions == ("bot@meet.jitsi/r",)
    assert world.core.next_deadline() is None


@given(
    st.lists(st.sampled_from([OPEN, AUTH, BIND, ENABLE, CLOSE, "<presence/>", "x", plain("\0bot\0x")]), max_size=8)
)
def test_any_order_of_frames_leaves_at_most_one_session_and_one_end(frames: list[str]) -> None:
    world = World(ACCOUNTS)
    client = world.client()
    got = client.send(*frames)
    assert len(world.core.sessions) <= 1
    assert [local(frame) for frame in got].count("close") == client.closed
    client.lost()
    world.take(world.core.tick(1000.0))
    assert world.core.sessions == ()
