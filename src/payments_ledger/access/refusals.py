"""Refusals for the audit log: noted in memory, written a moment later in groups, so that a flood slows no payment."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import psycopg
import structlog
from fastapi import Request
from prometheus_client import Counter

from payments_ledger.access.tokens import EVERY_TENANT, Identity
from payments_ledger.commit.audit import AuditRecord, Origin, record_refusals
from payments_ledger.commit.group_commit import OpenTransaction
from payments_ledger.errors import LedgerError, Unavailable
from payments_ledger.telemetry.tracing import current_trace
from payments_ledger.web.problems import status_of

log = structlog.get_logger(__name__)

REFUSALS = Counter("ledger_refusals_total", "Requests answered 401 or 403", ["code"])
REFUSALS_DROPPED = Counter("ledger_refusals_dropped_total", "Refusals that found no room on their way to the audit log")

# Some 2 MB at most. What comes while it is full is counted, not written.
QUEUE_SIZE_MAX = 2000
# Together 800 rows a second at most, on one connection: a flood neither takes the pool nor fills the disk in a day.
GROUP_SIZE_MAX = 200
GROUP_SECONDS = 0.25
# At shutdown what is still queued gets this long.
DRAIN_SECONDS_MAX = 3.0
# A path is as long as its sender likes.
TARGET_LENGTH_MAX = 200

ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a login said of itself before it was believed."""

    email: str
    tenant_id: str | None


class Refusals:
    """A bounded queue of refusals, and the task that writes it while there is something in it."""

    def __init__(self, transaction: OpenTransaction) -> None:
        self._transaction = transaction
        self._queue: deque[AuditRecord] = deque()
        self._writing: asyncio.Task[None] | None = None

    def note(self, request: Request, error: LedgerError) -> None:
        """Queues an audit row for a request that is refused by the error. Never waits, never fails."""
        REFUSALS.labels(error.code).inc()
        if len(self._queue) >= QUEUE_SIZE_MAX:
            REFUSALS_DROPPED.inc()
            return
        self._queue.append(_record(request, error))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def drain(self) -> None:
        """Writes what is queued, if that can be done in time."""
        if self._writing is not None and not self._writing.done():
            await asyncio.wait([self._writing], timeout=DRAIN_SECONDS_MAX)
            self._writing.cancel()

    async def _write(self) -> None:
        while self._queue:
            await asyncio.sleep(GROUP_SECONDS)
            group = list(islice(self._queue, GROUP_SIZE_MAX))
            try:
                await self._write_group(group)
            except (Unavailable, psycopg.OperationalError) as error:
                # They stay in the queue. An unclear COMMIT may write them twice, which is better than not at all.
                log.warning("refusals wait", reason=f"{type(error).__name__}: {error}")

    async def _write_group(self, group: Sequence[AuditRecord]) -> None:
        """Writes the group, which is the head of the queue; one that cannot be written is separated and dropped."""
        try:
            async with self._transaction({EVERY_TENANT} | {record.tenant_id for record in group}) as conn:
                await record_refusals(conn, group)
        except (Unavailable, psycopg.OperationalError):
            raise
        except Exception:
            if len(group) > 1:
                middle = len(group) // 2
                await self._write_group(group[:middle])
                await self._write_group(group[middle:])
                return
            log.exception("refusal lost")
            REFUSALS_DROPPED.inc()
        for _ in group:
            self._queue.popleft()


def _record(request: Request, error: LedgerError) -> AuditRecord:
    """For the audit log of the tenant that was verified, else of the token's own, else of the one a login claims."""
    identity: Identity | None = getattr(request.state, "identity", None)
    claimed: Claimed | None = getattr(request.state, "claimed", None)
    tenant_id: str | None = getattr(request.state, "tenant_id", None)
    detail: dict[str, str | int | None] = {"status": int(status_of(error)), "reason": error.detail}
    if identity:
        tenant_id = tenant_id or identity.tenant_id
        detail["tenant_named"] = _storable(request.headers.get("X-Tenant-Id", ""))
    elif claimed:
        tenant_id = claimed.tenant_id
        detail["email"] = claimed.email
    address = request.client.host if request.client else None
    return AuditRecord(
        # No tenant's id has a comma; the list of a transaction's tenants is separated by them.
        tenant_id=tenant_id if tenant_id and "," not in tenant_id else EVERY_TENANT,
        origin=Origin(identity.subject if identity else ANONYMOUS, address, current_trace()),
        action=f"refuse.{error.code}",
        target=_storable(f"{request.method} {request.url.path}"),
        detail=detail,
    )


def _storable(text: str) -> str:
    """At length enough to be recognized, without what PostgreSQL's text cannot hold."""
    return text[:TARGET_LENGTH_MAX].encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
