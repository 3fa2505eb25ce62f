"""The state of the engine at one moment: which services are up, what is pending, what was settled last."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
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
from payments_ledger.operations.queries import Settlement
from payments_ledger.operations.roles import auditing, relaying
from payments_ledger.payments.queries import StatusCount, count_payments
from payments_ledger.postgres.database import Connection, Database, driver_url
from payments_ledger.process.settings import MEMORY_URL, Settings
from payments_ledger.queues import consumed_queues
from payments_ledger.rabbitmq import connection as rabbitmq
from payments_ledger.redis import pipeline as redis
from payments_ledger.schema.migrate import newest_version

SETTLEMENTS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Service:
    """`version` as the service reports it; `fault` is why it is down, in a sentence, or None."""

    name: str
    version: str | None
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class QueueState:
    """How many messages are ready, delayed (to be retried) and dead, and how many consumers there are."""

    name: str
    ready: int
    delayed: int
    dead: int
    consumers: int


@dataclass(slots=True)
class Overview:
    """None stands for what is unknown, because a service is down or took too long."""

    services: list[Service] = field(default_factory=list)
    schema: str | None = None
    outbox: Backlog | None = None
    payments: list[StatusCount] | None = None
    settlements: list[Settlement] | None = None
    queues: list[QueueState] | None = None

    @property
    def faults(self) -> list[str]:
        """One sentence for each service that is down."""
        return [service.fault for service in self.services if service.fault]

    def to_object(self) -> dict[str, Any]:
        """For a program: {"ok", "faults", and the fields above}."""
        return {"ok": not self.faults, "faults": self.faults, **{name: getattr(self, name) for name in _FIELDS}}


_FIELDS = tuple(field.name for field in fields(Overview))


async def take_overview(owner: Database, settings: Settings) -> Overview:
    """Asks every service at the same time; what is down is a part of the overview, never an error."""
    overview = Overview()
    postgres, redis_, broker = await asyncio.gather(
        _ask_postgres(owner, settings.database_url, overview),
        _ask_redis(settings.redis_url),
        _ask_rabbitmq(settings, overview),
    )
    overview.services = [*postgres, redis_, *broker]
    return overview


async def why_unreachable(database_url: str) -> str | None:
    """What PostgreSQL or the network says to an attempt to connect; None if it succeeds."""
    try:
        connection = await psycopg.AsyncConnection.connect(driver_url(database_url), connect_timeout=3)
    except psycopg.Error as error:
        return " ".join(str(error).split())
    await connection.close()
    return None


async def _ask_postgres(owner: Database, url: str, overview: Overview) -> list[Service]:
    try:
        async with owner.transaction() as conn:
            version = f"{conn.info.server_version // 10_000}.{conn.info.server_version % 10_000}"
            overview.schema = await queries.find_schema_version(conn)
    except SchemaMissing:
        pass
    except (Unavailable, psycopg.Error) as error:
        return [Service("postgresql", None, f"Cannot reach PostgreSQL: {await why_unreachable(url) or error}")]
    postgres = Service("postgresql", version)
    newest = newest_version()
    # A newer one is what a migration leaves while the old version still serves.
    if overview.schema is None or overview.schema < newest:
        has = f"is {overview.schema}" if overview.schema else "is missing"
        return [postgres, Service("schema", overview.schema, f"The schema {has}, {newest} is needed: migrate.")]
    overview.outbox = await _if_in_time(relaying(owner), lambda conn: measure_backlog(conn, BACKLOG_COUNTED_MAX))
    overview.payments = await _if_in_time(relaying(owner), count_payments)
    # The amounts of settlements are shown.
    await _if_in_time(auditing(owner), load_currencies)
    overview.settlements = await _if_in_time(
        auditing(owner), lambda conn: queries.list_last_settlements(conn, SETTLEMENTS_SHOWN)
    )
    return [postgres, Service("schema", overview.schema)]


async def _if_in_time[T](
    transaction: AbstractAsyncContextManager[Connection], ask: Callable[[Connection], Awaitable[T]]
) -> T | None:
    try:
        async with transaction as conn:
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
        return Service("redis", None, f"Cannot reach Redis: {error}")
    finally:
        await client.aclose()
    return Service("redis", str(server["redis_version"]))


async def _ask_rabbitmq(settings: Settings, overview: Overview) -> list[Service]:
    """RabbitMQ, and the worker, which is up if each queue has a consumer."""
    if settings.rabbitmq_url.startswith(MEMORY_URL):
        return [Service("rabbitmq", "memory://")]
    try:
        async with rabbitmq.connected(settings.rabbitmq_url) as connection:
            version = rabbitmq.server_version(connection)
            overview.queues = [await _state_of(connection, queue) for queue in consumed_queues(settings)]
    except (BrokerUnavailable, AMQPError, OSError, TimeoutError) as error:
        return [Service("rabbitmq", None, f"Cannot reach RabbitMQ: {error}")]
    idle = [queue.name for queue in overview.queues if not queue.consumers]
    fault = f"No worker consumes {' and '.join(idle)}." if idle else None
    return [Service("rabbitmq", version), Service("worker", None, fault)]


async def _state_of(connection: AbstractConnection, queue: Queue) -> QueueState:
    ready, consumers = await _count(connection, queue.name)
    dead, _ = await _count(connection, queue.dead_letters)
    delays = [await _count(connection, queue.retry_name(seconds)) for seconds in LATER_SECONDS]
    return QueueState(queue.name, ready, sum(count for count, _ in delays), dead, consumers)


async def _count(connection: AbstractConnection, queue_name: str) -> tuple[int, int]:
    """Messages and consumers; none of either for a queue that was never declared."""
    # The broker closes a channel that declares a missing queue passively.
    channel = await connection.channel()
    try:
        declared = (await channel.declare_queue(queue_name, passive=True)).declaration_result
    except ChannelNotFoundEntity:
        return 0, 0
    await channel.close()
    return declared.message_count or 0, declared.consumer_count or 0
