"""Idempotency keys: the first answer to a request is kept in its own transaction, and every repetition gets its bytes.

After the IETF draft "The Idempotency-Key HTTP Header Field" (draft-ietf-httpapi-idempotency-key-header). A key belongs
to a tenant, a principal and a route; "the same request" means the same parsed command.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prometheus_client import Counter
from psycopg.rows import dict_row

from payments_ledger.commit.group_commit import Command, UseCase
from payments_ledger.errors import IdempotencyKeyReused, Rejected
from payments_ledger.postgres.database import Connection
from payments_ledger.process.failpoints import Place, failpoint

KEYED_REQUESTS = Counter(
    "ledger_idempotency_total", "Requests with an Idempotency-Key; a batch that is run again counts again", ["outcome"]
)
_FRESH, _REPLAYED, _CONFLICT = map(KEYED_REQUESTS.labels, ("fresh", "replayed", "conflict"))

KEY_LENGTH_MAX = 255


@dataclass(frozen=True, slots=True)
class Scope:
    """One key and where it counts; `route` is the method and the path, with ids in their canonical spelling."""

    tenant_id: str
    principal: str
    route: str
    key: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it goes to the client, to the byte."""

    status: int
    body: bytes
    location: str | None = None
    replayed: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Operation[C: Command, O]:
    """What a route does: a use case, and how what it made of a command is written as an answer."""

    use_case: UseCase[C, O]
    render: Callable[[C, O], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Keyed[C: Command]:
    """A command for an operation, the key it was sent under, if any, and what tells it from others (`fingerprint`)."""

    operation: Operation[C, Any]
    command: C
    scope: Scope | None
    fingerprint: bytes
    lifetime_seconds: int

    @property
    def tenant_id(self) -> str:
        return self.command.tenant_id


def fingerprint(*parts: str) -> bytes:
    """A digest of what a request asks for, whatever its spelling was."""
    return hashlib.sha256(json.dumps(parts).encode()).digest()


async def answer_once(conn: Connection, requests: Sequence[Keyed[Any]]) -> list[Answer | Rejected]:
    """The answers to the requests, each carried out at most once for its key.

    A repetition gets the first answer; a different request under the same key is Rejected with IdempotencyKeyReused.
    Two transactions that race for one key are told apart by the primary key: the later is rolled back and run again.
    """
    first = await _find_answers(conn, [request.scope for request in requests if request.scope])
    fresh: dict[Operation[Any, Any], list[Keyed[Any]]] = {}
    claimed: set[Scope] = set()
    for request in requests:
        if request.scope in first or request.scope in claimed:
            continue
        if request.scope:
            claimed.add(request.scope)
        fresh.setdefault(request.operation, []).append(request)
    answers: dict[int, Answer] = {}
    for operation, group in fresh.items():
        outcomes = await operation.use_case(conn, [request.command for request in group])
        for request, outcome in zip(group, outcomes, strict=True):
            answers[id(request)] = await operation.render(request.command, outcome)
    to_keep = [(request, answers[id(request)]) for group in fresh.values() for request in group if request.scope]
    conn.defer(_insert_answers, to_keep)
    _FRESH.inc(len(to_keep))
    first |= {request.scope: (request.fingerprint, answer) for request, answer in to_keep if request.scope}
    return [answers[id(request)] if id(request) in answers else _repeat(request, first) for request in requests]


async def delete_expired_keys(conn: Connection, limit: int) -> int:
    """Deletes up to `limit` keys that ran out, of any tenant (as the relay's role); returns how many."""
    cursor = await conn.execute(
        """
        DELETE FROM idempotency_keys
        WHERE (tenant_id, principal, route, key) IN (
            SELECT tenant_id, principal, route, key
            FROM idempotency_keys
            WHERE expires_at < now()
            ORDER BY expires_at
            LIMIT %s)
        RETURNING 1
        """,
        [limit],
    )
    return len(await cursor.fetchall())


def _repeat(request: Keyed[Any], first: dict[Scope, tuple[bytes, Answer]]) -> Answer | Rejected:
    assert request.scope is not None
    its_fingerprint, answer = first[request.scope]
    if its_fingerprint != request.fingerprint:
        _CONFLICT.inc()
        return Rejected(IdempotencyKeyReused())
    _REPLAYED.inc()
    return replace(answer, replayed=True)


async def _find_answers(conn: Connection, scopes: Sequence[Scope]) -> dict[Scope, tuple[bytes, Answer]]:
    """The kept answers of those scopes that were used before and have not run out, with their fingerprints."""
    if not scopes:
        return {}
    cursor = conn.cursor(row_factory=dict_row, binary=True)
    await cursor.execute(
        """
        SELECT tenant_id, principal, route, key, fingerprint, status, location, body, expires_at > now() AS is_kept
        FROM idempotency_keys
        JOIN unnest(%s::text[], %s::text[], %s::text[], %s::text[]) AS wanted (tenant_id, principal, route, key)
            USING (tenant_id, principal, route, key)
        """,
        _columns(scopes),
    )
    return {
        Scope(row["tenant_id"], row["principal"], row["route"], row["key"]): (
            row["fingerprint"],
            Answer(row["status"], row["body"], row["location"]),
        )
        for row in await cursor.fetchall()
        if row["is_kept"]
    }


async def _insert_answers(conn: Connection, answered: Sequence[tuple[Keyed[Any], Answer]]) -> None:
    """Keeps the answers; waits for a transaction that holds one of the keys, and collides if that kept its own."""
    await failpoint(Place.ANSWERS_BEFORE_KEPT)
    scopes = [request.scope for request, _ in answered if request.scope]
    await conn.execute(
        """
        INSERT INTO idempotency_keys AS kept
            (tenant_id, principal, route, key, fingerprint, status, location, body, expires_at)
        SELECT tenant_id, principal, route, key, fingerprint, status, location, body,
               now() + make_interval(secs => lifetime_seconds)
        FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[],
                    %s::bytea[], %s::smallint[], %s::text[], %s::bytea[], %s::integer[])
             AS answered (tenant_id, principal, route, key, fingerprint, status, location, body, lifetime_seconds)
        ORDER BY tenant_id, principal, route, key
        ON CONFLICT (tenant_id, principal, route, key) DO UPDATE
            SET fingerprint = EXCLUDED.fingerprint, status = EXCLUDED.status, location = EXCLUDED.location,
                body = EXCLUDED.body, created_at = now(), expires_at = EXCLUDED.expires_at
            WHERE CASE WHEN kept.expires_at <= now() THEN true ELSE run_again('an answer was kept meanwhile') END
        """,
        [
            *_columns(scopes),
            [request.fingerprint for request, _ in answered],
            # An HTTPStatus is no plain number to ArrayDumper.
            [int(answer.status) for _, answer in answered],
            [answer.location for _, answer in answered],
            [answer.body for _, answer in answered],
            [request.lifetime_seconds for request, _ in answered],
        ],
    )


def _columns(scopes: Sequence[Scope]) -> list[list[str]]:
    return [
        [scope.tenant_id for scope in scopes],
        [scope.principal for scope in scopes],
        [scope.route for scope in scopes],
        [scope.key for scope in scopes],
    ]
