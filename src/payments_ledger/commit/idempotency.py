"""Idempotency keys: the first response is stored in its command's transaction, and every repetition gets its bytes.

After the IETF draft "The Idempotency-Key HTTP Header Field" (draft-ietf-httpapi-idempotency-key-header). A key belongs
to a tenant, a principal and a route; "the same request" means the same parsed command.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
class StoredResponse:
    """A response as it goes to the client, to the byte."""

    status: int
    body: bytes
    location: str | None = None
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Key:
    """An Idempotency-Key and where it counts; `route` is the method and the path, with ids in their canonical spelling.

    Two are equal if they count as the same key; the `fingerprint` then tells whether the same was asked for under it.
    """

    tenant_id: str
    principal: str
    route: str
    key: str
    fingerprint: bytes = field(compare=False)
    lifetime_seconds: int = field(compare=False)

    @property
    def place(self) -> tuple[str, str, str, str]:
        """The columns of the primary key."""
        return self.tenant_id, self.principal, self.route, self.key


@dataclass(frozen=True, slots=True, eq=False)
class Keyed[C: Command, O]:
    """A command and the key that it was sent under, if any; the use case and how its outcome becomes a response."""

    use_case: UseCase[C, O]
    render: Callable[[C, O], Awaitable[StoredResponse]]
    command: C
    key: Key | None

    @property
    def tenant_id(self) -> str:
        return self.command.tenant_id


def fingerprint(*parts: str) -> bytes:
    """A digest of what a request asks for, whatever its spelling was."""
    return hashlib.sha256(json.dumps(parts).encode()).digest()


async def respond_once(conn: Connection, requests: Sequence[Keyed[Any, Any]]) -> list[StoredResponse | Rejected]:
    """The responses to the requests, each carried out at most once for its key.

    A repetition gets the first response; a different request under the same key is Rejected with IdempotencyKeyReused.
    Of two transactions that race for one key the primary key stops the later, which is rolled back and run again.

    One use case for all requests of a batch, whatever they ask for: their keys are looked up once, and their responses
    stored by one statement. With one for each operation a batch took fourteen statements in place of ten (ADR 37).
    """
    first = await _find_responses(conn, [request.key for request in requests if request.key])
    fresh: dict[UseCase[Any, Any], list[Keyed[Any, Any]]] = {}
    claimed: set[Key] = set()
    for request in requests:
        if request.key in first or request.key in claimed:
            continue
        if request.key:
            claimed.add(request.key)
        fresh.setdefault(request.use_case, []).append(request)
    responses: dict[Keyed[Any, Any], StoredResponse] = {}
    for use_case, group in fresh.items():
        outcomes = await use_case(conn, [request.command for request in group])
        for request, outcome in zip(group, outcomes, strict=True):
            responses[request] = await request.render(request.command, outcome)
    to_store = [(request.key, responses[request]) for group in fresh.values() for request in group if request.key]
    conn.defer(_insert_responses, to_store)
    _FRESH.inc(len(to_store))
    first |= {key: (key.fingerprint, response) for key, response in to_store}
    return [responses.get(request) or _repeat(request.key, first) for request in requests]


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


def _repeat(key: Key | None, first: Mapping[Key, tuple[bytes, StoredResponse]]) -> StoredResponse | Rejected:
    assert key is not None
    its_fingerprint, response = first[key]
    if its_fingerprint != key.fingerprint:
        _CONFLICT.inc()
        return Rejected(IdempotencyKeyReused())
    _REPLAYED.inc()
    return replace(response, replayed=True)


async def _find_responses(conn: Connection, keys: Sequence[Key]) -> dict[Key, tuple[bytes, StoredResponse]]:
    """The stored responses of those keys that were used before and have not expired, with their fingerprints."""
    if not keys:
        return {}
    cursor = conn.cursor(row_factory=dict_row, binary=True)
    await cursor.execute(
        """
        SELECT tenant_id, principal, route, key, fingerprint, status, location, body, expires_at > now() AS is_kept
        FROM idempotency_keys
        JOIN unnest(%s::text[], %s::text[], %s::text[], %s::text[]) AS wanted (tenant_id, principal, route, key)
            USING (tenant_id, principal, route, key)
        """,
        _columns(keys),
    )
    stored = {
        (row["tenant_id"], row["principal"], row["route"], row["key"]): (
            row["fingerprint"],
            StoredResponse(row["status"], row["body"], row["location"]),
        )
        for row in await cursor.fetchall()
        if row["is_kept"]
    }
    return {key: response for key in keys if (response := stored.get(key.place))}


async def _insert_responses(conn: Connection, responses: Sequence[tuple[Key, StoredResponse]]) -> None:
    """Stores the responses; waits for a transaction that holds one of the keys, and collides if that stored its own."""
    await failpoint(Place.ANSWERS_BEFORE_KEPT)
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
            *_columns([key for key, _ in responses]),
            [key.fingerprint for key, _ in responses],
            # An HTTPStatus is no plain number to ArrayDumper.
            [int(response.status) for _, response in responses],
            [response.location for _, response in responses],
            [response.body for _, response in responses],
            [key.lifetime_seconds for key, _ in responses],
        ],
    )


def _columns(keys: Sequence[Key]) -> list[list[str]]:
    return [
        [key.tenant_id for key in keys],
        [key.principal for key in keys],
        [key.route for key in keys],
        [key.key for key in keys],
    ]
