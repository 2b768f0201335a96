"""The session machine: what the focus may send when, what we may send when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.jingle.answer import UnsupportedOfferError
from bot.jingle.model import Action, Content, Jingle, MediaSources, Reason, SourceMap
from bot.jingle.session import (
    IllegalTransitionError,
    JingleSession,
    OfferReceived,
    Output,
    ReplyError,
    ReplyResult,
    SessionState,
    SessionTerminated,
    SourcesAdded,
    SourcesRemoved,
    TransportInfo,
    TransportReplaced,
    is_focus,
    refuse_p2p,
)
from bot.jingle.sources import Problem, ProblemKind
from tests.jingle_support import audio_video, offer, own_transport

ME = "5ace3d7e-0000@meet.jitsi/abc"
OWN = audio_video(11, 12, 13)
ALICE = audio_video(21, 22, 23, owner="alice")
OFFER = offer()


def from_focus(action: str, **fields: object) -> Jingle:
    return replace(Jingle(action, OFFER.sid), **fields)  # type: ignore[arg-type]


def pending() -> JingleSession:
    session = JingleSession(responder=ME)
    session.feed(OFFER, 1.0)
    return session


def active() -> JingleSession:
    session = pending()
    session.accept(own_transport(), OWN)
    return session


def ended() -> JingleSession:
    session = active()
    session.terminate()
    return session


def only_error(outputs: list[Output]) -> ReplyError:
    [error] = outputs
    assert isinstance(error, ReplyError)
    return error


# --- offers ------------------------------------------------------------------------------------------------


def test_an_offer_is_reported_and_its_sources_are_known() -> None:
    session = JingleSession(responder=ME)
    assert repr(session) == "JingleSession(idle, sid=None, remote=SourceTable(sources=0, owners=0, groups=0))"
    assert session.feed(OFFER, 12.5) == [ReplyResult(), OfferReceived(OFFER)]
    assert (session.state, session.sid) == (SessionState.PENDING, OFFER.sid)
    assert (session.offered_at, session.heard_at) == (12.5, 12.5)
    assert session.remote.owners == ("jvb",)


def test_accept_answers_the_offer() -> None:
    session = pending()
    answer = session.accept(own_transport(), OWN, {"video_codecs": ("h264",), "data": False})
    assert (answer.action, answer.sid, answer.initiator, answer.responder) == (
        "session-accept",
        OFFER.sid,
        OFFER.initiator,
        ME,
    )
    assert [item.name for item in answer.contents] == ["audio", "video"]
    assert answer.contents[1].payload_types[0].name == "H264"
    assert (session.state, session.own) == (SessionState.ACTIVE, OWN)


def test_an_offer_that_does_not_suit_stays_pending_for_a_terminate() -> None:
    session = pending()
    with pytest.raises(UnsupportedOfferError):
        session.accept(own_transport(), OWN, {"audio_codecs": ("g722",)})
    assert session.state is SessionState.PENDING
    stanza = session.terminate("unsupported-applications", "no codec in common")
    assert stanza.reason == Reason("unsupported-applications", "no codec in common")


@pytest.mark.parametrize("make", [pending, active])
def test_another_offer_replaces_the_session(make: Callable[[], JingleSession]) -> None:
    session = make()
    session.feed(from_focus("source-add", sources=ALICE), 2.0)
    other = replace(OFFER, sid="other")
    assert session.feed(other, 3.0) == [
        ReplyResult(),
        SessionTerminated(OFFER.sid, replaced=True),
        OfferReceived(other),
    ]
    assert (session.state, session.sid, session.offered_at) == (SessionState.PENDING, "other", 3.0)
    assert session.remote.owners == ("jvb",)
    assert not session.own


def test_a_session_can_begin_anew_after_its_end() -> None:
    session = ended()
    other = replace(OFFER, sid="other")
    assert session.feed(other, 3.0) == [ReplyResult(), OfferReceived(other)]
    session.accept(own_transport(), OWN)
    assert session.state is SessionState.ACTIVE


@pytest.mark.parametrize("make", [pending, active, ended])
def test_the_same_offer_twice_is_out_of_order(make: Callable[[], JingleSession]) -> None:
    session = make()
    before = session.state
    error = only_error(session.feed(OFFER, 2.0))
    assert (error.condition, error.application) == ("unexpected-request", "out-of-order")
    assert session.state is before


@pytest.mark.parametrize(
    "contents", [(), (Content("data", "application"),), (Content("audio", "audio"),)], ids=["none", "data", "bare"]
)
def test_unusable_offers_are_refused_and_leave_the_session_alone(contents: tuple[Content, ...]) -> None:
    session = active()
    error = only_error(session.feed(replace(OFFER, sid="other", contents=contents), 2.0))
    assert error.condition == "bad-request"
    assert "session-initiate lacks" in error.text
    assert (session.state, session.sid) == (SessionState.ACTIVE, OFFER.sid)


# --- sources, transport, info, end -------------------------------------------------------------------------


@pytest.mark.parametrize("make", [pending, active])
def test_sources_come_and_go(make: Callable[[], JingleSession]) -> None:
    session = make()
    assert session.feed(from_focus("source-add", sources=ALICE), 2.0) == [ReplyResult(), SourcesAdded(ALICE)]
    assert len(session.remote.by_owner("alice")) == 3
    [_, again] = session.feed(from_focus("source-add", sources=SourceMap(audio=ALICE.audio)), 2.1)
    assert again == SourcesAdded(SourceMap(), (Problem(ProblemKind.DUPLICATE, 21),))
    assert session.feed(from_focus("source-remove", sources=ALICE), 2.2) == [ReplyResult(), SourcesRemoved(ALICE)]
    assert session.remote.owners == ("jvb",)
    assert session.heard_at == 2.2


def test_remote_sources_are_bounded() -> None:
    session = JingleSession(responder=ME, max_sources=2)
    session.feed(OFFER, 1.0)
    [_, added] = session.feed(from_focus("source-add", sources=ALICE), 2.0)
    assert isinstance(added, SourcesAdded)
    assert {problem.kind for problem in added.problems} == {ProblemKind.LIMIT}
    assert len(session.remote) == 2


def test_transport_replace_and_accept() -> None:
    session = active()
    session.feed(from_focus("source-add", sources=ALICE), 2.0)
    moved = replace(OFFER, action="transport-replace", initiator="somebody", bridge_session_id="b2", sources=ALICE)
    [reply, replaced] = session.feed(moved, 3.0)
    assert reply == ReplyResult()
    assert isinstance(replaced, TransportReplaced)
    assert (replaced.offer.initiator, replaced.offer.bridge_session_id) == (OFFER.initiator, "b2")
    assert session.remote.snapshot() == ALICE
    answer = session.transport_accept(own_transport())
    assert (answer.action, answer.sources, answer.initiator) == ("transport-accept", SourceMap(), OFFER.initiator)
    assert [item.name for item in answer.contents] == ["audio", "video", "data"]
    assert session.terminate(restart=True).bridge_session_id == "b2"


def test_transport_replace_must_be_usable_and_in_time() -> None:
    moved = replace(OFFER, action="transport-replace")
    assert only_error(pending().feed(moved, 2.0)).condition == "unexpected-request"
    session = active()
    assert only_error(session.feed(replace(moved, contents=()), 2.0)).condition == "bad-request"
    with pytest.raises(IllegalTransitionError, match="no transport was offered"):
        session.transport_accept(own_transport())


def test_transport_info_is_passed_on() -> None:
    info = from_focus("transport-info", contents=OFFER.contents[:1])
    assert active().feed(info, 2.0) == [ReplyResult(), TransportInfo(info)]


def test_session_info() -> None:
    session = active()
    assert session.feed(from_focus("session-info"), 2.0) == [ReplyResult()]
    error = only_error(session.feed(from_focus("session-info", info=("{urn:x}hold",)), 2.0))
    assert (error.condition, error.application) == ("feature-not-implemented", "unsupported-info")


@pytest.mark.parametrize("restart", [None, True])
@pytest.mark.parametrize("make", [pending, active])
def test_the_focus_ends_the_session(make: Callable[[], JingleSession], restart: bool | None) -> None:
    session = make()
    reason = Reason("expired", "alone")
    outputs = session.feed(from_focus("session-terminate", reason=reason, restart=restart), 2.0)
    assert outputs == [ReplyResult(), SessionTerminated(OFFER.sid, reason, restart=bool(restart))]
    assert session.state is SessionState.ENDED
    assert len(session.remote) == 0


# --- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", [action for action in Action if action is not Action.SESSION_INITIATE])
@pytest.mark.parametrize("make", [lambda: JingleSession(responder=ME), ended])
def test_without_a_session_there_is_none(make: Callable[[], JingleSession], action: Action) -> None:
    session = make()
    before = session.state
    error = only_error(session.feed(from_focus(action), 2.0))
    assert (error.condition, error.application, error.type) == ("item-not-found", "unknown-session", "cancel")
    assert session.state is before


def test_a_wrong_sid_is_an_unknown_session() -> None:
    session = active()
    error = only_error(session.feed(replace(from_focus("session-terminate"), sid="wrong"), 2.0))
    assert error == ReplyError("item-not-found", "No session 'wrong'", "unknown-session")
    assert session.state is SessionState.ACTIVE


@pytest.mark.parametrize("action", ["session-accept", "transport-accept", "transport-reject"])
def test_answers_from_the_focus_are_out_of_order(action: str) -> None:
    assert only_error(active().feed(from_focus(action), 2.0)).application == "out-of-order"


def test_an_unknown_action_is_not_implemented() -> None:
    error = only_error(active().feed(from_focus("content-modify"), 2.0))
    assert error == ReplyError("feature-not-implemented", "Unknown action 'content-modify'")


# --- what we send ------------------------------------------------------------------------------------------


def test_own_sources_come_and_go() -> None:
    session = active()
    more = audio_video(31, 32, 33)
    added = session.source_add(more)
    assert added == Jingle("source-add", OFFER.sid, OFFER.initiator, ME, sources=more)
    assert session.own == OWN.merged(more)
    removed = session.source_remove(OWN)
    assert removed == Jingle("source-remove", OFFER.sid, OFFER.initiator, ME, sources=OWN)
    assert session.own == more


def test_own_groups_go_with_their_sources() -> None:
    session = active()
    rtx = OWN.video.sources[1]
    session.source_remove(SourceMap(video=MediaSources((rtx,))))
    assert session.own.video == MediaSources((OWN.video.sources[0],))


def test_terminate_asks_for_a_restart() -> None:
    session = active()
    stanza = session.terminate("connectivity-error", "ICE failed", restart=True)
    assert stanza.reason == Reason("connectivity-error", "ICE failed")
    assert (stanza.bridge_session_id, stanza.restart) == (OFFER.bridge_session_id, True)
    assert session.state is SessionState.ENDED
    assert not session.own


def test_end_without_a_stanza() -> None:
    session = active()
    session.end()
    assert session.state is SessionState.ENDED
    untouched = JingleSession(responder=ME)
    untouched.end()
    assert untouched.state is SessionState.IDLE


@pytest.mark.parametrize(
    ("make", "call", "message"),
    [
        (active, lambda session: session.accept(own_transport(), OWN), "can't accept: the session is active"),
        (ended, lambda session: session.accept(own_transport(), OWN), "can't accept: the session is ended"),
        (pending, lambda session: session.source_add(OWN), "can't add sources: the session is pending"),
        (pending, lambda session: session.source_remove(OWN), "can't remove sources: the session is pending"),
        (pending, lambda session: session.transport_accept(own_transport()), "can't accept a transport"),
        (ended, lambda session: session.terminate(), "can't terminate: the session is ended"),
    ],
)
def test_illegal_transitions_raise(
    make: Callable[[], JingleSession], call: Callable[[JingleSession], object], message: str
) -> None:
    with pytest.raises(IllegalTransitionError, match=message):
        call(make())


# --- direct sessions ---------------------------------------------------------------------------------------


def test_direct_sessions_are_refused() -> None:
    assert is_focus("room@muc.meet.jitsi/focus")
    assert not is_focus("room@muc.meet.jitsi/04280b68")
    direct = replace(OFFER, sid="p2p", initiator="room@muc.meet.jitsi/04280b68")
    refusal = refuse_p2p(direct, responder=ME)
    assert (refusal.action, refusal.sid, refusal.initiator, refusal.responder) == (
        "session-terminate",
        "p2p",
        "room@muc.meet.jitsi/04280b68",
        ME,
    )
    assert refusal.reason is not None
    assert refusal.reason.condition == "decline"


# --- any order ---------------------------------------------------------------------------------------------


stanzas_of_the_focus = st.builds(
    Jingle,
    action=st.sampled_from([*Action, "content-modify"]),
    sid=st.sampled_from([OFFER.sid, "other"]),
    contents=st.sampled_from([OFFER.contents, OFFER.contents[:1], ()]),
    sources=st.sampled_from([SourceMap(), ALICE, OWN, SourceMap(audio=ALICE.audio)]),
    restart=st.sampled_from([None, True]),
    info=st.sampled_from([(), ("{urn:x}hold",)]),
)


@settings(deadline=None)
@given(st.lists(stanzas_of_the_focus, max_size=12), st.sampled_from(["fresh", "pending", "active"]))
def test_whatever_comes_gets_exactly_one_reply(stanzas: list[Jingle], start: str) -> None:
    session = {"fresh": lambda: JingleSession(responder=ME), "pending": pending, "active": active}[start]()
    for now, stanza in enumerate(stanzas):
        outputs = session.feed(stanza, float(now))
        replies = [isinstance(output, ReplyResult | ReplyError) for output in outputs]
        assert replies == [True, *[False] * (len(outputs) - 1)]
        assert len(outputs) == 1 or isinstance(outputs[0], ReplyResult)
        assert session.heard_at == float(now)
        assert not len(session.remote) or session.state in {SessionState.PENDING, SessionState.ACTIVE}
