"""Guessing passwords: thirty logins a minute from an address, ten failures in a row, and no way around either."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from argon2 import PasswordHasher
from argon2.profiles import CHEAPEST
from uuid_utils.compat import uuid7

from payments_ledger.access import attempts, logins, passwords
from payments_ledger.access import routes as auth_routes
from payments_ledger.access.attempts import Forgotten, LoginAttempt, MemoryAttempts, RedisAttempts
from payments_ledger.access.queries import EnabledUser
from payments_ledger.access.schemas import Credentials
from payments_ledger.access.tokens import EVERY_TENANT
from payments_ledger.errors import TooBusy
from payments_ledger.postgres.database import Database
from payments_ledger.process.settings import Settings
from payments_ledger.redis.pipeline import Pipeline
from payments_ledger.tenants.queries import insert_user
from tests.integration.administration import audit
from tests.integration.conftest import Api, serving
from tests.integration.http import assert_problem
from tests.services import RedisServer

pytestmark = pytest.mark.anyio

PASSWORD = "right"
# After the store is back; nobody has to ask for it.
NOTICED_SECONDS_MAX = 2.5


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hundreds of logins at their real cost would take minutes."""
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher.from_parameters(CHEAPEST))
    passwords.hash_of_nobody.cache_clear()
    yield
    passwords.hash_of_nobody.cache_clear()


