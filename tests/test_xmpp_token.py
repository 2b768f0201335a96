"""Tokens: where they come from, what they claim, and what a refusal says."""

from pathlib import Path

import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bot.errors import AuthenticationError, AuthExpiredError, ConfigurationError
from bot.participant.config import expand
from bot.settings import load
from bot.xmpp.connection import XmppConfig, XmppConnection
from bot.xmpp.token import GivenToken, MintedToken, TokenFile, TokenSource, expires, refused_token

SECRET = "a secret of thirty-two bytes or more"


def minted(**more: object) -> MintedToken:
    values = {"room": "r", "subject": "meet.jitsi", "name": "probe", "now": lambda: 1_000_000.0} | more
    return MintedToken("app", SECRET, **values)  # type: ignore[arg-type]


def test_a_minted_token_is_what_jitsi_verifies() -> None:
    """Issuer, audience, room, domain and times: the checks of Jitsi's token/util.lib.lua."""
    source = minted(lifetime=60.0, email="probe@example.com")
    found = jwt.decode(
        source(), SECRET, algorithms=["HS256"], issuer="app", audience="app", options={"verify_exp": False}
    )
    assert found == {
        "aud": "app",
        "iss": "app",
        "sub": "meet.jitsi",
        "room": "r",
        "nbf": 999_940,
        "exp": 1_000_060,
        "context": {"user": {"name": "probe", "email": "probe@example.com"}},
    }
    assert expires(source()) == 1_000_060
    other = minted(issuer="i", audience="jitsi").claims(0.0)
    assert (other["iss"], other["aud"]) == ("i", "jitsi")


def test_each_connect_gets_a_token_of_its_own() -> None:
    times = iter([1000.0, 5000.0])
    source = minted(now=lambda: next(times))
    assert (expires(source()), expires(source())) == (4600.0, 8600.0)


def test_a_short_secret_is_the_deployments_choice() -> None:
    assert jwt.get_unverified_header(MintedToken("a", "short", room="r", subject="d")())["alg"] == "HS256"


def test_a_file_is_read_each_time(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old\n")
    source = TokenFile(path)
    assert source() == "old"
    path.write_text("new")
    assert source() == "new"
    path.write_text("\n")
    with pytest.raises(ConfigurationError, match="JITSI_TOKEN_FILE"):
        source()
    path.unlink()
    with pytest.raises(ConfigurationError, match="holds no token"):
        source()


def test_secrets_stay_out_of_reprs() -> None:
    assert "s3cret" not in repr(GivenToken("s3cret")) + repr(MintedToken("a", "s3cret", room="r", subject="d"))


@pytest.mark.parametrize(
    ("token", "said", "error", "setting"),
    [
        (GivenToken("x"), "Not acceptable by exp (61 sec since expired)", AuthExpiredError, "renew JITSI_TOKEN"),
        (minted(), "", AuthExpiredError, "renew JITSI_JWT_APP_SECRET"),
        (minted(lifetime=1e9), "", AuthenticationError, "JITSI_JWT_APP_SECRET"),
        (GivenToken("no token"), "Invalid signature", AuthenticationError, "JITSI_TOKEN"),
    ],
)
def test_a_refusal_names_the_setting(
    token: TokenSource, said: str, error: type[AuthenticationError], setting: str
) -> None:
    found = refused_token(token(), token, said, now=1_100_000.0)
    assert type(found) is error
    assert setting in str(found)
    assert said in str(found)
    assert not found.retryable


def test_the_settings_choose_the_source(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("t")
    assert expand(load())[0].token is None
    assert expand(load(token="t"))[0].token == GivenToken("t")
    assert expand(load(token_file=path))[0].token == TokenFile(path)
    source = expand(load(jwt_app_id="app", jwt_app_secret=SECRET, room="Big", name="n", domain="d"))[0].token
    assert isinstance(source, MintedToken)
    assert source.claims(0.0)["context"] == {"user": {"name": "n"}}
    assert (source.room, source.subject, source.lifetime) == ("big", "d", 3600.0)


OPEN = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' from='meet.jitsi' id='1' version='1.0'/>"
FEATURES = (
    "<stream:features xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:client'>"
    "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>ANONYMOUS</mechanism></mechanisms>"
    "</stream:features>"
)
#: As Jitsi's Prosody refuses a token that has expired.
FAILURE = (
    "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-allowed/>"
    "<text>Not acceptable by exp (6399.0 sec since expired)</text></failure>"
)


async def test_the_token_is_asked_for_at_each_connect_and_a_refusal_is_final(tmp_path: Path) -> None:
    seen: list[str | None] = []

    async def refuse(request: web.Request) -> web.WebSocketResponse:
        seen.append(request.query.get("token"))
        socket = web.WebSocketResponse(protocols=("xmpp",))
        await socket.prepare(request)
        await socket.receive()
        await socket.send_str(OPEN)
        await socket.send_str(FEATURES)
        assert "ANONYMOUS" in (await socket.receive()).data
        await socket.send_str(FAILURE)
        await socket.receive()
        return socket

    app = web.Application()
    app.router.add_get("/xmpp-websocket", refuse)
    path = tmp_path / "token"
    async with TestServer(app) as server:
        config = XmppConfig(
            url=f"ws://127.0.0.1:{server.port}", domain="meet.jitsi", room="r", token=TokenFile(path)
        )
        for token in ("first", "second"):
            path.write_text(token)
            with pytest.raises(AuthExpiredError, match="renew JITSI_TOKEN_FILE"):
                await XmppConnection(config).connect()
    assert seen == ["first", "second"]
