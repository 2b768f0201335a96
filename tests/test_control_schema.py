"""The API keeps what its OpenAPI document says: schemathesis against a daemon that runs."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case

from bot.control.openapi import document
from bot.control.server import OPERATIONS
from tests.control_support import OPERATE, Daemon, daemon

DOCUMENT = document(OPERATIONS)
# A stream of events never ends: test_control_api.py reads it.
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT).exclude(operation_id="followEvents")
EXAMPLES = 10


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with daemon(tmp_path_factory.mktemp("schema"), "--max-participants", "2", "--bots", "1") as found:
        yield found


@SCHEMA.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_the_document_says(case: Case[Any], running: Daemon) -> None:
    case.call_and_validate(
        base_url=running.base, headers={"Authorization": f"Bearer {OPERATE}"}, timeout=20, proxies={"http": ""}
    )


def test_the_daemon_outlived_it(running: Daemon) -> None:
    assert running.ask("get", "/openapi.json").json() == DOCUMENT
    assert running.lines("request_failed") == []
    assert running.lines("participant_failed") == []
