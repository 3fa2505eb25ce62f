"""The state of everything at one moment: which services are there, what waits, what was settled last."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, fields
from typing import Any

import psycopg
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import AMQPError, ChannelNotFoundEntity
from redis.exceptions import RedisError

from payments_ledger.delivery.queries import BACKLOG_COUNTED_MAX, Backlog, measure_backlog
from payments_ledger.errors import SchemaMissing, Unavailable
from payments_ledger.ledger.currencies import load_currencies
from payments_ledger.messaging.handling import LATER_SECONDS
from payments_ledger.messaging.messages import BrokerUnavailable
from payments_ledger.messaging.subscription import Queue
from payments_ledger.operations import queries
from payments_ledger.operations.connections import opened, why_unreachable
from payments_ledger.operations.queries import Settlement
from payments_ledger.payments.queries import StatusCount, count_payments
from payments_ledger.postgres.database import Connection, Database
from payments_ledger.postgres.roles import auditor_role, relay_role
from payments_ledger.process.settings import MEMORY_URL, Settings
from payments_ledger.queues import consumed_queues
from payments_ledger.rabbitmq import connection as rabbitmq
from payments_ledger.redis import pipeline as redis
from payments_ledger.schema.migrate import newest_version

SETTLEMENTS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Service:
    """`version` as the service says it; `fault` is why it is down, in a sentence, or None."""

    name: str
    version: str | None
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class QueueState:
    """Messages that are ready, that wait in its delay queues, and that are dead; how many consumers it has."""

    name: str
    ready: int
    delayed: int
    dead: int
    consumers: int


@dataclass(slots=True)
class Status:
    """What could not be found out, because a service is down or took too long, is None."""

    services: list[Service] = field(default_factory=list)
    schema: str | None = None
    outbox: Backlog | None = None
    payments: list[StatusCount] | None = None
    settlements: list[Settlement] | None = None
    queues: list[QueueState] | None = None

    @property
    def faults(self) -> list[str]:
        """Why not all is well, one sentence for each service that is down."""
        return [service.fault for service in self.services if service.fault]

    def to_object(self) -> dict[str, Any]:
        """For a program: {"ok", "faults", and the fields above}."""
        return {"ok": not self.faults, "faults": self.faults, **{name: getattr(self, name) for name in _FIELDS}}


_FIELDS = tuple(field.name for field in fields(Status))


async def find_status(settings: Settings) -> Status:
    """Asks every service at the same time; what is down is a part of the answer, never an error."""
    status = Status()
    postgres, redis_, broker = await asyncio.gather(
        _ask_postgres(settings, status), _ask_redis(settings.redis_url), _ask_rabbitmq(settings, status)
    )
    status.services = [*postgres, redis_, *broker]
    return status


async def _ask_postgres(settings: Settings, status: Status) -> list[Service]:
    url = settings.database_url
    async with opened(url, role=None) as owner:
        try:
            async with owner.transaction() as conn:
                version = f"{conn.info.server_version // 10_000}.{conn.info.server_version % 10_000}"
                status.schema = await queries.find_schema_version(conn)
        except SchemaMissing:
            pass
        except (Unavailable, psycopg.Error) as error:
            return [Service("postgresql", None, f"PostgreSQL does not serve: {await why_unreachable(url) or error}")]
    postgres = Service("postgresql", version)
    newest = newest_version()
    # A newer one is what a migration leaves while the old version still serves.
    if status.schema is None or status.schema < newest:
        has = f"is {status.schema}" if status.schema else "is missing"
        return [postgres, Service("schema", status.schema, f"The schema {has}, {newest} is needed: migrate.")]
    async with opened(url, role=relay_role(url)) as relay:
        status.outbox = await _within_time(relay, lambda conn: measure_backlog(conn, BACKLOG_COUNTED_MAX))
        status.payments = await _within_time(relay, count_payments)
    async with opened(url, role=auditor_role(url)) as auditor:
        # Their amounts are shown.
        await _within_time(auditor, load_currencies)
        status.settlements = await _within_time(
            auditor, lambda conn: queries.list_last_settlements(conn, SETTLEMENTS_SHOWN)
        )
    return [postgres, Service("schema", status.schema)]


async def _within_time[T](database: Database, ask: Callable[[Connection], Awaitable[T]]) -> T | None:
    try:
        async with database.transaction() as conn:
            return await ask(conn)
    except Unavailable:
        return None


async def _ask_redis(url: str) -> Service:
    if url.startswith(MEMORY_URL):
        return Service("redis", "memory://")
    client = redis.connect(url)
    try:
        server = await client.info("server")
    except (RedisError, OSError) as error:
        return Service("redis", None, f"Redis is away: {error}")
    finally:
        await client.aclose()
    return Service("redis", str(server["redis_version"]))


async def _ask_rabbitmq(settings: Settings, status: Status) -> list[Service]:
    """RabbitMQ, and the worker, which is there if somebody consumes."""
    if settings.rabbitmq_url.startswith(MEMORY_URL):
        return [Service("rabbitmq", "memory://")]
    try:
        async with rabbitmq.connected(settings.rabbitmq_url) as connection:
            version = rabbitmq.server_version(connection)
            status.queues = [await _look_at(connection, queue) for queue in consumed_queues(settings)]
    except (BrokerUnavailable, AMQPError, OSError, TimeoutError) as error:
        return [Service("rabbitmq", None, f"RabbitMQ is away: {error}")]
    idle = [queue.name for queue in status.queues if not queue.consumers]
    fault = f"No worker consumes {' and '.join(idle)}." if idle else None
    return [Service("rabbitmq", version), Service("worker", None, fault)]


async def _look_at(connection: AbstractConnection, queue: Queue) -> QueueState:
    ready, consumers = await _count(connection, queue.name)
    dead, _ = await _count(connection, queue.dead_letters)
    delays = [await _count(connection, queue.retry_name(seconds)) for seconds in LATER_SECONDS]
    return QueueState(queue.name, ready, sum(count for count, _ in delays), dead, consumers)


async def _count(connection: AbstractConnection, queue_name: str) -> tuple[int, int]:
    """Messages and consumers; none of either in a queue that nobody declared yet."""
    # The broker closes a channel that asks for a queue which is not there.
    channel = await connection.channel()
    try:
        declared = (await channel.declare_queue(queue_name, passive=True)).declaration_result
    except ChannelNotFoundEntity:
        return 0, 0
    await channel.close()
    return declared.message_count or 0, declared.consumer_count or 0
