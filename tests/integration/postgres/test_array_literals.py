"""Columns of a batch arrive in PostgreSQL as they were, whatever they hold."""

import gc
from datetime import UTC, datetime
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from payments_ledger.postgres.database import Database
from tests.integration.books import settle_a_payment

pytestmark = pytest.mark.anyio

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
INSTANTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001
BIGINTS = st.integers(-(2**63), 2**63 - 1)
COLUMNS = st.one_of(
    *(
        st.tuples(st.just(kind), st.lists(values | st.none()))
        for kind, values in (
            ("text", TEXT | st.sampled_from(["NULL", "null", "{}", '"', "\\", ",", " "])),
            ("uuid", st.uuids()),
            ("bigint", BIGINTS),
            ("timestamptz", INSTANTS),
            ("bytea", st.binary()),
            ("boolean", st.booleans()),
        )
    )
)


@given(column=COLUMNS)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_column_comes_back_as_it_was_sent(database: Database, column: tuple[str, list[object]]) -> None:
    kind, values = column
    async with database.transaction() as conn:
        cursor = await conn.execute(f"SELECT %s::{kind}[]", [values])
        assert await cursor.fetchone() == (values,)


async def test_lists_of_other_kinds_are_left_to_psycopg(database: Database) -> None:
    async with database.transaction() as conn:
        cursor = await conn.execute(
            "SELECT %s::text[][], %s::integer[], 3 = ANY(%s), %s::numeric[]", [[["a"], ["b"]], [], [1, 3], [1.5, 2.5]]
        )
        assert await cursor.fetchone() == ([["a"], ["b"]], [], True, [1.5, 2.5])


@pytest.mark.parametrize("values", [["a\0b"], ["\udc80"]])
async def test_what_no_text_can_hold_is_refused_not_cut_off(database: Database, values: list[str]) -> None:
    with pytest.raises((psycopg.DataError, UnicodeEncodeError)):
        async with database.transaction() as conn:
            await conn.execute("SELECT %s::text[], %s::uuid[]", [values, [UUID(int=1)]])


async def test_a_payment_leaves_the_garbage_collector_nothing_to_find(database: Database, tenant: str) -> None:
    """A dumper that knew its statement was a cycle for each: a pause of 7 ms every few hundred requests."""
    await settle_a_payment(database, tenant, idempotency_key="first")
    gc.collect()
    gc.disable()
    try:
        for number in range(10):
            await settle_a_payment(database, tenant, idempotency_key=f"{number}")
        assert gc.collect() < 10
    finally:
        gc.enable()
