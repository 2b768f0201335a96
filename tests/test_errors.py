from __future__ import annotations

import pickle
import re

import pytest

from bot import errors
from bot.errors import BotError, MembersOnlyError, Scope


def _tree(base: type[BotError]) -> list[type[BotError]]:
    below = [error for child in base.__subclasses__() for error in _tree(child)]
    return [base, *below]


ALL = [error for error in _tree(BotError) if error.__module__ == errors.__name__]
by_name = pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)


def test_every_error_of_the_module_is_in_the_tree() -> None:
    named = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert named == set(ALL)
    assert len(ALL) > 20


def test_every_code_is_unique() -> None:
    codes = [error.code for error in ALL]
    assert sorted(codes) == sorted(set(codes))


@by_name
def test_every_class_has_a_code_of_its_own_and_says_what_it_means(error: type[BotError]) -> None:
    assert "code" in vars(error)  # not inherited
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", error.code)
    assert error.__doc__
    assert isinstance(error.retryable, bool)
    assert isinstance(error.scope, Scope)


@by_name
def test_the_hint_is_shown_after_the_message(error: type[BotError]) -> None:
    plain, hinted = error("it broke"), error("it broke", hint="set X")
    assert (str(plain), plain.hint) == ("it broke", None)
    assert (str(hinted), hinted.message, hinted.hint) == ("it broke (set X)", "it broke", "set X")
    assert hinted.args == ("it broke",)


def test_an_empty_hint_is_no_hint() -> None:
    assert str(BotError("it broke", hint="")) == "it broke"


@by_name
def test_errors_survive_a_process_boundary(error: type[BotError]) -> None:
    copy = pickle.loads(pickle.dumps(error("it broke", hint="set X")))
    assert (type(copy), str(copy)) == (error, "it broke (set X)")


@pytest.mark.parametrize(
    "error",
    [
        errors.ConfigurationError,
        errors.WrongAddressError,
        errors.TlsError,
        errors.AuthenticationError,
        errors.RoomPasswordError,
        errors.RoomFullError,
        errors.BannedError,
        errors.MembersOnlyError,
        errors.KickedError,
        errors.RoomDestroyedError,
        errors.UnsupportedMediaError,
    ],
)
def test_what_no_retry_can_mend_is_final(error: type[BotError]) -> None:
    assert not error.retryable


@pytest.mark.parametrize(
    "error",
    [
        *_tree(errors.ConnectionFailedError),
        errors.NicknameConflictError,
        errors.IceFailedError,
        errors.ProtocolError,
    ],
)
def test_what_can_pass_is_tried_again(error: type[BotError]) -> None:
    assert error.retryable


def test_scopes() -> None:
    assert errors.ConfigurationError.scope is Scope.PROCESS
    assert {error.scope for error in _tree(errors.RoomError)} == {Scope.ROOM}
    assert {error.scope for error in _tree(errors.MediaError)} == {Scope.PARTICIPANT}
    assert {error.scope for error in _tree(errors.ConnectionFailedError)} == {Scope.PARTICIPANT}


def test_members_only_names_the_lobby() -> None:
    error = MembersOnlyError("members only", lobby="lobby@conference.example", hint="wait")
    assert (error.lobby, str(error)) == ("lobby@conference.example", "members only (wait)")
    assert MembersOnlyError("members only").lobby is None
