"""What is remembered of users and tenants: within the bound, asked once, and never kept past a change made here."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest

from payments_ledger.access import access_cache as access
from payments_ledger.access.access_cache import AccessCache
from payments_ledger.access.queries import UserAccess
from payments_ledger.errors import DatabaseUnavailable, TooBusy

pytestmark = pytest.mark.anyio

SUBJECT = "0198e6a0-0000-7000-8000-000000000001"


class Directory:
    """Stands in for the database: counts the questions, and answers when `pause` is over."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[set[tuple[str, UUID]]] = []
        self.roles: tuple[str, ...] = ("ops",)
        self.is_away = False
        self.pause = asyncio.Event()
        self.pause.set()
        monkeypatch.setattr(access, "find_user_accesses", self._find)
        self.cache = AccessCache(self._transaction)

    @asynccontextmanager
    async def _transaction(self, tenants: Collection[str]) -> AsyncIterator[Any]:
        if self.is_away:
            raise DatabaseUnavailable
        yield None

    async def _find(self, _: Any, keys: set[tuple[str, UUID]]) -> dict[tuple[str, UUID], UserAccess]:
        self.asked.append(set(keys))
        roles = self.roles
        await self.pause.wait()
        return {key: UserAccess(*key, roles, frozenset()) for key in keys if key[0] != "nowhere"}


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Directory:
    return Directory(monkeypatch)


async def test_a_hundred_who_ask_at_once_are_one_question(directory: Directory) -> None:
    found = await asyncio.gather(*(directory.cache.user("t", SUBJECT) for _ in range(100)))
    assert {user.roles for user in found if user} == {("ops",)}
    assert await directory.cache.user("t", SUBJECT)
    assert len(directory.asked) == 1


async def test_different_keys_share_a_transaction(directory: Directory) -> None:
    await asyncio.gather(*(directory.cache.user("t", str(uuid4())) for _ in range(100)))
    assert sum(map(len, directory.asked)) == 100
    assert len(directory.asked) <= 2


async def test_what_was_found_is_asked_again_after_the_bound(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "STALE_SECONDS_MAX", 0.05)
    await directory.cache.user("t", SUBJECT)
    directory.roles = ()
    await asyncio.sleep(0.06)
    user = await directory.cache.user("t", SUBJECT)
    assert user is not None
    assert user.roles == ()


async def test_what_is_in_use_is_renewed_in_one_transaction_and_nobody_waits_for_it(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = [str(uuid4()) for _ in range(20)]
    await asyncio.gather(*(directory.cache.user("t", user) for user in users))
    monkeypatch.setattr(access, "RENEW_SECONDS", 0)
    directory.asked.clear()
    directory.roles = ()
    directory.pause.clear()
    for user in users * 2:
        known = await directory.cache.user("t", user)
        assert known is not None
        assert known.roles == ("ops",)
    async with asyncio.timeout(10):
        while not directory.asked:
            await asyncio.sleep(0.01)
        directory.pause.set()
        while (known := await directory.cache.user("t", users[-1])) and known.roles:
            await asyncio.sleep(0.01)
    assert directory.asked[0] == {("t", UUID(user)) for user in users}


async def test_a_renewal_that_fails_is_tried_again_within_the_bound(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that only a renewal can bring the change.
    monkeypatch.setattr(access, "STALE_SECONDS_MAX", 3600)
    monkeypatch.setattr(access, "RENEW_SECONDS", 0)
    await directory.cache.user("t", SUBJECT)
    directory.is_away = True
    for _ in range(10):
        assert await directory.cache.user("t", SUBJECT)
        await asyncio.sleep(0.01)
    directory.is_away = False
    directory.roles = ()
    async with asyncio.timeout(10):
        while (known := await directory.cache.user("t", SUBJECT)) and known.roles:
            await asyncio.sleep(0.01)
    assert known is not None


async def test_an_answer_that_took_longer_than_the_bound_is_not_used(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "STALE_SECONDS_MAX", 0.05)
    directory.pause.clear()
    asyncio.get_running_loop().call_later(0.1, directory.pause.set)
    with pytest.raises(TooBusy):
        await directory.cache.user("t", SUBJECT)


async def test_nothing_stale_is_used_while_the_database_is_away(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "STALE_SECONDS_MAX", 0.05)
    await directory.cache.user("t", SUBJECT)
    directory.is_away = True
    assert await directory.cache.user("t", SUBJECT)
    await asyncio.sleep(0.06)
    with pytest.raises(DatabaseUnavailable):
        await directory.cache.user("t", SUBJECT)
    directory.is_away = False
    assert await directory.cache.user("t", SUBJECT)


async def test_an_answer_from_before_a_change_is_not_kept(directory: Directory) -> None:
    directory.pause.clear()
    before = asyncio.create_task(directory.cache.user("t", SUBJECT))
    while not directory.asked:
        await asyncio.sleep(0)
    directory.roles = ()
    directory.cache.forget("t", SUBJECT)
    directory.pause.set()
    await before
    after = await directory.cache.user("t", SUBJECT)
    assert after is not None
    assert after.roles == ()


@pytest.mark.parametrize(("tenant_id", "subject"), [("nowhere", SUBJECT), ("t", "no uuid")])
async def test_the_unknown_are_not_remembered(directory: Directory, tenant_id: str, subject: str) -> None:
    assert await directory.cache.user(tenant_id, subject) is None
    assert not directory.cache._users._entries


async def test_one_who_hangs_up_does_not_cancel_the_others(directory: Directory) -> None:
    directory.pause.clear()
    first, second = (asyncio.create_task(directory.cache.user("t", SUBJECT)) for _ in range(2))
    while not directory.asked:
        await asyncio.sleep(0)
    first.cancel()
    directory.pause.set()
    assert await second
    assert first.cancelled() or first.cancelling()


async def test_memory_is_bounded(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "ENTRIES_MAX", 10)
    for _ in range(30):
        await directory.cache.user("t", str(uuid4()))
    assert len(directory.cache._users._entries) == 10
