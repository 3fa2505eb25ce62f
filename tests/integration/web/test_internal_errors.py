"""A fault of ours: the client learns that there was one and nothing else, the log all of it, and nothing is written."""

from typing import Any

import httpx
import psycopg
import pytest
import structlog
from structlog.testing import LogCapture

from payments_ledger.ledger import queries as ledger_queries
from payments_ledger.payments import queries as payments_queries
from payments_ledger.postgres.database import Database
from payments_ledger.web import request_trail as http
from tests.integration.conftest import Api
from tests.integration.http import BODY, PATH, assert_problem

pytestmark = pytest.mark.anyio

SECRET = "relation ledger_postings has no column s3cr3t"


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the middleware logs, whatever the level that tests log at."""
    capture = LogCapture()
    every_level = structlog.make_filtering_bound_logger(0)
    monkeypatch.setattr(http, "log", structlog.wrap_logger(None, [capture], every_level))
    return capture.entries


async def fail(*_: object, **__: object) -> Any:
    raise psycopg.errors.UndefinedColumn(SECRET)


def assert_tells_the_log_only(answer: httpx.Response, logs: list[Any]) -> None:
    assert_problem(answer, 500, "internal_error")
    told = f"{answer.headers!r}{answer.text}".lower()
    for inside in ("s3cr3t", "ledger_postings", "undefinedcolumn", "psycopg", "traceback", 'file "', "select "):
        assert inside not in told
    [line] = [line for line in logs if line["event"] == "request failed"]
    assert line["exc_info"]


async def test_a_read_that_fails_tells_the_client_nothing_and_the_log_all(
    api: Api, tenant: str, logs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_queries, "list_balances", fail)
    answer = await api.client.get("/v1/ledger/balances", headers=api.headers(tenant))
    assert_tells_the_log_only(answer, logs)


async def test_a_create_that_fails_tells_the_client_nothing_writes_nothing_and_may_be_repeated(
    api: Api, tenant: str, database: Database, logs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = api.headers(tenant) | {"Idempotency-Key": "k"}
    with monkeypatch.context() as broken:
        broken.setattr(payments_queries, "insert_payments", fail)
        answer = await api.client.post(PATH, json=BODY, headers=headers)
    assert_tells_the_log_only(answer, logs)
    async with database.transaction([tenant]) as conn:
        written = await conn.execute(
            "SELECT (SELECT count(*) FROM payment_intents), (SELECT count(*) FROM outbox_events),"
            " (SELECT count(*) FROM audit_log), (SELECT count(*) FROM idempotency_keys)"
        )
        assert await written.fetchone() == (0, 0, 0, 0)
    assert (await api.client.post(PATH, json=BODY, headers=headers)).status_code == 201
