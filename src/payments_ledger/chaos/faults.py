"""Fault injection: a tenant's requests, messages and events fail or take long, as an operator has set it.

Settings live in Redis. Every process reads all of them twice a second, so that a request never does. A fault never
affects another tenant, and there are none while Redis is unavailable, or where CHAOS_ENABLED is off.
"""

import asyncio
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Protocol

from prometheus_client import Counter
from redis.asyncio import Redis
from redis.exceptions import RedisError

from payments_ledger.errors import ChaosInjected, ChaosNotEnabled, ChaosStoreUnavailable
from payments_ledger.messaging.messages import Handler, Message
from payments_ledger.messaging.publisher import Delivery, Fate, Publisher
from payments_ledger.process.periodic import repeat
from payments_ledger.process.settings import MEMORY_URL, Settings
from payments_ledger.redis import pipeline as redis

CHAOS_INJECTED = Counter("ledger_chaos_injected_total", "Injected faults", ["place", "kind"])

# With the second that Redis may take to reply, a change takes effect in every process within two.
REFRESH_SECONDS = 0.5
# Beyond what a client waits (5 s), latency shows nothing that a failure would not.
LATENCY_MS_MAX = 5000
# One hash with a field for each tenant.
REDIS_KEY = "payments-ledger:chaos"


@dataclass(frozen=True, slots=True)
class Faults:
    """What a tenant's requests meet: `fail_percent` of them fail, all take `latency_ms` longer."""

    enabled: bool = False
    fail_percent: int = 0
    latency_ms: int = 0


NO_FAULTS = Faults()


class ChaosStore(Protocol):
    """Where the faults of all tenants are kept between the processes."""

    async def read(self) -> Mapping[str, Faults]:
        """The faults of every tenant; raises ChaosStoreUnavailable."""
        ...

    async def write(self, tenant_id: str, faults: Faults) -> None:
        """Raises ChaosStoreUnavailable."""
        ...

    async def close(self) -> None: ...


class RedisChaosStore:
    """Shared by all processes. Faults that are off take no room."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def read(self) -> Mapping[str, Faults]:
        try:
            fields = await self._client.hgetall(REDIS_KEY)
        except (RedisError, OSError) as error:
            raise ChaosStoreUnavailable from error
        return {_text(tenant_id): Faults(**json.loads(faults)) for tenant_id, faults in fields.items()}

    async def write(self, tenant_id: str, faults: Faults) -> None:
        try:
            if faults.enabled:
                await self._client.hset(REDIS_KEY, tenant_id, json.dumps(asdict(faults)))
            else:
                await self._client.hdel(REDIS_KEY, tenant_id)
        except (RedisError, OSError) as error:
            raise ChaosStoreUnavailable from error

    async def close(self) -> None:
        await self._client.aclose()


class MemoryChaosStore:
    """Shared by the API and the worker of one process, as `payments-ledger dev` runs them."""

    _faults: dict[str, Faults] = {}  # noqa: RUF012  # shared on purpose

    async def read(self) -> Mapping[str, Faults]:
        return dict(self._faults)

    async def write(self, tenant_id: str, faults: Faults) -> None:
        if faults.enabled:
            self._faults[tenant_id] = faults
        else:
            self._faults.pop(tenant_id, None)

    async def close(self) -> None:
        """Nothing is held open."""


class Chaos:
    """The faults as this process knows them. Without a store there are none, and none can be set."""

    def __init__(self, store: ChaosStore | None) -> None:
        self._store = store
        self._faults: Mapping[str, Faults] = {}

    async def run(self) -> None:
        """Keeps up with the store until cancelled."""
        if self._store is not None:
            await repeat("chaos", partial(self._refresh, self._store), seconds=REFRESH_SECONDS)

    async def _refresh(self, store: ChaosStore) -> None:
        try:
            self._faults = await store.read()
        except Exception:
            # What cannot be read is not injected.
            self._faults = {}
            raise

    async def close(self) -> None:
        if self._store is not None:
            await self._store.close()

    async def faults_of(self, tenant_id: str) -> Faults:
        """What is set for the tenant, from the store itself; raises ChaosStoreUnavailable."""
        return NO_FAULTS if self._store is None else (await self._store.read()).get(tenant_id, NO_FAULTS)

    async def set_faults(self, tenant_id: str, faults: Faults) -> None:
        """Raises ChaosNotEnabled or ChaosStoreUnavailable."""
        if self._store is None:
            raise ChaosNotEnabled
        await self._store.write(tenant_id, faults)
        self._faults = {**self._faults, tenant_id: faults}

    async def disturb(self, tenant_id: str, place: str) -> None:
        """Takes as long as the tenant's faults say, then raises ChaosInjected or returns."""
        faults = self._faults.get(tenant_id)
        if faults is None or not faults.enabled:
            return
        if faults.latency_ms:
            CHAOS_INJECTED.labels(place, "latency").inc()
            await asyncio.sleep(faults.latency_ms / 1000)
        if self.fails(tenant_id, place):
            raise ChaosInjected

    def fails(self, tenant_id: str, place: str) -> bool:
        """Whether this one time is to fail."""
        faults = self._faults.get(tenant_id)
        if faults is None or not faults.enabled or random.random() * 100 >= faults.fail_percent:  # noqa: S311
            return False
        CHAOS_INJECTED.labels(place, "failure").inc()
        return True

    def disturbing(self, handler: Handler) -> Handler:
        """The handler, failing in passing for the tenants that have faults."""

        async def handle(message: Message) -> None:
            await self.disturb(message.headers.get("X-Tenant-Id", ""), "handler")
            await handler(message)

        return handle


class DisturbedPublisher:
    """A publisher that loses messages of the tenants that have faults, as a broker does that becomes unavailable."""

    def __init__(self, publisher: Publisher, chaos: Chaos) -> None:
        self._publisher = publisher
        self._chaos = chaos

    async def publish(self, messages: Sequence[Message]) -> list[Delivery]:
        lost = {
            message.id for message in messages if self._chaos.fails(message.headers.get("X-Tenant-Id", ""), "publish")
        }
        sent = [message for message in messages if message.id not in lost]
        deliveries = iter(await self._publisher.publish(sent) if sent else [])
        return [
            Delivery(Fate.FAILED, ChaosInjected.code) if message.id in lost else next(deliveries)
            for message in messages
        ]

    async def close(self) -> None:
        await self._publisher.close()


def _text(reply: bytes | str) -> str:
    return reply if isinstance(reply, str) else reply.decode()


def chaos_of(settings: Settings) -> Chaos:
    """The URL's scheme picks the store; there is none unless CHAOS_ENABLED."""
    if not settings.chaos_enabled:
        return Chaos(None)
    if settings.redis_url.startswith(MEMORY_URL):
        return Chaos(MemoryChaosStore())
    return Chaos(RedisChaosStore(redis.connect(settings.redis_url)))
