"""What the database says of users and tenants, remembered for two seconds: tokens are not trusted beyond that.

To ask at every request would double PostgreSQL's reads; remembered, it costs 20 µs (ADR 20). Entries in use are renewed
ahead, because the look-ups of many callers at once held up every request for 20 to 35 ms (ADR 37).
Delete the renewal when an entry that expires no longer shows in a create's p99.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from payments_ledger.access.queries import TenantAccess, UserAccess, find_tenant_accesses, find_user_accesses
from payments_ledger.access.tokens import EVERY_TENANT
from payments_ledger.commit.group_commit import GroupCommit, OpenTransaction
from payments_ledger.errors import TenantSuspended, TokenRevoked, TooBusy, UnknownTenant
from payments_ledger.postgres.database import Connection

# A disabled user, a revoked role, a suspended tenant or a changed policy counts after this time in every process.
# There is no grace beyond it: without PostgreSQL nothing could be paid anyway, and the response is 503.
STALE_SECONDS_MAX = 2.0
# What is still in use at this age is asked for again in the background: no request waits for what another needs, too.
RENEW_SECONDS = 1.5
# So long a renewal waits for others, to share their transaction.
COLLECT_SECONDS = 0.05
# Some 10 MB. The entries of those who called longest ago give way.
ENTRIES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Standing:
    """An enabled user, the tenant they belong to, whose policies bind them, and the tenant that they act for."""

    user: UserAccess
    home: TenantAccess
    tenant: TenantAccess


def standing_of(user: UserAccess | None, home: TenantAccess | None, tenant: TenantAccess | None) -> Standing:
    """What the database says of a caller; raises TokenRevoked, UnknownTenant or TenantSuspended."""
    if user is None or home is None:
        raise TokenRevoked
    if tenant is None:
        raise UnknownTenant
    if tenant.is_suspended and home.tenant_id != EVERY_TENANT:
        raise TenantSuspended
    return Standing(user, home, tenant)


@dataclass(frozen=True, slots=True)
class FindUser:
    """A look-up of one enabled user, in the tenant that they belong to."""

    tenant_id: str
    user_id: UUID


@dataclass(frozen=True, slots=True)
class FindTenant:
    """A look-up of one tenant, suspended or not."""

    tenant_id: str


class AccessCache:
    """Answers from memory, or by one query for all who ask for the same at the same time."""

    def __init__(self, transaction: OpenTransaction) -> None:
        # Look-ups of different keys that come together share a transaction, but wait for no payment's commit.
        self._lookups = GroupCommit(transaction)
        self._renewals = GroupCommit(transaction, collect_seconds=COLLECT_SECONDS)
        self._users = _Remembered(partial(_find_user, self._lookups), partial(_find_user, self._renewals))
        self._tenants = _Remembered(partial(_find_tenant, self._lookups), partial(_find_tenant, self._renewals))

    async def user(self, tenant_id: str, subject: str) -> UserAccess | None:
        """The user as of at most STALE_SECONDS_MAX ago; None if disabled or unknown. Raises Unavailable."""
        return await self._users.get((tenant_id, subject))

    async def tenant(self, tenant_id: str) -> TenantAccess | None:
        """The tenant as of at most STALE_SECONDS_MAX ago; None if there is none. Raises Unavailable."""
        return await self._tenants.get(tenant_id)

    def forget(self, tenant_id: str, subject: str | None = None) -> None:
        """Has what was just changed here looked up anew; other processes notice within the bound."""
        self._tenants.forget(tenant_id)
        if subject is not None:
            self._users.forget((tenant_id, subject))

    async def drain(self) -> None:
        await self._lookups.drain()
        await self._renewals.drain()


async def _find_user(lookups: GroupCommit, key: tuple[str, str]) -> UserAccess | None:
    tenant_id, subject = key
    try:
        user_id = UUID(subject)
    except ValueError:
        return None
    return await lookups.submit(find_users, FindUser(tenant_id, user_id))


async def _find_tenant(lookups: GroupCommit, tenant_id: str) -> TenantAccess | None:
    # No tenant's id has a comma; the list of a transaction's tenants is separated by them.
    if "," in tenant_id:
        return None
    return await lookups.submit(find_tenants, FindTenant(tenant_id))


async def find_users(conn: Connection, commands: Sequence[FindUser]) -> list[UserAccess | None]:
    """One outcome for each look-up, in their order; None for a user who is unknown or disabled."""
    users = await find_user_accesses(conn, {(command.tenant_id, command.user_id) for command in commands})
    return [users.get((command.tenant_id, command.user_id)) for command in commands]


async def find_tenants(conn: Connection, commands: Sequence[FindTenant]) -> list[TenantAccess | None]:
    """One outcome for each look-up, in their order; None for a tenant that does not exist."""
    tenants = await find_tenant_accesses(conn, {command.tenant_id for command in commands})
    return [tenants.get(command.tenant_id) for command in commands]


type Find[K, V] = Callable[[K], Awaitable[V | None]]


@dataclass(frozen=True, slots=True)
class _Entry[V]:
    """A value as of a moment of the clock, from before the question was asked."""

    value: V | None
    as_of: float


class _Remembered[K, V]:
    """Values by key, each at most STALE_SECONDS_MAX old."""

    def __init__(self, find: Find[K, V], renew: Find[K, V]) -> None:
        """`renew` is `find` when nobody waits for it."""
        self._find = find
        self._renew = renew
        self._entries: dict[K, _Entry[V]] = {}
        self._questions: dict[K, asyncio.Task[_Entry[V]]] = {}

    async def get(self, key: K) -> V | None:
        entry = self._entries.get(key)
        if entry is not None and (age := time.monotonic() - entry.as_of) < STALE_SECONDS_MAX:
            if age >= RENEW_SECONDS and key not in self._questions:
                self._ask(key, self._renew)
            return entry.value
        # One who hangs up does not cancel the question of the others.
        entry = await asyncio.shield(self._questions.get(key) or self._ask(key, self._find))
        if time.monotonic() - entry.as_of >= STALE_SECONDS_MAX:
            raise TooBusy
        return entry.value

    def forget(self, key: K) -> None:
        """What was found is forgotten, and what is being asked will not be kept."""
        self._entries.pop(key, None)
        self._questions.pop(key, None)

    def _ask(self, key: K, find: Find[K, V]) -> asyncio.Task[_Entry[V]]:
        question = self._questions[key] = asyncio.create_task(self._answer(key, find))
        # Everybody who asked may be gone; nobody need look at the failure then.
        question.add_done_callback(lambda task: task.cancelled() or task.exception())
        return question

    async def _answer(self, key: K, find: Find[K, V]) -> _Entry[V]:
        as_of = time.monotonic()
        this_question = asyncio.current_task()
        try:
            entry = _Entry(await find(key), as_of)
            if self._questions.get(key) is this_question:
                self._keep(key, entry)
            return entry
        finally:
            if self._questions.get(key) is this_question:
                del self._questions[key]

    def _keep(self, key: K, entry: _Entry[V]) -> None:
        # Taken out first, so that the order of the entries is that of their age.
        self._entries.pop(key, None)
        # What does not exist is not remembered: a new tenant's or user's first request finds it.
        if entry.value is None:
            return
        if len(self._entries) >= ENTRIES_MAX:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = entry
