"""Stream management, the server's side (XEP-0198): counting, resuming, and its end."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bot.embedded.config import EmbeddedConfig
from bot.embedded.core import Write
from bot.embedded.management import StreamManagement, TooManyAckedError
from bot.embedded.stanza import parse_frame
from tests.embedded_support import AUTH, BIND, ENABLE, OPEN, ROOM, Client, World, local
from tests.test_embedded_negotiation import plain

PING = '<ping xmlns="urn:xmpp:ping"/>'
WRAP = 1 << 32


def management(limit: int = 10) -> StreamManagement:
    return StreamManagement("s", ack_every=3, limit=limit, max_size=100)


def test_an_acknowledgement_is_asked_for_every_few_stanzas() -> None:
    managed = management()
    assert [managed.record_sent(str(number)) for number in range(6)] == [False, False, True, False, False, True]


def test_counters_wrap_at_32_bits() -> None:
    managed = management()
    managed.handled = managed.acknowledged = WRAP - 1
    managed.count_received()
    managed.record_sent("a")
    managed.record_sent("b")
    assert (managed.handled, managed.sent) == (0, 1)
    managed.acknowledge(1)
    assert (managed.acknowledged, managed.unacked) == (1, ())


def test_more_acknowledged_than_sent() -> None:
    managed = management()
    managed.record_sent("a")
    with pytest.raises(TooManyAckedError, match="acknowledged 2 of 1"):
        managed.acknowledge(2)
    with pytest.raises(TooManyAckedError):
        managed.acknowledge(WRAP - 1)


def test_what_overflows_is_dropped_and_ends_the_hope_to_resume() -> None:
    managed = management(limit=2)
    for number in range(3):
        managed.record_sent(str(number))
    assert (managed.unacked, managed.resumable, managed.acknowledged) == (("1", "2"), False, 1)
    managed.acknowledge(0)  # late, of what was dropped
    assert "".join(managed.unacked) == "12"
    managed.acknowledge(3)
    assert "".join(managed.unacked) == ""
    with pytest.raises(TooManyAckedError):
        managed.acknowledge(4)


def test_long_stanzas_overflow_sooner() -> None:
    managed = management()
    for size in (40, 41, 42):
        managed.record_sent("x" * size)
    assert [len(frame) for frame in managed.unacked] == [41, 42]
    assert not managed.resumable
    managed.acknowledge(3)
    managed.record_sent("x" * 100)
    assert len(managed.unacked) == 1
    managed.record_sent("x" * 101)
    assert (len(managed.unacked), managed.sent) == (0, 5)


class Managed(RuleBasedStateMachine):
    """The unacknowledged are always the last ones sent, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.managed = StreamManagement("s", ack_every=2, limit=4, max_size=10_000)
        self.waiting: deque[str] = deque(maxlen=4)
        self.count = 0

    @rule()
    def send(self) -> None:
        self.managed.record_sent(str(self.count))
        self.waiting.append(str(self.count))
        self.count += 1

    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(0, len(self.waiting)))
        self.managed.acknowledge(self.count - len(self.waiting) + count)
        for _ in range(count):
            self.waiting.popleft()

    @precondition(lambda self: self.managed.resumable)
    @rule(more=st.integers(1, 100))
    def acknowledge_too_many(self, more: int) -> None:
        with pytest.raises(TooManyAckedError):
            self.managed.acknowledge(self.count + more)

    @invariant()
    def same(self) -> None:
        assert self.managed.unacked == tuple(self.waiting)
        assert self.managed.sent == self.count


TestManaged = Managed.TestCase


# --- on a stream -------------------------------------------------------------------------------------------


def resume(client: Client, previd: str, h: int = 0) -> str:
    client.send(OPEN, AUTH, OPEN)
    return f'<resume xmlns="urn:xmpp:sm:3" h="{h}" previd="{previd}"/>'


def test_enable_request_and_acknowledge() -> None:
    world = World()
    client = world.bound()
    [enabled] = client.send(ENABLE)
    assert (enabled.get("resume"), enabled.get("max")) == ("true", "60")
    assert enabled.get("id")
    for number in range(4):
        assert len(client.iq("get", "meet.jitsi", PING, f"p{number}")) == 1
    fifth = client.iq("get", "meet.jitsi", PING, "p4")
    assert [local(frame) for frame in fifth] == ["iq", "r"]
    assert client.send('<a xmlns="urn:xmpp:sm:3" h="5"/>') == []
    [ack] = client.send('<r xmlns="urn:xmpp:sm:3"/>')
    assert ack.get("h") == "5"


def test_without_resumption_the_session_ends_with_the_connection() -> None:
    world = World()
    client = world.bound()
    [enabled] = client.send('<enable xmlns="urn:xmpp:sm:3"/>')
    assert dict(enabled.attrib) == {}
    client.lost()
    assert world.core.sessions == ()


