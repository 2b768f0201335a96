"""From what the bots saw to a verdict: the first stage that is broken, its cause, and what to look at. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from bot.monitor.model import (
    BotSeen,
    Failure,
    Measures,
    PassResult,
    PassSeen,
    PathSeen,
    Severity,
    Stage,
    Verdict,
)
from bot.monitor.thresholds import Threshold, breaches

#: What to look at, by stage.
HINTS: Mapping[Stage, str] = {
    Stage.DNS: "the name in the URL, and the resolver of this machine",
    Stage.CONNECT: "is the web server up, and its port open in the firewall",
    Stage.TLS: "the certificate (name, end, chain); a private CA is named by JITSI_CA_FILE; plain HTTP needs ws://",
    Stage.PROXY: "the web server's /xmpp-websocket is to be proxied to Prosody's port 5280, and Prosody to be up",
    Stage.WEBSOCKET: "the proxy has to pass Upgrade and Connection on, and Prosody to have mod_websocket",
    Stage.AUTHENTICATION: "account, token and domain of the settings against Prosody's",
    Stage.FOCUS: "is Jicofo up and logged in, and are its domain and JID those of the settings",
    Stage.ROOM: "Prosody's MUC component and its restrictions on rooms",
    Stage.BRIDGE: "is a Videobridge up and in Jicofo's brewery room",
    Stage.ICE: "is UDP open to the bridge's port (10000), and does the bridge offer its public address",
    Stage.DTLS: "the packets reach the bridge, but the handshake does not end: MTU, a middlebox, the bridge's log",
    Stage.MEDIA: "the bridge's log, and firewalls that let only one way through",
    Stage.CHANNEL: "is /colibri-ws proxied to the bridge, and its domain the public one",
    Stage.TURN: "the TURN server's credentials, ports, and its way to the bridge",
    Stage.QUALITY: "load of bridge and network; what else runs on this machine",
    Stage.PROBE: "the settings of the probe, and what else runs on its machine",
}
#: Which stage an error belongs to, whatever was done before it.
STAGES: Mapping[str, Stage] = {
    "dns_failed": Stage.DNS,
    "connection_refused": Stage.CONNECT,
    "tls_failed": Stage.TLS,
    "server_unavailable": Stage.PROXY,
    "rate_limited": Stage.PROXY,
    "wrong_address": Stage.WEBSOCKET,
    "auth_failed": Stage.AUTHENTICATION,
    "auth_expired": Stage.AUTHENTICATION,
    "focus_refused": Stage.FOCUS,
    "focus_unavailable": Stage.FOCUS,
    "not_authorized": Stage.FOCUS,
    "visitor_redirect": Stage.FOCUS,
    "room_error": Stage.ROOM,
    "room_restricted": Stage.ROOM,
    "room_access": Stage.ROOM,
    "room_password": Stage.ROOM,
    "room_full": Stage.ROOM,
    "banned": Stage.ROOM,
    "members_only": Stage.ROOM,
    "nickname_conflict": Stage.ROOM,
    "kicked": Stage.ROOM,
    "room_destroyed": Stage.ROOM,
    "lobby_denied": Stage.ROOM,
    "lobby_timeout": Stage.ROOM,
    "join_timeout": Stage.ROOM,
    "media_unsupported": Stage.MEDIA,
    "own_source": Stage.MEDIA,
    "ice_failed": Stage.ICE,
    "no_turn_server": Stage.TURN,
    "dtls_failed": Stage.DTLS,
    "configuration": Stage.PROBE,
    "internal": Stage.PROBE,
}
#: What can't be told by a machine that is too busy to look.
_ASK_MUCH = frozenset({Stage.MEDIA, Stage.QUALITY})
#: The stage that is broken where the phase before it was the last one done.
_AFTER: tuple[tuple[str, Stage], ...] = (
    ("dtls", Stage.MEDIA),
    ("ice", Stage.DTLS),
    ("offer", Stage.ICE),
    ("muc", Stage.BRIDGE),
    ("focus", Stage.ROOM),
    ("bind", Stage.FOCUS),
    ("websocket", Stage.AUTHENTICATION),
)


def diagnose(seen: PassSeen, thresholds: Sequence[Threshold], measures: Measures) -> Verdict:
    """The verdict on one pass: what broke first counts, since the rest follows from it."""
    if seen.preflight.failed is not None:
        failure = seen.preflight.failure or Failure("connection_failed", "no answer")
        return _broken(seen.preflight.failed, failure.code, failure.cause)
    if not seen.bots:
        return _broken(Stage.PROBE, "internal", "no bot was started", severity=Severity.UNKNOWN)
    if (verdict := _joining(seen)) is not None:
        return verdict
    found = _media(seen) or _channel(seen) or _quality(thresholds, measures)
    if seen.overloaded and found.stage in _ASK_MUCH:
        cause = f"this machine can't keep up, so that nothing is said of {found.stage.value}: {seen.overloaded}"
        return _broken(Stage.PROBE, "overloaded", cause)
    return found


def _broken(
    stage: Stage, code: str, cause: str, where: str = "", *, severity: Severity = Severity.CRITICAL
) -> Verdict:
    if stage is Stage.PROBE:
        severity = Severity.UNKNOWN
    return Verdict(stage=stage, severity=severity, code=code, cause=cause, hint=HINTS[stage], where=where)


def stage_of(failure: Failure, phases: Iterable[str]) -> Stage:
    """Where ``failure`` belongs to: by its code, or by how far the bot had come."""
    return STAGES.get(failure.code) or after(phases)


def after(phases: Iterable[str]) -> Stage:
    """The stage that follows the last of ``phases``."""
    done = set(phases)
    return next((stage for phase, stage in _AFTER if phase in done), Stage.WEBSOCKET)


# --- joining -----------------------------------------------------------------------------------------------


def _joining(seen: PassSeen) -> Verdict | None:
    """The earliest stage at which a bot stands, of those that have no media session."""
    found = [(verdict, bot) for bot in seen.bots if (verdict := _bot(bot, seen)) is not None]
    if not found:
        return None
    first = min(verdict.stage.number for verdict, _ in found)
    worst = next(verdict for verdict, _ in found if verdict.stage.number == first)
    names = [bot.name for verdict, bot in found if verdict.stage is worst.stage]
    where = "" if len(names) == len(seen.bots) else ", ".join(names)
    return Verdict(
        stage=worst.stage,
        severity=worst.severity,
        code=worst.code,
        cause=worst.cause,
        hint=worst.hint,
        where=where,
    )


def _bot(bot: BotSeen, seen: PassSeen) -> Verdict | None:
    failure = bot.error if bot.error is not None and bot.error.code != "media_lost" else None
    if failure is not None:
        return _broken(stage_of(failure, bot.phases), failure.code, failure.cause)
    if bot.connected and bot.media_error is None and bot.error is None:
        return None
    if not bot.joined:
        return _not_joined(bot, seen.timeout)
    if not bot.focus:
        return _broken(Stage.FOCUS, "focus_absent", bot.focus_cause or "the focus is not in the room")
    if bot.media_error is not None or bot.error is not None:
        failure = bot.media_error or bot.error
        assert failure is not None
        return _broken(STAGES.get(failure.code) or after(bot.phases), failure.code, failure.cause)
    return _no_session(bot, seen)


def _not_joined(bot: BotSeen, timeout: float) -> Verdict:
    if bot.lobby:
        return _broken(Stage.ROOM, "lobby", "the room has a lobby, and nobody let the bots in")
    if bot.focus_cause:
        return _broken(Stage.FOCUS, "focus_absent", bot.focus_cause)
    stage = after(bot.phases)
    return _broken(stage, "timeout", f"nothing more came within {timeout:g} s")


def _no_session(bot: BotSeen, seen: PassSeen) -> Verdict:
    timeout = seen.timeout
    if bot.offered:
        stage = after({"offer", *bot.phases})
        return _broken(stage, "timeout", f"{stage.value} did not end within {timeout:g} s")
    if not bot.others:
        return _broken(Stage.ROOM, "alone", "the bots do not see each other in the room")
    cause = f"the focus offered no media session within {timeout:g} s: it has no bridge that works"
    return _broken(Stage.BRIDGE, "no_offer", cause)


# --- media -------------------------------------------------------------------------------------------------

#: Whether something of a medium came by a path at all.
_CAME: Mapping[str, Callable[[PathSeen], bool]] = {
    "audio": lambda path: path.sounds > 0,
    "video": lambda path: path.pictures > 0,
}
_PACKETS: Mapping[str, Callable[[PathSeen], int]] = {
    "audio": lambda path: path.audio_packets,
    "video": lambda path: path.video_packets,
}


def _media(seen: PassSeen) -> Verdict | None:
    """Who sees and hears whom."""
    if len(seen.paths) < len(seen.bots) * (len(seen.bots) - 1):
        return _broken(Stage.MEDIA, "not_measured", "the call ended before media was measured")
    missing = {media: [path for path in seen.paths if not came(path)] for media, came in _CAME.items()}
    dead = [path for path in seen.paths if path in missing["audio"] and path in missing["video"]]
    if dead:
        return _dead(dead, seen)
    for media, paths in missing.items():
        if paths:
            return _one_medium(media, paths, seen)
    return None


def _dead(dead: list[PathSeen], seen: PassSeen) -> Verdict:
    where = ", ".join(path.where for path in dead)
    if any(path.audio_packets or path.video_packets for path in dead):
        return _broken(Stage.MEDIA, "undecodable", "packets come, but nothing can be decoded of them", where)
    if len(dead) == len(seen.paths):
        return _broken(Stage.MEDIA, "no_media", "connected, but nobody gets anything from anybody")
    for name, ends, said in (
        ("sender", {path.sender for path in dead}, "nothing of {} comes to anybody: {}"),
        ("receiver", {path.receiver for path in dead}, "nothing comes to {}"),
    ):
        of_end = [path for path in seen.paths if getattr(path, name) in ends]
        if len(ends) == 1 and len(of_end) == len(dead) and (len(of_end) > 1 or name == "sender"):
            end = next(iter(ends))
            return _broken(Stage.MEDIA, "one_way", said.format(end, _sending(end, seen)), where)
    return _broken(Stage.MEDIA, "one_way", "media goes only one way", where)


def _sending(name: str, seen: PassSeen) -> str:
    """What is known of a bot whose media comes to nobody."""
    bot = next((item for item in seen.bots if item.name == name), None)
    if bot is None or not bot.sent:
        return "it sends nothing"
    if not bot.acked:
        return "it sends, and the bridge tells of no packet of it"
    return "the bridge has its packets, and does not forward them"


def _one_medium(media: str, paths: list[PathSeen], seen: PassSeen) -> Verdict:
    where = ", ".join(path.where for path in paths) if len(paths) < len(seen.paths) else ""
    if any(_PACKETS[media](path) for path in paths):
        cause = f"{media} packets come, but nothing can be decoded of them"
        return _broken(Stage.MEDIA, f"{media}_undecodable", cause, where)
    return _broken(Stage.MEDIA, f"no_{media}", f"no {media} comes", where)


def _channel(seen: PassSeen) -> Verdict | None:
    lost = [bot for bot in seen.bots if bot.channel_error is not None]
    if not lost:
        return None
    where = ", ".join(bot.name for bot in lost) if len(lost) < len(seen.bots) else ""
    cause = f"no bridge channel: {lost[0].channel_error}"
    return _broken(Stage.CHANNEL, "bridge_channel_failed", cause, where, severity=Severity.WARNING)


def _quality(thresholds: Sequence[Threshold], measures: Measures) -> Verdict:
    missed = breaches(thresholds, measures)
    if not missed:
        return Verdict()
    cause = "; ".join(item.text for item in missed)
    code = missed[0].threshold.measure.name
    return _broken(Stage.QUALITY, code, cause, severity=missed[0].severity)


# --- measures and all passes -------------------------------------------------------------------------------

_JOIN = ("websocket", "sasl", "bind", "focus", "muc")
_CONNECT = ("ice", "dtls")


def measure(seen: PassSeen, now: float) -> dict[str, float]:
    """What was measured of a pass, the worst of all bots and paths; ``now`` is Unix time, for the certificate."""
    values: dict[str, list[float]] = {}

    def note(name: str, *found: float | None) -> None:
        values.setdefault(name, []).extend(item for item in found if item is not None)

    for bot in seen.bots:
        if bot.joined:
            note("join", sum(bot.phases.get(phase, 0.0) for phase in _JOIN))
        if bot.connected:
            note("connect", sum(bot.phases.get(phase, 0.0) for phase in _CONNECT))
        note("round_trip", bot.round_trip)
    for path in seen.paths:
        note("delay", *(item.p95 for item in (path.picture_delay, path.sound_delay) if item is not None))
        note("loss", path.loss("audio"), path.loss("video"))
        if path.pictures:
            note("frozen", min(1.0, path.frozen / path.seconds) if path.seconds > 0 else None)
        note("lip_sync", abs(path.lip_sync.p50) if path.lip_sync is not None else None)
    found = {name: max(items) for name, items in values.items() if items}
    if shares := [min(1.0, path.pictures / path.expected) for path in seen.paths if path.expected > 0]:
        found["frames"] = min(shares)
    if seen.preflight.certificate is not None:
        found["certificate"] = (seen.preflight.certificate - now) / 86_400
    return found


def judge(seen: PassSeen, thresholds: Sequence[Threshold], now: float) -> PassResult:
    """Measure a pass and diagnose it."""
    measures = measure(seen, now)
    return PassResult(seen=seen, measures=measures, verdict=diagnose(seen, thresholds, measures))


def combine(passes: Sequence[PassResult], *, relay_wanted: bool = False) -> Verdict:
    """The verdict on all passes. The first one is what most users get: its word counts, with what others add.

    ``relay_wanted``: a deployment without a TURN server is a fault.
    """
    if not passes:
        return _broken(Stage.PROBE, "internal", "no pass was made", severity=Severity.UNKNOWN)
    direct, relay = passes[0], next((item for item in passes if item.name == "relay"), None)
    found = [direct.verdict]
    if relay is not None and direct is not relay:
        found.append(_with_relay(direct.verdict, relay.verdict, wanted=relay_wanted))
        if direct.verdict.stage is Stage.ICE and found[-1].code in ("udp_blocked", "udp_and_turn_fail"):
            found[0] = found.pop()
    found += [_of_pass(item) for item in passes[1:] if item is not relay]
    return max(found, key=lambda item: item.severity.rank)  # of equals the first


def _with_relay(direct: Verdict, relay: Verdict, *, wanted: bool) -> Verdict:
    """What the pass over TURN says beside the direct one."""
    if relay.code == "no_turn_server":
        severity = Severity.WARNING if wanted else Severity.OK
        return _broken(Stage.TURN, relay.code, relay.cause, severity=severity)
    if direct.stage is Stage.ICE:
        if relay.stage.number > Stage.MEDIA.number:
            cause = f"UDP to the bridge is blocked, media goes over TURN: {direct.cause}"
            return _broken(Stage.ICE, "udp_blocked", cause, direct.where, severity=Severity.WARNING)
        cause = f"no way to the bridge, over TURN neither: {direct.cause}"
        return _broken(Stage.ICE, "udp_and_turn_fail", cause, direct.where)
    if direct.stage.number <= Stage.MEDIA.number or relay.ok:
        return Verdict()  # what is wrong is wrong without TURN, too
    cause = f"media over TURN does not work: {relay.stage.value}: {relay.cause}"
    return _broken(Stage.TURN, relay.code, cause, relay.where, severity=Severity.WARNING)


def _of_pass(item: PassResult) -> Verdict:
    verdict = item.verdict
    if verdict.ok:
        return verdict
    return Verdict(
        stage=verdict.stage,
        severity=verdict.severity,
        code=verdict.code,
        cause=f"{item.name}: {verdict.cause}",
        hint=verdict.hint,
        where=verdict.where,
    )
