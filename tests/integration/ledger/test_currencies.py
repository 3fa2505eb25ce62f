"""Currencies are facts of the books: withdrawn ones stay readable, new payments refuse them, no exponent changes."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest

from payments_ledger import money
from payments_ledger.errors import Rejected, WithdrawnCurrency
from payments_ledger.ledger import currencies
from payments_ledger.money import Currency, Money, learn_currencies
from payments_ledger.orders.use_cases import Paid, PayOrder, change_orders
from payments_ledger.payments.routes import PATH
from payments_ledger.postgres.database import Database, driver_url
from tests.integration.books import BRL_100, ORIGIN, settle_a_payment
from tests.integration.conftest import Api
from tests.iso_4217 import CURRENCIES, EXPONENTS

pytestmark = pytest.mark.anyio

# In the table, and withdrawn before this engine was written.
KUNA = "HRK"


def as_superuser(database_url: str, statement: str) -> None:
    """Past row-level security, but not past triggers."""
    with psycopg.connect(driver_url(database_url).replace("app:app@", "postgres@")) as conn:
        assert conn.execute(statement.encode()).rowcount == 1


async def reload(database: Database) -> None:
    assert await currencies.try_to_load(database)


@pytest.fixture(autouse=True)
def _what_others_know() -> Iterator[None]:
    yield
    learn_currencies(CURRENCIES)


@pytest.fixture
async def withdraw(database_url: str, database: Database) -> Callable[[date | None], Awaitable[None]]:
    """Withdraws the kuna after a day, or admits it again; this process learns of it."""

    async def change(valid_until: date | None) -> None:
        value = f"'{valid_until}'" if valid_until else "NULL"
        as_superuser(database_url, f"UPDATE currencies SET valid_until = {value} WHERE code = '{KUNA}'")
        await reload(database)

    return change


async def test_the_library_has_no_news(database: Database) -> None:
    async with database.transaction() as conn:
        cursor = await conn.execute("SELECT code, exponent, valid_until FROM currencies")
        table = {code: (exponent, valid_until) for code, exponent, valid_until in await cursor.fetchall()}
    exponents = {code: exponent for code, (exponent, _) in table.items()}
    in_use = {code for code, (_, until) in table.items() if until is None or until >= datetime.now(UTC).date()}
    news = {
        "new, add it": EXPONENTS.keys() - exponents.keys(),
        "withdrawn, set its valid_until": in_use - EXPONENTS.keys(),
        "in use again, take its valid_until away": EXPONENTS.keys() - in_use - (EXPONENTS.keys() - exponents.keys()),
        "of another exponent: a question for people, since amounts were written down with the old one": {
            code for code in EXPONENTS.keys() & exponents.keys() if EXPONENTS[code] != exponents[code]
        },
    }
    assert not any(news.values()), f"ISO 4217 has changed: write a migration of the table currencies. {news}"


async def test_payments_of_a_withdrawn_currency_stay_readable_and_new_ones_are_refused(
    api: Api, database: Database, tenant: str, withdraw: Callable[[date | None], Awaitable[None]]
) -> None:
    headers = api.headers(tenant)
    body = {"amount": "10.50", "currency": KUNA, "customer_ref": "C-1"}
    today = datetime.now(UTC).date()
    # The last day is the currency's, too.
    await withdraw(today)
    await settle_a_payment(database, tenant, Money(1050, KUNA))
    created = await api.client.post(PATH, json=body, headers=headers | {"Idempotency-Key": "k"})
    assert created.status_code == 201
    await withdraw(today - timedelta(days=1))

    shown = await api.client.get(f"{PATH}/{created.json()['id']}", headers=headers)
    assert (shown.status_code, shown.json()["amount"]) == (200, "10.50")
    balances = (await api.client.get("/v1/ledger/balances", headers=headers)).json()
    assert {(balance["currency"], balance["balance"]) for balance in balances} == {(KUNA, "10.50")}
    entries = await api.client.get("/v1/ledger/entries", headers=headers)
    assert entries.json()[0]["lines"][0]["amount"] == "10.50"

    repeated = await api.client.post(PATH, json=body, headers=headers | {"Idempotency-Key": "k"})
    assert (repeated.status_code, repeated.content) == (201, created.content)
    for key in ({}, {"Idempotency-Key": "k2"}, {"Idempotency-Key": "k2"}):
        refused = await api.client.post(PATH, json=body, headers=headers | key)
        problem = refused.json()
        assert (refused.status_code, problem["code"]) == (422, "withdrawn_currency")
        assert problem["errors"][0]["pointer"] == "#/currency"
    batch = await api.client.post(
        f"{PATH}/batch",
        json={"payment_intents": [{**body, "currency": "BRL"}, body]},
        headers=headers | {"Idempotency-Key": "b"},
    )
    assert [outcome["status"] for outcome in batch.json()["outcomes"]] == [201, 422]
    assert batch.json()["outcomes"][1]["problem"]["errors"][0]["pointer"] == "#/payment_intents/1/currency"
    # What was authorized in time still settles.
    confirmed = await api.client.post(
        f"{PATH}/{created.json()['id']}/confirm", headers=headers | {"Idempotency-Key": "c"}
    )
    assert confirmed.status_code == 200


async def test_an_order_in_a_withdrawn_currency_is_refused_unless_it_was_paid_before(
    database: Database, tenant: str, withdraw: Callable[[date | None], Awaitable[None]]
) -> None:
    async def pay(*orders: tuple[str, Money]) -> list[object]:
        async with database.transaction([tenant]) as conn:
            return list(
                await change_orders(conn, [PayOrder(tenant, order_id, money, ORIGIN) for order_id, money in orders])
            )

    await withdraw(None)
    kuna = Money(100, KUNA)
    await pay(("paid", kuna))
    await withdraw(date(2022, 12, 31))
    paid, refused, other = await pay(("paid", kuna), ("late", kuna), ("other", BRL_100))
    assert isinstance(paid, Paid)
    assert not paid.is_new
    assert isinstance(refused, Rejected)
    assert isinstance(refused.error, WithdrawnCurrency)
    assert isinstance(other, Paid)
    assert other.payment.money == BRL_100


@pytest.mark.parametrize("currency", ["XYZ", "XAU", KUNA])
async def test_postgresql_refuses_a_new_payment_in_what_is_no_currency_of_its_table(
    database: Database, tenant: str, currency: str
) -> None:
    with pytest.raises(psycopg.errors.RestrictViolation, match=f"no payment can be created in {currency}"):
        async with database.transaction([tenant]) as conn:
            await conn.execute(
                """
                INSERT INTO payment_intents
                    (tenant_id, id, amount, currency, status, version, customer_ref, created_at, updated_at)
                VALUES (%s, %s, 1, %s, 'CREATED', 1, 'C', now(), now())
                """,
                [tenant, uuid4(), currency],
            )


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE currencies SET exponent = 3 WHERE code = 'BRL'",
        "UPDATE currencies SET code = 'QQQ' WHERE code = 'BRL'",
        "DELETE FROM currencies WHERE code = 'BRL'",
        "TRUNCATE currencies",
    ],
)
def test_nobody_changes_what_an_amount_means(database_url: str, statement: str) -> None:
    with pytest.raises(psycopg.errors.RestrictViolation):
        as_superuser(database_url, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO currencies VALUES ('QQQ', 2) RETURNING 1",
        "UPDATE currencies SET valid_until = NULL RETURNING 1",
        "DELETE FROM currencies RETURNING 1",
    ],
)
async def test_neither_a_process_nor_the_login_user_writes_currencies(
    database: Database, owner: Database, statement: str
) -> None:
    for writer in (database, owner):
        changed: list[object] = []
        try:
            async with writer.transaction() as conn:
                changed += await (await conn.execute(statement)).fetchall()
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.RestrictViolation):
            continue
        assert changed == []


async def test_a_process_learns_of_a_new_currency_while_it_serves(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(currencies, "REFRESH_SECONDS", 0.02)
    keeping = asyncio.create_task(currencies.keep_currencies(database))
    as_superuser(database_url, "INSERT INTO currencies VALUES ('QQQ', 1)")
    try:
        async with asyncio.timeout(10):
            while "QQQ" not in money._known:
                await asyncio.sleep(0.02)
        assert str(Money(15, "QQQ")) == "1.5 QQQ"
    finally:
        keeping.cancel()
        with psycopg.connect(driver_url(database_url).replace("app:app@", "postgres@")) as conn:
            conn.execute("SET session_replication_role = replica")
            conn.execute("DELETE FROM currencies WHERE code = 'QQQ'")


async def test_a_database_that_is_away_leaves_what_is_known(database_url: str) -> None:
    nowhere = Database("postgresql://app:app@127.0.0.1:1/app", role=None, pool_size_max=1)
    await nowhere.open()
    try:
        assert not await currencies.try_to_load(nowhere)
    finally:
        await nowhere.close()
    assert money._known == {currency.code: currency for currency in CURRENCIES}


async def test_before_its_first_look_at_the_table_a_process_asks_to_be_asked_again(api: Api, tenant: str) -> None:
    headers = api.headers(tenant)
    learn_currencies([])
    answer = await api.client.post(
        PATH, json={"amount": "10.50", "currency": "BRL", "customer_ref": "C-1"}, headers=headers
    )
    assert (answer.status_code, answer.json()["code"]) == (503, "currencies_not_loaded")
    assert answer.headers["Retry-After"] == "1"


async def test_an_api_has_read_the_table_before_its_first_request(database_url: str, api: Api) -> None:
    # Which the fixture has started; the withdrawn ones come from nowhere else.
    assert money._known[KUNA] == Currency(KUNA, 2, date(2022, 12, 31))


def test_the_api_does_without_the_library() -> None:
    # A new edition of it can therefore rescale nothing.
    program = "import sys; sys.modules['iso4217'] = None; import payments_ledger.api"
    subprocess.run([sys.executable, "-c", program], check=True)
