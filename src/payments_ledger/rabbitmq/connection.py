"""Connections to RabbitMQ: opened and closed within a limit, and asked whether the broker is there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import AMQPError

from payments_ledger.messaging.messages import BrokerUnavailable
from payments_ledger.rabbitmq import lenient_decoding
from payments_ledger.rabbitmq.frames_together import FrameBatchingConnection

lenient_decoding.install()

log = structlog.get_logger(__name__)

# aio-pika waits for ever while the broker blocks publishers (memory or disk alarm), so every call has its own limit.
RESPONSE_SECONDS_MAX = 5.0

# What aio-pika raises when a connection is refused, lost or silent.
UNREACHABLE = (AMQPError, ConnectionError, OSError, TimeoutError, asyncio.InvalidStateError, RuntimeError)


async def connect(url: str) -> AbstractConnection:
    """Opens a connection; raises one of UNREACHABLE."""
    try:
        return await aio_pika.connect(
            url,
            timeout=RESPONSE_SECONDS_MAX,
            client_properties={"product": "payments-ledger"},
            connection_class=FrameBatchingConnection,
        )
    except StopAsyncIteration as error:
        # What aiormq says of a broker that accepts the connection and has closed it before the first read.
        raise ConnectionResetError("The broker closed the connection at once.") from error


async def close(connection: AbstractConnection | AbstractChannel | None) -> None:
    """Closes it if it is open, within RESPONSE_SECONDS_MAX; never raises over a connection that was lost."""
    if connection is None or connection.is_closed:
        return
    try:
        async with asyncio.timeout(RESPONSE_SECONDS_MAX):
            await connection.close()
    except UNREACHABLE as error:
        log.debug("connection closed uncleanly", reason=str(error))


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[AbstractConnection]:
    """A connection for as long as the block lasts; raises BrokerUnavailable."""
    try:
        connection = await connect(url)
    except UNREACHABLE as error:
        raise unavailable(error) from error
    try:
        yield connection
    finally:
        await close(connection)


def unavailable(error: BaseException) -> BrokerUnavailable:
    """The same failure in the words of `messaging`."""
    return BrokerUnavailable(f"{type(error).__name__}: {error}")


async def is_up(url: str) -> bool:
    """Whether a connection can be opened now."""
    try:
        await close(await connect(url))
    except UNREACHABLE:
        return False
    return True


def server_version(connection: AbstractConnection) -> str | None:
    """The version that the broker announced when the connection was opened."""
    transport = connection.transport
    version = transport.connection.server_properties.get("version") if transport else None
    return str(version) if version else None