@pytest.fixture(params=["memory", "redis"])
def stored(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """Attempts are counted alike in either store."""
    if request.param == "memory":
        return settings
    redis_server: RedisServer = request.getfixturevalue("redis_server")
    return settings.model_copy(update={"redis_url": redis_server.url})


@pytest.fixture
async def stored_api(stored: Settings) -> AsyncIterator[Api]:
    async with serving(stored) as api:
        yield api


@pytest.fixture
def new_user(owner: Database) -> Callable[[str, str], Awaitable[None]]:
    async def make(tenant_id: str, email: str) -> None:
        password_hash = passwords.hash_password(PASSWORD)
        async with owner.transaction([tenant_id]) as conn:
            await insert_user(
                conn, tenant_id=tenant_id, user_id=uuid7(), email=email, password_hash=password_hash, roles=["ops"]
            )

    return make


@pytest.fixture
async def email(new_user: Callable[[str, str], Awaitable[None]], tenant: str) -> str:
    """Of a user of `tenant` alone."""
    email = f"{uuid4()}@demo"
    await new_user(tenant, email)
    return email


async def log_in(
    api: Api, email: str, password: str, tenant_id: str | None = None, headers: dict[str, str] | None = None
) -> httpx.Response:
    body = {"email": email, "password": password} | ({"tenantId": tenant_id} if tenant_id else {})
    return await api.client.post("/v1/auth/token", json=body, headers=headers)


async def test_ten_failures_in_a_row_make_an_account_rest_for_thirty_minutes(
    stored_api: Api, email: str, tenant: str
) -> None:
    for _ in range(10):
        assert_problem(await log_in(stored_api, email, "wrong", tenant), 401, "bad_credentials")
    for password in ("wrong", PASSWORD):
        response = await log_in(stored_api, email, password, tenant)
        assert_problem(response, 429, "too_many_failed_logins")
        assert 1790 <= int(response.headers["Retry-After"]) <= 1800


async def test_the_rest_ends(stored: Settings, email: str, tenant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "REST_SECONDS", 1)
    monkeypatch.setattr(logins, "FAILURES_MAX", 1)
    async with serving(stored) as api:
        await log_in(api, email, "wrong", tenant)
        refused = await log_in(api, email, PASSWORD, tenant)
        assert refused.headers["Retry-After"] == "1"
        await asyncio.sleep(1.05)
        assert (await log_in(api, email, PASSWORD, tenant)).status_code == 200


async def test_a_success_ends_the_row(stored_api: Api, email: str, tenant: str) -> None:
    for round_ in range(3):
        for _ in range(9):
            assert (await log_in(stored_api, email, "wrong", tenant if round_ % 2 else None)).status_code == 401
        assert (await log_in(stored_api, email, PASSWORD, tenant if round_ % 2 else None)).status_code == 200


async def test_nothing_that_can_be_varied_gives_more_attempts(stored_api: Api, email: str, tenant: str) -> None:
    attempts: list[dict[str, Any]] = [
        {},
        {"tenant_id": tenant},
        {"tenant_id": "another"},
        {"tenant_id": "*"},
        *({"headers": {"X-Tenant-Id": f"tenant-{n}", "X-Forwarded-For": f"198.51.100.{n}"}} for n in range(10)),
    ]
    statuses = [
        (await log_in(stored_api, email.upper() if n % 2 else email, f"wrong {n}", **attempt)).status_code
        for n, attempt in enumerate(attempts)
    ]
    assert statuses == [401] * 10 + [429] * 4
    assert (await log_in(stored_api, email, PASSWORD, tenant)).status_code == 429


async def test_an_unknown_address_rests_like_a_known_one(stored_api: Api) -> None:
    email = f"{uuid4()}@nowhere"
    statuses = [(await log_in(stored_api, email, "wrong")).status_code for _ in range(12)]
    assert statuses == [401] * 10 + [429] * 2


async def test_a_success_in_another_tenant_does_not_end_the_row(
    stored_api: Api, email: str, tenant: str, new_tenant: Any, new_user: Any
) -> None:
    """Whoever runs a tenant of their own could make a user with the victim's e-mail address in it."""
    own = await new_tenant()
    await new_user(own, email)
    statuses = []
    for _ in range(12):
        statuses.append((await log_in(stored_api, email, "wrong", tenant)).status_code)
        await log_in(stored_api, email, PASSWORD, own)
    assert Counter(statuses) == {401: 10, 429: 2}


async def test_attempts_at_the_same_time_are_as_many_as_one_after_the_other(
    stored_api: Api, email: str, tenant: str
) -> None:
    right = await asyncio.gather(*(log_in(stored_api, email, PASSWORD, tenant) for _ in range(25)))
    assert {answer.status_code for answer in right} == {200}
    wrong = await asyncio.gather(*(log_in(stored_api, email, "wrong", tenant) for _ in range(25)))
    assert Counter(answer.status_code for answer in wrong) == {401: 10, 429: 15}


@pytest.fixture
async def proxied_api(stored: Settings) -> AsyncIterator[Api]:
    """Behind a proxy that says who calls."""
    async with serving(stored.model_copy(update={"trusted_proxies": ("192.0.2.1",)}), address="192.0.2.1") as api:
        yield api


def from_address(address: str) -> dict[str, str]:
    return {"X-Forwarded-For": address}


@pytest.mark.parametrize(
    ("stranger", "user", "shares_the_rest"),
    [
        ("203.0.113.1", "203.0.113.1", True),
        ("203.0.113.1", "203.0.113.2", False),
        ("203.0.113.1", "::ffff:203.0.113.1", True),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
    ],
)
async def test_a_rest_holds_for_the_network_of_its_failures_alone(
    proxied_api: Api, email: str, tenant: str, stranger: str, user: str, shares_the_rest: bool
) -> None:
    wrong = [await log_in(proxied_api, email, "wrong", tenant, from_address(stranger)) for _ in range(12)]
    assert [answer.status_code for answer in wrong] == [401] * 10 + [429] * 2
    right = await log_in(proxied_api, email, PASSWORD, tenant, from_address(user))
    assert right.status_code == (429 if shares_the_rest else 200)


@pytest.mark.parametrize(
    ("networks", "attempts_each"), [(20, 5), (1, 100)], ids=["from everywhere", "refused ones are counted"]
)
async def test_after_a_hundred_failures_an_hour_the_e_mail_address_rests_for_everybody(
    proxied_api: Api, email: str, tenant: str, networks: int, attempts_each: int
) -> None:
    guesses = [from_address(f"203.0.113.{n}") for n in range(networks) for _ in range(attempts_each)]
    for number, stranger in enumerate(guesses, 1):
        await log_in(proxied_api, email, "wrong", tenant, stranger)
        # The right password is no failure, however often.
        if number == 99:
            for _ in range(3):
                right = await log_in(proxied_api, email, PASSWORD, tenant, from_address("198.51.100.1"))
                assert right.status_code == 200
    for _ in range(12):
        refused = await log_in(proxied_api, email, PASSWORD, tenant, from_address("198.51.100.1"))
        assert_problem(refused, 429, "too_many_failed_logins")
        assert 3500 <= int(refused.headers["Retry-After"]) <= 3600
    # And nobody else's.
    assert (await log_in(proxied_api, f"{uuid4()}@demo", "wrong", tenant)).status_code == 401


async def test_whom_strangers_kept_out_has_not_failed_themselves(
    proxied_api: Api, email: str, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "HOUR_SECONDS", 1)
    monkeypatch.setattr(logins, "FAILURES_IN_THE_HOUR_MAX", 1)
    await log_in(proxied_api, email, "wrong", tenant, from_address("203.0.113.1"))
    for _ in range(12):
        refused = await log_in(proxied_api, email, PASSWORD, tenant, from_address("198.51.100.1"))
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    await asyncio.sleep(1.05)
    right = await log_in(proxied_api, email, PASSWORD, tenant, from_address("198.51.100.1"))
    assert right.status_code == 200


async def test_an_address_has_thirty_logins_a_minute_whatever_it_sends(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"login_rate_limit_per_min": 30})) as api:
        statuses = []
        for n in range(33):
            headers = {"X-Forwarded-For": f"198.51.100.{n}", "X-Tenant-Id": f"{n}"}
            body = {"email": f"user-{n}@demo", "password": "x"} if n % 10 == 0 else {}
            response = await api.client.post("/v1/auth/token", json=body, headers=headers)
            statuses.append(response.status_code)
            assert response.headers["RateLimit-Policy"] == '"login";q=30;w=60'
        assert_problem(response, 429, "rate_limited")
        assert set(statuses[:30]) == {401, 422}
        assert set(statuses[30:]) == {429}


