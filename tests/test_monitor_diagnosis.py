"""The verdicts: each fault at its stage, the first one before the others, and no crash whatever was seen."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot import errors
from bot.media.measure import Percentiles
from bot.monitor.diagnosis import HINTS, STAGES, combine, diagnose, judge, measure, stage_of
from bot.monitor.model import (
    BotSeen,
    Failure,
    PassResult,
    PassSeen,
    PathSeen,
    Preflight,
    Severity,
    Stage,
    Verdict,
)
from bot.monitor.thresholds import effective

LIMITS = effective(())
JOINED = {"websocket": 0.1, "sasl": 0.1, "bind": 0.1, "focus": 0.1, "muc": 0.1}
MEDIA = {**JOINED, "offer": 0.2, "ice": 0.1, "dtls": 0.1}
NOW = 1_800_000_000.0


def delay(seconds: float) -> Percentiles:
    return Percentiles(seconds, seconds, seconds, seconds)


def bot(number: int) -> BotSeen:
    return BotSeen(
        name=f"probe-{number}",
        endpoint=f"e{number}",
        phases=MEDIA,
        joined=True,
        others=1,
        offered=True,
        connected=True,
        sent=500,
        acked=490,
        round_trip=0.02,
    )


def path(sender: int, receiver: int) -> PathSeen:
    return PathSeen(
        sender=f"probe-{sender}",
        receiver=f"probe-{receiver}",
        seconds=10.0,
        audio_packets=500,
        video_packets=700,
        pictures=300,
        decoded=300,
        expected=300,
        sounds=19,
        picture_delay=delay(0.05),
        sound_delay=delay(0.06),
        lip_sync=delay(0.01),
    )


def fine(bots: int = 2) -> PassSeen:
    numbers = range(1, bots + 1)
    return PassSeen(
        bots=tuple(bot(number) for number in numbers),
        paths=tuple(path(a, b) for a in numbers for b in numbers if a != b),
    )


def with_bots(**changes: Any) -> PassSeen:
    seen = fine()
    return replace(seen, bots=tuple(replace(item, **changes) for item in seen.bots), paths=())


def verdict(seen: PassSeen) -> Verdict:
    return judge(seen, LIMITS, NOW).verdict


def silent(item: PathSeen) -> PathSeen:
    return PathSeen(sender=item.sender, receiver=item.receiver, seconds=item.seconds, expected=item.expected)


def test_all_is_fine() -> None:
    found = judge(fine(), LIMITS, NOW)
    assert found.verdict == Verdict()
    assert found.measures == pytest.approx(
        {
            "join": 0.5,
            "connect": 0.2,
            "delay": 0.06,
            "loss": 0.0,
            "frozen": 0.0,
            "frames": 1.0,
            "lip_sync": 0.01,
            "round_trip": 0.02,
        }
    )


@pytest.mark.parametrize("stage", [Stage.DNS, Stage.CONNECT, Stage.TLS, Stage.PROXY, Stage.WEBSOCKET])
def test_before_anybody_joins(stage: Stage) -> None:
    seen = PassSeen(preflight=Preflight(failed=stage, failure=Failure("connection_failed", "it broke")))
    found = verdict(seen)
    assert (found.stage, found.severity, found.cause) == (stage, Severity.CRITICAL, "it broke")
    assert found.hint == HINTS[stage]


NOTHING: dict[str, object] = {"joined": False, "connected": False, "offered": False, "others": 0}


@pytest.mark.parametrize(
    ("changes", "stage", "code"),
    [
        ({"error": Failure("auth_failed", "x"), "phases": {"websocket": 1}}, Stage.AUTHENTICATION, "auth_failed"),
        ({"error": Failure("connection_failed", "x"), "phases": {"websocket": 1}}, Stage.AUTHENTICATION, None),
        ({"error": Failure("connect_timeout", "x"), "phases": {}}, Stage.WEBSOCKET, "connect_timeout"),
        ({"error": Failure("focus_refused", "x")}, Stage.FOCUS, "focus_refused"),
        ({"error": Failure("room_password", "x")}, Stage.ROOM, "room_password"),
        ({"error": Failure("configuration", "x")}, Stage.PROBE, "configuration"),
        ({"lobby": True}, Stage.ROOM, "lobby"),
        ({"focus_cause": "no answer"}, Stage.FOCUS, "focus_absent"),
        ({"phases": {}}, Stage.WEBSOCKET, "timeout"),
        ({"phases": {"websocket": 1}}, Stage.AUTHENTICATION, "timeout"),
        ({"phases": {"websocket": 1, "sasl": 1, "bind": 1}}, Stage.FOCUS, "timeout"),
        ({"joined": True, "focus": False}, Stage.FOCUS, "focus_absent"),
        ({"joined": True, "others": 0}, Stage.ROOM, "alone"),
        ({"joined": True, "others": 1}, Stage.BRIDGE, "no_offer"),
        ({"joined": True, "others": 1, "error": Failure("media_lost", "x")}, Stage.BRIDGE, "media_lost"),
    ],
)
def test_nobody_has_a_session(changes: dict[str, Any], stage: Stage, code: str | None) -> None:
    found = verdict(with_bots(**{"phases": JOINED, **NOTHING, **changes}))
    assert found.stage is stage
    assert code is None or found.code == code
    assert found.where == ""
    assert found.severity is (Severity.UNKNOWN if stage is Stage.PROBE else Severity.CRITICAL)


@pytest.mark.parametrize(
    ("phases", "failure", "stage"),
    [
        ({"offer": 1}, Failure("ice_failed", "no pair"), Stage.ICE),
        ({"offer": 1}, None, Stage.ICE),
        ({"offer": 1, "ice": 1}, Failure("dtls_failed", "fingerprint"), Stage.DTLS),
        ({"offer": 1, "ice": 1}, None, Stage.DTLS),
        ({"offer": 1, "ice": 1, "dtls": 1}, None, Stage.MEDIA),
    ],
)
def test_a_session_that_does_not_connect(phases: dict[str, float], failure: Failure | None, stage: Stage) -> None:
    found = verdict(with_bots(connected=False, phases=JOINED | phases, media_error=failure))
    assert found.stage is stage
    assert found.code == (failure.code if failure else "timeout")


def test_the_earliest_of_all_bots_counts_and_is_named() -> None:
    seen = fine(3)
    first, second, third = seen.bots
    ice = replace(second, connected=False, media_error=Failure("ice_failed", "no pair"))
    auth = replace(third, joined=False, connected=False, error=Failure("auth_failed", "no"))
    found = verdict(replace(seen, bots=(first, ice, auth), paths=()))
    assert (found.stage, found.where) == (Stage.AUTHENTICATION, "probe-3")


def test_one_way_names_the_sender_and_what_the_bridge_says_of_it() -> None:
    seen = fine()
    paths = tuple(silent(item) if item.sender == "probe-1" else item for item in seen.paths)
    found = verdict(replace(seen, paths=paths))
    assert (found.stage, found.code, found.where) == (Stage.MEDIA, "one_way", "probe-1 to probe-2")
    assert "does not forward" in found.cause
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"acked": 0}, "tells of no packet"),
        ({"sent": 0, "acked": 0}, "it sends nothing"),
    )
    for changes, said in cases:
        bots = (replace(seen.bots[0], **changes), seen.bots[1])
        assert said in verdict(replace(seen, bots=bots, paths=paths)).cause


def test_of_three_one_receives_nothing() -> None:
    seen = fine(3)
    paths = tuple(silent(item) if item.receiver == "probe-2" else item for item in seen.paths)
    found = verdict(replace(seen, paths=paths))
    assert (found.code, found.cause) == ("one_way", "nothing comes to probe-2")
    assert found.where == "probe-1 to probe-2, probe-3 to probe-2"


def test_nothing_from_anybody_and_what_can_not_be_decoded() -> None:
    seen = fine()
    nothing = replace(seen, paths=tuple(map(silent, seen.paths)))
    assert verdict(nothing).code == "no_media"
    packets = replace(seen, paths=tuple(replace(silent(item), video_packets=9) for item in seen.paths))
    assert verdict(packets).code == "undecodable"


def test_a_call_that_ends_early_is_not_fine() -> None:
    seen = fine()
    assert verdict(replace(seen, paths=())).code == "not_measured"
    lost = replace(seen.bots[0], error=Failure("media_lost", "gone"))
    assert verdict(replace(seen, bots=(lost, seen.bots[1]))).code == "media_lost"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"sounds": 0, "audio_packets": 0}, "no_audio"),
        ({"sounds": 0}, "audio_undecodable"),
        ({"pictures": 0, "video_packets": 0}, "no_video"),
        ({"pictures": 0}, "video_undecodable"),
    ],
)
def test_one_medium_is_missing(changes: dict[str, Any], code: str) -> None:
    seen = fine()
    one = replace(seen, paths=(replace(seen.paths[0], **changes), seen.paths[1]))
    found = verdict(one)
    assert (found.stage, found.code, found.where) == (Stage.MEDIA, code, "probe-1 to probe-2")
    everywhere = replace(seen, paths=tuple(replace(item, **changes) for item in seen.paths))
    assert verdict(everywhere).where == ""


@pytest.mark.parametrize("changes", [{"lag": 2.0}, {"bots": (replace(bot(1), decoded=90, dropped=30), bot(2))}])
def test_a_machine_that_is_too_busy_blames_nobody(changes: dict[str, Any]) -> None:
    busy = replace(fine(), **changes)
    assert verdict(busy).ok
    slow = tuple(replace(item, frozen=5.0) for item in busy.paths)
    for paths in (slow, tuple(map(silent, busy.paths))):
        found = verdict(replace(busy, paths=paths))
        assert (found.stage, found.code, found.severity) == (Stage.PROBE, "overloaded", Severity.UNKNOWN)


def test_a_lost_channel_is_a_warning() -> None:
    seen = fine()
    bots = tuple(replace(item, channel_error="403") for item in seen.bots)
    found = verdict(replace(seen, bots=bots))
    assert (found.stage, found.severity, found.cause) == (
        Stage.CHANNEL,
        Severity.WARNING,
        "no bridge channel: 403",
    )


@pytest.mark.parametrize(
    ("changes", "code", "severity"),
    [
        ({"video_lost": 40}, "loss", Severity.WARNING),
        ({"audio_lost": 500}, "loss", Severity.CRITICAL),
        ({"picture_delay": delay(0.6)}, "delay", Severity.WARNING),
        ({"sound_delay": delay(1.2)}, "delay", Severity.CRITICAL),
        ({"frozen": 1.0}, "frozen", Severity.WARNING),
        ({"frozen": 3.0}, "frozen", Severity.CRITICAL),
        ({"pictures": 200}, "frames", Severity.WARNING),
        ({"lip_sync": delay(-0.3)}, "lip_sync", Severity.CRITICAL),
    ],
)
def test_quality(changes: dict[str, Any], code: str, severity: Severity) -> None:
    seen = fine()
    found = verdict(replace(seen, paths=(replace(seen.paths[0], **changes), seen.paths[1])))
    assert (found.stage, found.code, found.severity) == (Stage.QUALITY, code, severity)


def test_a_certificate_that_ends_soon() -> None:
    seen = replace(fine(), preflight=Preflight(certificate=NOW + 5 * 86_400))
    assert verdict(seen).code == "certificate"
    assert verdict(seen).severity is Severity.WARNING


def passed(name: str, found: Verdict) -> PassResult:
    return PassResult(seen=PassSeen(name=name), verdict=found, measures={})


ICE = Verdict(stage=Stage.ICE, severity=Severity.CRITICAL, code="ice_failed", cause="no pair")
BRIDGE = Verdict(stage=Stage.BRIDGE, severity=Severity.CRITICAL, code="no_offer", cause="none")
NO_TURN = Verdict(stage=Stage.TURN, severity=Severity.CRITICAL, code="no_turn_server", cause="none named")
SLOW = Verdict(stage=Stage.QUALITY, severity=Severity.WARNING, code="delay", cause="slow")


@pytest.mark.parametrize(
    ("direct", "relay", "stage", "code", "severity"),
    [
        (Verdict(), Verdict(), Stage.NONE, "fine", Severity.OK),
        (ICE, Verdict(), Stage.ICE, "udp_blocked", Severity.WARNING),
        (ICE, SLOW, Stage.ICE, "udp_blocked", Severity.WARNING),
        (ICE, ICE, Stage.ICE, "udp_and_turn_fail", Severity.CRITICAL),
        (ICE, NO_TURN, Stage.ICE, "ice_failed", Severity.CRITICAL),
        (Verdict(), ICE, Stage.TURN, "ice_failed", Severity.WARNING),
        (Verdict(), NO_TURN, Stage.TURN, "no_turn_server", Severity.WARNING),
        (BRIDGE, BRIDGE, Stage.BRIDGE, "no_offer", Severity.CRITICAL),
        (SLOW, Verdict(), Stage.QUALITY, "delay", Severity.WARNING),
    ],
)
def test_with_a_relay(direct: Verdict, relay: Verdict, stage: Stage, code: str, severity: Severity) -> None:
    found = combine([passed("direct", direct), passed("relay", relay)], relay_wanted=True)
    assert (found.stage, found.code, found.severity) == (stage, code, severity)


def test_a_turn_server_that_nobody_asked_for_is_not_missed() -> None:
    assert combine([passed("direct", Verdict()), passed("relay", NO_TURN)]).ok


def test_a_region_names_itself() -> None:
    found = combine([passed("direct", Verdict()), passed("region:eu", BRIDGE), passed("region:us", Verdict())])
    assert (found.stage, found.cause) == (Stage.BRIDGE, "region:eu: none")


def test_without_a_pass_nothing_is_known() -> None:
    assert combine([]).severity is Severity.UNKNOWN
    assert verdict(PassSeen()).severity is Severity.UNKNOWN


def test_every_stage_has_a_hint_and_every_error_a_stage() -> None:
    assert set(HINTS) == set(Stage) - {Stage.NONE}
    codes = {
        item.code for item in vars(errors).values() if isinstance(item, type) and issubclass(item, errors.BotError)
    }
    assert set(STAGES) - codes == {"focus_unavailable"}  # an error of bot.xmpp.focus
    by_phase = {"connection_failed", "connect_timeout", "protocol_error", "resume_refused", "media_failed"}
    by_phase |= {"media_lost", "bridge_channel_failed", "bridge_message_refused", "action_refused"}
    assert codes - set(STAGES) - by_phase == {"moved", "promoted"}  # never told as a failure


phases = st.dictionaries(st.sampled_from([*MEDIA, "channel", "first_packet_in"]), st.floats(0, 60))
failures = st.none() | st.builds(Failure, st.sampled_from([*STAGES, "media_lost", "?"]), st.text(max_size=5))
bots = st.builds(
    BotSeen,
    name=st.sampled_from(["probe-1", "probe-2"]),
    phases=phases,
    joined=st.booleans(),
    focus=st.booleans(),
    focus_cause=st.sampled_from(["", "away"]),
    lobby=st.booleans(),
    others=st.integers(0, 3),
    offered=st.booleans(),
    connected=st.booleans(),
    error=failures,
    media_error=failures,
    channel_error=st.none() | st.just("403"),
    sent=st.integers(0, 9),
    acked=st.integers(0, 9),
    round_trip=st.none() | st.floats(0, 9),
)
percentiles = st.none() | st.floats(-1, 9).map(delay)
paths = st.builds(
    PathSeen,
    sender=st.sampled_from(["probe-1", "probe-2"]),
    receiver=st.sampled_from(["probe-1", "probe-2"]),
    seconds=st.floats(0, 60),
    audio_packets=st.integers(0, 9),
    video_packets=st.integers(0, 9),
    audio_lost=st.integers(0, 9),
    video_lost=st.integers(0, 9),
    pictures=st.integers(0, 9),
    expected=st.integers(0, 9),
    sounds=st.integers(0, 9),
    frozen=st.floats(0, 60),
    picture_delay=percentiles,
    sound_delay=percentiles,
    lip_sync=percentiles,
)
passes = st.builds(
    PassSeen,
    name=st.sampled_from(["direct", "relay", "region:eu"]),
    preflight=st.builds(
        Preflight,
        failed=st.none() | st.sampled_from([Stage.DNS, Stage.TLS, Stage.PROBE]),
        failure=failures,
        certificate=st.none() | st.floats(0, 2e9),
    ),
    bots=st.lists(bots, max_size=3).map(tuple),
    paths=st.lists(paths, max_size=4).map(tuple),
)


@given(passes)
def test_whatever_was_seen_there_is_one_verdict_that_fits(seen: PassSeen) -> None:
    measures = measure(seen, NOW)
    found = diagnose(seen, LIMITS, measures)
    assert found.ok == (found.stage is Stage.NONE)
    assert found.ok or (found.cause is not None and found.hint)
    assert "\n" not in found.text or any("\n" in f.cause for b in seen.bots for f in (b.error, b.media_error) if f)
    if found.ok:  # then everybody is in the call, and each way has sound and pictures
        assert seen.bots
        assert all(item.connected and item.error is None and item.media_error is None for item in seen.bots)
        assert len(seen.paths) >= len(seen.bots) * (len(seen.bots) - 1)
        assert all(item.sounds and item.pictures for item in seen.paths)
    assert all(0 <= measures[name] <= 1 for name in ("loss", "frozen", "frames") if name in measures)


@given(st.lists(passes.map(lambda seen: judge(seen, LIMITS, NOW)), min_size=1, max_size=4), st.booleans())
def test_all_together_is_never_better_than_what_most_users_get(found: list[PassResult], wanted: bool) -> None:
    first = found[0].verdict
    told = combine(found, relay_wanted=wanted)
    if first.stage is not Stage.ICE:
        assert told.severity.rank >= first.severity.rank
    assert not told.ok or first.ok or told.severity is Severity.OK


@given(phases, st.sampled_from(["connection_failed", "protocol_error"]))
def test_more_phases_done_is_never_an_earlier_stage(done: dict[str, float], code: str) -> None:
    failure = Failure(code, "x")
    more = {**done, "dtls": 1.0}
    assert stage_of(failure, more).number >= stage_of(failure, done).number
