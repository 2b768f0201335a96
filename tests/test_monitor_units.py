"""Thresholds, settings, reports, changes of state, web-hook, history and metrics of the probe."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from bot.errors import ConfigurationError
from bot.monitor import settings as probe_settings
from bot.monitor.changes import Change, Changes
from bot.monitor.diagnosis import judge
from bot.monitor.history import History
from bot.monitor.metrics import ProbeMetrics
from bot.monitor.model import ProbeResult, Severity, Stage, Verdict
from bot.monitor.report import as_json, as_nagios, as_text, exit_code
from bot.monitor.thresholds import DEFAULTS, MEASURES, breaches, effective, parse
from bot.monitor.webhook import ATTEMPTS, WAITING, WebHook
from bot.service.signing import IDENTITY, SIGNATURE, STAMP, signature
from bot.settings import load
from tests.test_monitor_diagnosis import LIMITS, NOW, fine

DOWN = Verdict(
    stage=Stage.BRIDGE, severity=Severity.CRITICAL, code="no_offer", cause="no | bridge", hint="a bridge"
)
SLOW = Verdict(stage=Stage.QUALITY, severity=Severity.WARNING, code="delay", cause="slow", hint="load")


def result(verdict: Verdict | None = None, at: float = NOW) -> ProbeResult:
    passes = (judge(fine(), LIMITS, NOW),)
    return ProbeResult(
        at=at, seconds=12.0, url="ws://x", room="r", verdict=verdict or passes[0].verdict, passes=passes
    )


# --- thresholds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "warning", "critical"),
    [
        ("delay < 400ms", "delay", 0.4, 0.4),
        ("delay<0.4, 1s", "delay", 0.4, 1.0),
        ("loss < 2%, 10%", "loss", 0.02, 0.1),
        ("frames > 80 %, 0.5", "frames", 0.8, 0.5),
        ("certificate > 14d, 72h", "certificate", 14, 3),
    ],
)
def test_thresholds(text: str, name: str, warning: float, critical: float) -> None:
    found = parse(text)
    assert found.measure.name == name
    assert (found.warning, found.critical) == pytest.approx((warning, critical))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no threshold"),
        ("delay", "is no threshold"),
        ("speed < 1s", "known are join"),
        ("delay > 1s", "better low"),
        ("frames < 50%", "better high"),
        ("delay < 1%", "say 400ms"),
        ("loss < 1s", "say 2%"),
        ("delay < 1s, 400ms", "comes first"),
        ("frames > 50%, 80%", "comes first"),
        ("delay < soon", "say 400ms"),
    ],
)
def test_wrong_thresholds_say_what_is_right(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(text)


def test_given_thresholds_go_before_the_defaults() -> None:
    found = {item.measure.name: item for item in effective(["delay < 2s"])}
    assert found["delay"].critical == 2.0
    assert set(found) == {parse(text).measure.name for text in DEFAULTS}


@given(st.sampled_from(DEFAULTS).map(parse), st.floats(0, 100), st.floats(0, 100))
def test_what_is_worse_is_never_judged_better(threshold: Any, one: float, other: float) -> None:
    worse, better = (max, min) if threshold.measure.worse == "above" else (min, max)
    assert threshold.judge(worse(one, other)) >= threshold.judge(better(one, other))


def test_breaches_come_worst_first_and_nothing_measured_is_none() -> None:
    found = breaches(LIMITS, {"delay": 0.5, "loss": 0.5})
    assert [(item.threshold.measure.name, item.severity) for item in found] == [
        ("loss", Severity.CRITICAL),
        ("delay", Severity.WARNING),
    ]
    assert found[1].text == "delay 500 ms is not below 400 ms"
    assert breaches(LIMITS, {}) == []


# --- settings ------------------------------------------------------------------------------------------------


def test_settings_come_from_flags_environment_and_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "bot.toml"
    file.write_text('room = "x"\n[probe]\nbots = 3\nduration = 5\ntimeout = 7\nregions = ["eu", "us"]\n')
    monkeypatch.setenv("JITSI_PROBE_DURATION", "6")
    monkeypatch.setenv("JITSI_PROBE_TIMEOUT", "8")
    monkeypatch.setenv("JITSI_PROBE_THRESHOLDS", "delay < 1s; loss < 2%, 10%")
    monkeypatch.setenv("JITSI_PROBE_WEBHOOK_URL", "https://example.com/hook")
    secret = tmp_path / "secret"
    secret.write_text("geheim\n")
    monkeypatch.setenv("JITSI_PROBE_WEBHOOK_SECRET_FILE", str(secret))
    found = probe_settings.load(file, timeout=9.0)
    assert (found.bots, found.duration, found.timeout, found.regions) == (3, 6.0, 9.0, ("eu", "us"))
    assert found.thresholds == ("delay < 1s", "loss < 2%, 10%")
    assert found.webhook_secret is not None
    assert found.webhook_secret.get_secret_value() == "geheim"
    assert load(file).room == "x"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[probe]\nbot = 3", r"probe\.bot: unknown setting, did you mean 'bots'"),
        ("[probe]\nbots = 1", r"probe\.bots: "),
        ('[probe]\nthresholds = ["delay > 1"]', r"probe\.thresholds: delay is better low"),
        ('[probe]\nwebhook_url = "ftp://x"', "is no http"),
        ('[probe]\nwebhook_secret = "x"', "webhook_url, which is not set"),
        ("probe = 3", "probe is a table"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "bot.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        probe_settings.load(file)


def test_a_secret_file_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JITSI_PROBE_WEBHOOK_SECRET_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="JITSI_PROBE_WEBHOOK_SECRET_FILE: cannot read"):
        probe_settings.load()


# --- reports -------------------------------------------------------------------------------------------------


def test_the_plug_ins_line_has_its_performance_data() -> None:
    line = as_nagios(result(), LIMITS)
    said, _, data = line.partition(" | ")
    assert said == "JITSI OK - all fine"
    assert "delay=0.06s;0.4;1" in data.split()
    assert "frames=1;0.8:;0.5:" in data.split()
    form = re.compile(r"[a-z_]+=-?[0-9.e+-]+s?(;[0-9.:e+-]*;[0-9.:e+-]*)?")
    assert all(form.fullmatch(item) for item in data.split())


def test_a_bar_in_a_cause_does_not_begin_performance_data() -> None:
    line = as_nagios(result(DOWN), LIMITS)
    assert line.startswith("JITSI CRITICAL - bridge: no / bridge - look at: a bridge | ")
    assert line.count("|") == 1


@pytest.mark.parametrize(
    ("verdict", "code", "nagios"),
    [
        (Verdict(), 0, 0),
        (DOWN, 3, 2),
        (SLOW, 99, 1),
        (Verdict(stage=Stage.ICE, severity=Severity.WARNING, code="udp_blocked"), 99, 1),
        (Verdict(stage=Stage.PROBE, severity=Severity.UNKNOWN, code="internal"), 1, 3),
        (Verdict(stage=Stage.PROBE, severity=Severity.UNKNOWN, code="configuration"), 2, 3),
    ],
)
def test_exit_codes(verdict: Verdict, code: int, nagios: int) -> None:
    found = result(verdict)
    assert exit_code(found, "text") == exit_code(found, "json") == code
    assert exit_code(found, "nagios") == nagios


def test_text_and_json_say_the_same() -> None:
    text = as_text(result(DOWN))
    assert text.startswith("CRITICAL: bridge: no | bridge\n  look at: a bridge\ndirect: all fine\n")
    assert "probe-1 to probe-2: 300 of 300 pictures" in text
    found = json.loads(as_json(result(DOWN)))
    assert found["verdict"]["stage"] == "bridge"
    assert found["passes"][0]["paths"][0]["picture_delay"]["p95"] == 0.05


# --- changes -------------------------------------------------------------------------------------------------


def fed(changes: Changes, *verdicts: Verdict) -> list[tuple[str, float] | None]:
    found = [changes.feed(result(item, at=100.0 * number)) for number, item in enumerate(verdicts)]
    return [(item.kind, item.lasted) if item is not None else None for item in found]


def test_each_change_is_news_once_with_the_recovery() -> None:
    other = replace(DOWN, cause="in other words")
    told = fed(Changes(), Verdict(), DOWN, other, SLOW, Verdict(), Verdict())
    assert told == [None, ("problem", 100.0), None, ("changed", 200.0), ("recovered", 100.0), None]


def test_what_is_broken_at_first_is_news() -> None:
    assert fed(Changes(), DOWN, Verdict()) == [("problem", 0.0), ("recovered", 100.0)]


def test_after_several_in_a_row() -> None:
    told = fed(Changes(after=2), Verdict(), DOWN, Verdict(), DOWN, SLOW, SLOW, Verdict(), Verdict())
    assert told == [None, None, None, None, None, ("problem", 400.0), None, ("recovered", 200.0)]


@given(st.lists(st.sampled_from([Verdict(), DOWN, SLOW]), max_size=30), st.integers(1, 4))
def test_changes_alternate_and_a_recovery_follows_a_problem(verdicts: list[Verdict], after: int) -> None:
    changes = Changes(after)
    found = [item for number, v in enumerate(verdicts) if (item := changes.feed(result(v, at=float(number))))]
    kinds = [item.kind for item in found]
    for before, kind in zip(["recovered", *kinds], kinds, strict=False):
        assert (kind == "problem") == (before == "recovered")
    assert all(item.lasted >= 0 for item in found)
    assert len({item.as_dict()["id"] for item in found}) == len(found)
    if after == 1 and verdicts:
        assert (changes.state[0] is Severity.OK) == verdicts[-1].ok


# --- web-hook ------------------------------------------------------------------------------------------------


class Receiver:
    """Answers with the statuses given, the last one for ever."""

    def __init__(self, *statuses: int) -> None:
        self._statuses = list(statuses)
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.news = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        self.news.set()
        status = self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]
        return web.Response(status=status)


@asynccontextmanager
async def listening(receiver: Receiver) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_post("/hook", receiver.handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    await runner.cleanup()


def change(at: float = NOW) -> Change:
    found = Changes().feed(result(DOWN, at=at))
    assert found is not None
    return found


async def sent(*statuses: int, changes: int = 1, secret: str | None = "geheim") -> tuple[Receiver, list[float]]:
    """What a receiver got of so many changes, and how long was waited in between."""
    receiver, waits = Receiver(*statuses), list[float]()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async with listening(receiver) as url:
        hook = WebHook(url, secret, sleep=sleep, wall=lambda: 1234.5)
        hook.start()
        for number in range(changes):
            hook.tell(change(NOW + number))
        await hook.close()
        await hook.close()
    return receiver, waits


async def test_a_change_is_told_signed() -> None:
    receiver, waits = await sent(204)
    [(headers, body)] = receiver.got
    assert waits == []
    assert headers[STAMP] == "1234"
    assert headers[SIGNATURE] == signature("geheim", "1234", body)
    found = json.loads(body)
    assert (found["event"], found["id"]) == ("probe_problem", headers[IDENTITY])
    assert found["result"]["verdict"]["code"] == "no_offer"


def test_the_signature_is_that_of_openssl() -> None:
    # printf '1234.{}' | openssl dgst -sha256 -hmac geheim
    expected = "e0f4bda1f9fec4da6207ad3a1a3329e05d424a1ebd91c9346d835ee772666649"
    assert signature("geheim", "1234", b"{}") == f"sha256={expected}"


async def test_without_a_secret_nothing_is_signed() -> None:
    receiver, _ = await sent(200, secret=None)
    assert SIGNATURE not in receiver.got[0][0]


async def test_a_receiver_that_is_down_for_a_while_gets_the_same_again() -> None:
    receiver, waits = await sent(503, 429, 200)
    assert len(receiver.got) == 3
    assert len({headers[IDENTITY] for headers, _ in receiver.got}) == 1
    assert len(waits) == 2
    assert waits == sorted(waits)


async def test_one_that_stays_down_is_given_up_and_the_next_change_is_told() -> None:
    receiver, _ = await sent(500, changes=2)
    assert len(receiver.got) == 2 * ATTEMPTS
    assert len({headers[IDENTITY] for headers, _ in receiver.got}) == 2


async def test_a_refusal_is_final() -> None:
    receiver, waits = await sent(403)
    assert (len(receiver.got), waits) == (1, [])


async def test_the_oldest_change_gives_way() -> None:
    receiver, _ = await sent(200, changes=WAITING + 5)
    assert len(receiver.got) == WAITING
    assert json.loads(receiver.got[-1][1])["result"]["at"] == NOW + WAITING + 4


async def test_closing_does_not_wait_for_ever() -> None:
    async def for_ever(_: float) -> None:
        await asyncio.Event().wait()

    hook = WebHook("http://127.0.0.1:9/hook", sleep=for_ever)
    hook.start()
    hook.tell(change())
    began = asyncio.get_running_loop().time()
    await hook.close(timeout=0.2)
    assert asyncio.get_running_loop().time() - began < 5


# --- history and metrics -------------------------------------------------------------------------------------


async def test_the_history_is_bounded_in_memory_and_file(tmp_path: Path) -> None:
    path = tmp_path / "probe.jsonl"
    path.write_text('{"at":1}\n')
    history = History(3, path)
    for number in range(1, 11):
        await history.add(result(at=float(number)))
        assert len(path.read_text().splitlines()) < 6
    assert [item.at for item in history.results] == [8.0, 9.0, 10.0]
    assert [json.loads(line)["at"] for line in path.read_text().splitlines()][-3:] == [8.0, 9.0, 10.0]


async def test_a_history_that_can_not_be_written_is_kept_in_memory(tmp_path: Path) -> None:
    history = History(3, tmp_path / "nowhere" / "probe.jsonl")
    await history.add(result())
    assert len(history.results) == 1


def samples(metrics: ProbeMetrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        (item.name, tuple(sorted(item.labels.items()))): item.value
        for family in families
        for item in family.samples
    }


def test_metrics_show_the_last_result_and_nothing_of_the_one_before() -> None:
    metrics = ProbeMetrics()
    metrics.show(result())
    found = samples(metrics)
    assert found["jitsi_bot_probe_success", (("pass", "all"),)] == 1
    assert found["jitsi_bot_probe_delay_seconds", (("pass", "direct"),)] == 0.06
    assert found["jitsi_bot_probe_phase_seconds", (("pass", "direct"), ("phase", "ice"))] == 0.1
    assert (
        found["jitsi_bot_probe_path_delay_seconds", (("media", "sound"), ("pass", "direct"), ("quantile", "0.5"))]
        == 0.06
    )
    assert found["jitsi_bot_probe_stage", (("stage", "none"),)] == 1
    metrics.show(replace(result(DOWN), passes=()))
    found = samples(metrics)
    assert found["jitsi_bot_probe_success", (("pass", "all"),)] == 0
    assert found["jitsi_bot_probe_severity", (("pass", "all"),)] == 2
    assert found["jitsi_bot_probe_stage", (("stage", "bridge"),)] == 1
    assert found["jitsi_bot_probe_stage", (("stage", "none"),)] == 0
    assert not any(name == "jitsi_bot_probe_delay_seconds" for name, _ in found)
    assert found["jitsi_bot_probe_runs_total", (("severity", "ok"),)] == 1
    assert found["jitsi_bot_probe_runs_total", (("severity", "critical"),)] == 1


def test_every_measure_is_a_metric() -> None:
    names = {name for name, _ in samples(ProbeMetrics())} | {
        line.split()[2] for line in ProbeMetrics().render().decode().splitlines() if line.startswith("# HELP")
    }
    for measure in MEASURES:
        assert any(name.startswith(f"jitsi_bot_probe_{measure}_") for name in names), measure