@pytest.mark.parametrize("frame", [ENABLE, '<resume xmlns="urn:xmpp:sm:3" h="0" previd="x"/>'])
def test_what_is_not_expected_fails_and_ends_nothing(frame: str) -> None:
    client = World().bound(managed=True)
    [failed] = client.send(frame)
    assert (local(failed), local(failed[0])) == ("failed", "unexpected-request")
    assert not client.closed


def test_requests_before_enable_are_unexpected() -> None:
    client = World().bound()
    [failed] = client.send('<r xmlns="urn:xmpp:sm:3"/>')
    assert local(failed[0]) == "unexpected-request"


@pytest.mark.parametrize("h", ["-1", "", "x", "1"])
def test_an_acknowledgement_that_can_not_be_ends_the_stream(h: str) -> None:
    world = World()
    client = world.bound(managed=True)
    error, close = client.send(f'<a xmlns="urn:xmpp:sm:3" h="{h}"/>')
    assert (local(error[0]), local(close)) == ("undefined-condition", "close")
    assert world.core.sessions == ()


def test_a_lost_connection_is_resumed_and_nobody_sees_it() -> None:
    world = World()
    watcher = world.joined("watcher")
    client = world.bound(managed=True)
    client.join("one")
    watcher.take()
    seen = 5  # occupant, metadata, himself, subject, and the answer to a ping
    client.iq("get", "meet.jitsi", PING)
    client.lost(now=100.0)
    assert world.core.next_deadline() == 160.0
    world.take(world.core.tick(159.9))
    assert watcher.take() == []
    watcher.send(f'<message xmlns="jabber:client" to="{ROOM}" type="groupchat"><body>hi</body></message>')
    again = world.client()
    resumed, *missed, request = again.send(resume(again, client.stream, seen))
    assert (local(resumed), resumed.get("h"), resumed.get("previd")) == ("resumed", "2", client.stream)
    assert [frame.findtext("{*}body") for frame in missed] == ["hi"]
    assert local(request) == "r"
    assert world.core.next_deadline() is None
    assert again.iq("get", "meet.jitsi", PING)[0].get("to") == client.jid
    assert watcher.take() == []  # of the loss and the way back


def test_after_the_time_to_resume_the_session_is_gone() -> None:
    world = World()
    watcher = world.joined("watcher")
    client = world.bound(managed=True)
    client.join("one")
    watcher.take()
    client.lost(now=100.0)
    world.take(world.core.tick(160.0))
    [left] = watcher.take()
    assert left.get("type") == "unavailable"
    again = world.client()
    [failed] = again.send(resume(again, client.stream))
    assert (local(failed), local(failed[0])) == ("failed", "item-not-found")
    assert local(again.send(BIND)[0]) == "iq"


def test_a_half_open_connection_gives_way_to_the_new_one() -> None:
    world = World()
    client = world.bound(managed=True)
    again = world.client()
    assert local(again.send(resume(again, client.stream))[0]) == "resumed"
    assert [local(frame) for frame in client.take()] == ["close"]
    client.lost(now=5.0)
    assert world.core.sessions == (client.jid,)
    assert world.core.next_deadline() is None


def test_resuming_with_an_impossible_count_ends_that_stream_only() -> None:
    world = World()
    client = world.bound(managed=True)
    client.lost(now=1.0)
    again, third = world.client(), world.client()
    error, close = again.send(resume(again, client.stream, 7))
    assert (local(error[0]), local(close)) == ("undefined-condition", "close")
    assert local(third.send(resume(third, client.stream))[0]) == "resumed"


def test_nobody_resumes_the_session_of_another_account() -> None:
    world = World(EmbeddedConfig(accounts={"one": "1", "two": "2"}))
    one, two = world.client(), world.client()
    one.send(OPEN, plain("\0one\x001"), OPEN, BIND)
    [enabled] = one.send(ENABLE)
    one.lost()
    two.send(OPEN, plain("\0two\x002"), OPEN)
    [failed] = two.send(f'<resume xmlns="urn:xmpp:sm:3" h="0" previd="{enabled.get("id")}"/>')
    assert local(failed[0]) == "item-not-found"


def test_a_client_that_acknowledges_nothing_costs_bounded_memory_and_can_not_resume() -> None:
    world = World(EmbeddedConfig(max_unacked=3))
    client = world.bound(managed=True)
    for number in range(10):
        client.iq("get", "meet.jitsi", PING, f"p{number}")
    again = world.client()
    [failed] = again.send(resume(again, client.stream))
    assert local(failed[0]) == "item-not-found"
    client.lost()
    assert world.core.sessions == ()


def test_what_is_written_after_resumption_is_what_was_not_acknowledged() -> None:
    world = World()
    client = world.bound(managed=True)
    for number in range(3):
        client.iq("get", "meet.jitsi", PING, f"p{number}")
    client.lost()
    again = world.client()
    frame = resume(again, client.stream, 1)
    written = [output for output in world.core.feed(again.number, frame) if isinstance(output, Write)]
    assert [parse_frame(output.text).get("id") for output in written] == [None, "p1", "p2", None]
