"""Idempotency keys: the first answer to a request is kept in its own transaction, and every repetition gets its bytes.

After the IETF draft "The Idempotency-Key HTTP Header Field" (draft-ietf-httpapi-idempotency-key-header). A key belongs
to a tenant, a principal and a route; "the same request" means the same parsed command.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from prometheus_client import Counter
from psycopg.rows import dict_row

from payments_ledger.batching import Command, UseCase
from payments_ledger.errors import IdempotencyKeyReused, Rejected
from payments_ledger.platform.failpoints import Place, failpoint
from payments_ledger.platform.postgres import Connection

KEYED_REQUESTS = Counter(
    "ledger_idempotency_total", "Requests with an Idempotency-Key; a batch that is run again counts again", ["outcome"]
)
_FRESH, _REPLAYED, _CONFLICT = map(KEYED_REQUESTS.labels, ("fresh", "replayed", "conflict"))

KEY_LENGTH_MAX = 255


@dataclass(frozen=True, slots=True)
class Scope:
    """One key and where it counts; `route` is the method and the path as requested."""

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


@dataclass(frozen=True, slots=True)
class Keyed[C: Command]:
    """A command with the key it was sent under, if any, and what tells it from another command (`fingerprint`)."""

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


def answer_once[C: Command, O](
    use_case: UseCase[C, O], render: Callable[[C, O], Answer]
) -> UseCase[Keyed[C], Answer | Rejected]:
    """The use case with answers instead of outcomes, each request carried out at most once for its key.

    A repetition gets the first answer; a different request under the same key is Rejected with IdempotencyKeyReused.
    Two transactions that race for one key are told apart by the primary key: the later is rolled back and run again.
    """

    async def carry_out(conn: Connection, requests: Sequence[Keyed[C]]) -> list[Answer | Rejected]:
        first = await _find_answers(conn, [request.scope for request in requests if request.scope])
        fresh: list[Keyed[C]] = []
        claimed: set[Scope] = set()
        for request in requests:
            if request.scope is None:
                fresh.append(request)
            elif request.scope not in first and request.scope not in claimed:
                claimed.add(request.scope)
                fresh.append(request)
        outcomes = await use_case(conn, [request.command for request in fresh]) if fresh else []
        answers = {
            id(request): render(request.command, outcome) for request, outcome in zip(fresh, outcomes, strict=True)
        }
        to_keep = [(request, answers[id(request)]) for request in fresh if request.scope]
        await failpoint(Place.ANSWERS_BEFORE_KEPT)
        await _keep_answers(conn, to_keep)
        _FRESH.inc(len(to_keep))
        first |= {request.scope: (request.fingerprint, answer) for request, answer in to_keep if request.scope}
        return [answers[id(request)] if id(request) in answers else _repeat(request, first) for request in requests]

    return carry_out


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


def _repeat[C: Command](request: Keyed[C], first: dict[Scope, tuple[bytes, Answer]]) -> Answer | Rejected:
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


async def _keep_answers[C: Command](conn: Connection, answered: Sequence[tuple[Keyed[C], Answer]]) -> None:
    """Keeps the answers; waits for a transaction that holds one of the keys, and collides if that kept its own."""
    if not answered:
        return
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
            [answer.status for _, answer in answered],
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