async def test_without_its_store_no_login_is_admitted_and_tokens_go_on_working(
    settings: Settings, redis_server: RedisServer, email: str, tenant: str
) -> None:
    async with serving(settings.model_copy(update={"redis_url": redis_server.url})) as api:
        redis_server.stop()
        try:
            for _ in range(3):
                response = await log_in(api, email, PASSWORD, tenant)
                assert_problem(response, 503, "login_unavailable")
                assert response.headers["Retry-After"] == "1"
            assert (await api.client.get("/v1/me", headers=api.headers(tenant))).status_code == 200
        finally:
            redis_server.start()
        async with asyncio.timeout(10):
            while (await log_in(api, email, PASSWORD, tenant)).status_code != 200:
                await asyncio.sleep(0.1)


async def test_after_an_outage_of_its_store_the_first_login_is_admitted(
    settings: Settings, redis_server: RedisServer, email: str, tenant: str
) -> None:
    async with serving(settings.model_copy(update={"redis_url": redis_server.url})) as api:
        redis_server.stop()
        try:
            assert_problem(await log_in(api, email, PASSWORD, tenant), 503, "login_unavailable")
        finally:
            redis_server.start()
        await asyncio.sleep(NOTICED_SECONDS_MAX)
        assert (await log_in(api, email, PASSWORD, tenant)).status_code == 200


