"""Settings: order of the sources, environment twins, secrets, and errors that name the setting."""

from pathlib import Path
from typing import Any

import pytest

from bot import settings
from bot.errors import ConfigurationError


def test_defaults_are_those_of_docker_jitsi_meet() -> None:
    found = settings.load()
    assert found.ws_url == "ws://localhost:8000"
    assert (found.domain, found.rooms_domain, found.focus) == ("meet.jitsi", "muc.meet.jitsi", "focus.meet.jitsi")
    assert found.login_domain == "meet.jitsi"
    assert [(spec.room, spec.count) for spec in found.specs()] == [("jitsi-bot", 1)]


def test_flag_beats_environment_beats_file_beats_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "bot.toml"
    file.write_text('room = "file"\nname = "file"\nfps = 15\n')
    monkeypatch.setenv("JITSI_ROOM", "environment")
    monkeypatch.setenv("JITSI_NAME", "environment")
    found = settings.load(file, room="flag", duration=None)
    assert (found.room, found.name, found.fps, found.bots) == ("flag", "environment", 15, 1)


def test_the_address_falls_back_to_the_web_apps_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXT_PUBLIC_JITSI_WS_URL", "ws://web:8000")
    assert settings.load().ws_url == "ws://web:8000"
    monkeypatch.setenv("JITSI_WS_URL", "ws://own:8000")
    assert settings.load().ws_url == "ws://own:8000"


def test_domains_follow_the_domain_and_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XMPP_DOMAIN", "example.org")
    found = settings.load(anonymous_domain="guest.example.org", focus_jid="focus.other")
    assert (found.rooms_domain, found.focus, found.login_domain) == (
        "muc.example.org",
        "focus.other",
        "guest.example.org",
    )
    account = settings.load(username="bot", password="secret", anonymous_domain="guest.example.org")
    assert account.login_domain == "example.org"


def test_lists_come_from_strings_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JITSI_ICE_ADDRESSES", "127.0.0.1, ::1")
    monkeypatch.setenv("JITSI_CODECS", "VP8")
    found = settings.load()
    assert found.ice_addresses == ("127.0.0.1", "::1")
    assert found.codecs == ("vp8",)


def test_secrets_come_from_files_and_are_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("abc\n")
    monkeypatch.setenv("JITSI_JWT_APP_SECRET_FILE", str(tmp_path / "secret"))
    found = settings.load(room_password="geheim", jwt_app_id="app")
    assert found.jwt_app_secret is not None
    assert found.jwt_app_secret.get_secret_value() == "abc"
    assert found.public()["jwt_app_secret"] == "**********"
    assert "geheim" not in str(found.public())
    assert found.public()["password"] is None


def test_a_missing_secret_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JITSI_PASSWORD_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="JITSI_PASSWORD_FILE"):
        settings.load()


def test_participants_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "bot.toml"
    file.write_text('[[participants]]\nroom = "a"\ncount = 2\n[[participants]]\nroom = "b"\naudio = "none"\n')
    assert [(spec.room, spec.count, spec.audio) for spec in settings.load(file).specs()] == [
        ("a", 2, None),
        ("b", 1, "none"),
    ]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"retries": "many"}, "retries: "),
        ({"fpss": 3}, "fpss: unknown setting, did you mean 'fps'"),
        ({"ice_addresses": "nohost"}, "ice_addresses: 'nohost'"),
        ({"turn_url": "stun:h"}, "turn_url: 'stun:h' is no TURN URL"),
        ({"turn_username": "u", "turn_password": "p"}, "turn_username and turn_password are those of turn_url"),
        ({"turn_url": "turn:h", "turn_username": "u"}, "turn_username and turn_password need each other"),
        ({"ice_addresses": "fe80::1"}, "ice_addresses: fe80::1 is link-local"),
        ({"codecs": "vp8,theora"}, "codecs: unknown codec 'theora'"),
        ({"ca_file": "/none/ca.pem"}, "ca_file: no such file"),
        ({"username": "bot"}, "username needs password"),
        ({"jwt_app_id": "app"}, "jwt_app_id and jwt_app_secret need each other"),
        ({"token": "a", "jwt_app_id": "a", "jwt_app_secret": "b"}, "token and jwt_app_secret exclude each other"),
        ({"token_file": "/none/token"}, "token_file: no such file"),
        ({"codecs": "av1", "video_codec": "vp8"}, "video_codec vp8 is not among codecs av1"),
        ({"audio": "noise"}, "audio: must be speech, tone, none or file:PATH, not 'noise'"),
        ({"video": "file:/none/film.mp4"}, "video: no such file: /none/film.mp4"),
        ({"width": 641}, "width: "),
    ],
)
def test_a_wrong_setting_is_named(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings.load(**values)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("romm = 'x'", "unknown setting 'romm', did you mean 'room'"),
        ("room =", "not valid TOML"),
        ("[[participants]]\nroom = 'x'\ncuont = 2", "did you mean 'count'"),
        ("zzzzzz = 1", "unknown setting 'zzzzzz'"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "bot.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        settings.load(file)
    assert said in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml"):
        settings.load(tmp_path / "nowhere.toml")


def test_environment_twins() -> None:
    assert settings.environment_name("room_password") == "JITSI_ROOM_PASSWORD"


def test_the_readme_lists_every_setting() -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text()
    missing = [name for name in settings.Settings.model_fields if f"| `{name}` |" not in text]
    assert missing == []


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JITSI_TOKEN", "JITSI_WS_URL", "JITSI_BOTS", "JITSI_TOKEN_FILE"):
        monkeypatch.setenv(name, "")
    found = settings.load()
    assert (found.token, found.ws_url, found.bots) == (None, "ws://localhost:8000", 1)