async def test_every_refused_login_costs_the_same_work(
    api: Api, email: str, tenant: str, new_tenant: Any, new_user: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One hash and two questions to the database, whoever asks: so time tells nobody whether a user exists."""
    monkeypatch.setattr(logins, "FAILURES_MAX", 1_000_000)
    several = f"{uuid4()}@demo"
    await new_user(tenant, several)
    await new_user(await new_tenant(), several)
    work: list[str] = []
    verify, transaction = passwords._verify, Database.transaction

    def counted_verify(password: str, password_hash: str) -> bool:
        work.append(f"hash {password_hash.rpartition('$')[0].rpartition('$')[0]}")
        return verify(password, password_hash)

    def counted_transaction(database: Database, tenants: Iterable[str] = ()) -> Any:
        work.append("question")
        return transaction(database, tenants)

    monkeypatch.setattr(passwords, "_verify", counted_verify)
    monkeypatch.setattr(auth_routes, "_find_user", count_within(counted_transaction, monkeypatch))
    costs = []
    for address, tenant_id in (
        (email, tenant),
        (email, None),
        ("nobody@demo", tenant),
        ("nobody@demo", None),
        (email, "nowhere"),
        (several, None),
    ):
        work.clear()
        assert (await log_in(api, address, "wrong", tenant_id)).status_code == 401
        costs.append(sorted(work))
    assert costs == [["hash $argon2id$v=19$m=8,t=1,p=1", "question", "question"]] * 6


def count_within(transaction: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The look-up of a login with its transactions counted; the audit of refusals has others, in the background."""
    find_user = auth_routes._find_user

    async def counted(database: Database, credentials: Credentials) -> EnabledUser | None:
        with monkeypatch.context() as patch:
            patch.setattr(Database, "transaction", transaction)
            return await find_user(database, credentials)

    return counted


async def test_both_stores_keep_the_same_count(redis_server: RedisServer) -> None:
    email = f"{uuid4()}@demo"
    for store in (MemoryAttempts(), RedisAttempts(redis_server.url)):
        here = [LoginAttempt(email, "192.0.2.1", tenant_id) for tenant_id in ("a", "", "b", "a")]
        there = LoginAttempt(email, "192.0.2.2", "a")
        counted = [await store.add(attempt) for attempt in (*here, there)]
        assert [count.in_a_row.number for count in counted] == [1, 2, 3, 4, 1]
        assert [count.in_the_hour.number for count in counted] == [1, 2, 3, 4, 5]
        await store.extend(here[0])
        await store.take_back(here[2])
        await store.succeed(here[0], ["a", "never seen"])
        counted = [await store.add(here[2]), await store.add(there)]
        assert [(count.in_a_row.number, count.in_the_hour.number) for count in counted] == [(2, 5), (2, 6)]
        assert await store.forget(email) == Forgotten(networks=2, in_rows=4, in_the_hour=6)
        assert await store.forget(email) == Forgotten(networks=0, in_rows=0, in_the_hour=0)
        await store.close()


async def test_redis_learns_no_e_mail_address(redis_server: RedisServer) -> None:
    email = f"{uuid4()}@demo"
    store, pipeline = RedisAttempts(redis_server.url), Pipeline(redis_server.url)
    await store.add(LoginAttempt(email, "192.0.2.1", "a"))
    [keys] = await pipeline.run(("KEYS", "ledger:login:*"))
    assert keys
    assert not [key for key in keys if b"@" in key]
    await store.close()
    await pipeline.close()


async def test_every_login_is_in_the_audit_log_with_its_address(api: Api, tenant: str, email: str) -> None:
    answers = [await log_in(api, email, PASSWORD) for _ in range(2)]
    bearer = {"Authorization": f"Bearer {answers[0].json()['access_token']}"}
    subject = (await api.client.get("/v1/me", headers=bearer)).json()["sub"]
    rows = await audit(api, api.headers(tenant, role="admin"), action="user.log_in")
    assert [(row["principal"], row["target"], row["address"], row["correlation_id"]) for row in rows] == [
        (subject, subject, "127.0.0.1", answer.headers["X-Correlation-Id"]) for answer in reversed(answers)
    ]
    assert email not in str(rows)


async def test_there_is_no_token_without_its_row_in_the_audit_log(
    api: Api, email: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def find_no_room(*_: object) -> list[None]:
        raise TooBusy

    monkeypatch.setattr(auth_routes, "record_logins", find_no_room)
    assert_problem(await log_in(api, email, PASSWORD), 503, "too_busy")


async def test_a_global_administrators_login_is_in_the_log_of_global_administrators(
    api: Api, tenant: str, new_user: Callable[[str, str], Awaitable[None]]
) -> None:
    email = f"{uuid4()}@demo"
    await new_user(EVERY_TENANT, email)
    answer = await log_in(api, email, PASSWORD, EVERY_TENANT)
    assert answer.status_code == 200
    headers = api.headers(EVERY_TENANT, role="admin", home=EVERY_TENANT)
    rows = await audit(api, headers, action="user.log_in")
    assert answer.headers["X-Correlation-Id"] in {row["correlation_id"] for row in rows}
