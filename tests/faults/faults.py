"""The catalogue of faults. Each strikes a running system for a moment, and makes sure that it did strike.

`System.heal` brings everything back afterwards.

Long because it is the list of the faults.
"""

import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import aio_pika

from payments_ledger.process.failpoints import Place
from payments_ledger.rabbitmq.connection import connected
from tests.faults.system import System, eventually
from tests.poison import hostile_metadata
from tests.raw_amqp import raw_connection

type Strike = Callable[[System, random.Random], None]


@dataclass(frozen=True, slots=True)
class Fault:
    """`needs` is what must be there for the fault to strike, besides its target."""

    name: str
    target: str
    needs: str | None
    strike: Strike

    def goes_with(self, other: "Fault") -> bool:
        """Whether both can strike at once: neither needs the other's victim."""
        targets = {self.target, other.target}
        # A process must be there for a fault of the database to strike, and the database for a process to start.
        return len(targets) == 2 and targets != {"processes", "postgres"} and not targets & {self.needs, other.needs}


CATALOGUE: Final[dict[str, Fault]] = {}
# Those that take half a minute: only the soak has that time.
SLOW: Final[set[str]] = set()

# Beyond the 30 seconds that PostgreSQL gives an idle transaction, and every heartbeat of RabbitMQ.
LEASE_SECONDS = 35.0


def fault(target: str, *, needs: str | None = None, slow: bool = False) -> Callable[[Strike], Strike]:
    """Adds a fault that strikes `target` to the catalogue."""

    def add(strike: Strike) -> Strike:
        CATALOGUE[strike.__name__] = Fault(strike.__name__, target, needs, strike)
        if slow:
            SLOW.add(strike.__name__)
        return strike

    return add


AT_APIS: Final = (Place.BATCH_BEFORE_COMMIT, Place.BATCH_AFTER_COMMIT, Place.ANSWERS_BEFORE_KEPT)
AT_WORKERS: Final = (
    Place.BATCH_BEFORE_COMMIT,
    Place.BATCH_AFTER_COMMIT,
    Place.RELAY_BEFORE_PUBLISH,
    Place.RELAY_AFTER_CONFIRM,
    Place.RELAY_AFTER_MARK,
    Place.CONSUMER_BEFORE_HANDLE,
    Place.CONSUMER_BEFORE_ACK,
    Place.CONSUMER_AFTER_ACK,
)


def hold(choice: random.Random, least: float, most: float) -> None:
    """Lets the load meet the fault for so many seconds."""
    time.sleep(choice.uniform(least, most))


# ---------------------------------------------------------------------------------------------------------------------
# Processes


@fault("processes")
def api_killed(system: System, choice: random.Random) -> None:
    system.apis[choice.randrange(2)].kill()
    hold(choice, 0.2, 0.5)


@fault("processes")
def worker_killed(system: System, choice: random.Random) -> None:
    system.workers[choice.randrange(2)].kill()
    hold(choice, 0.2, 0.5)


@fault("processes")
def everything_killed(system: System, choice: random.Random) -> None:
    for process in choice.sample(system.processes, 4):
        process.kill()


@fault("processes")
def processes_asked_to_finish(system: System, choice: random.Random) -> None:
    """SIGTERM under load: each finishes what is in hand."""
    for process in choice.sample(system.processes, 4):
        process.terminate()
        assert process.wait() in (0, -signal.SIGTERM)
        process.start()


@fault("processes")
def processes_stopped_for_a_moment(system: System, choice: random.Random) -> None:
    stopped = choice.sample(system.processes, 2)
    for process in stopped:
        process.pause()
    hold(choice, 0.5, 2)
    for process in stopped:
        process.resume()


@fault("processes", needs="rabbitmq")
def processes_killed_at_failpoints(system: System, choice: random.Random) -> None:
    places = [choice.choice(AT_APIS), choice.choice(AT_WORKERS)]
    struck = [choice.choice(system.apis), choice.choice(system.workers)]
    for process, place in zip(struck, places, strict=True):
        process.restart(failpoints=f"{place.value}=kill@{choice.randint(1, 12)}")
    for process, place in zip(struck, places, strict=True):
        eventually(lambda process=process: not process.is_alive, f"killed at {place.value}")  # type: ignore[misc]


@fault("processes")
def clocks_ten_minutes_off(system: System, choice: random.Random) -> None:
    struck = [choice.choice(system.apis), choice.choice(system.workers)]
    for process in struck:
        # An API process that is behind refuses tokens from the others: nobody pays there.
        process.restart(minutes_off=10)
    hold(choice, 3, 5)
    for process in struck:
        process.kill()


@fault("processes")
def confirmed_messages_lost(system: System, choice: random.Random) -> None:
    """A broker that lost its disk: what it had confirmed is gone, and nobody has settled it. Needs the reminder."""
    for worker in system.workers:
        worker.kill()
    with system.owner() as conn:

        def lost() -> int:
            return conn.execute(
                """
                UPDATE outbox_events SET published_at = now(), attempts = attempts + 1
                WHERE published_at IS NULL AND event_type = %s
                """,
                ["payment.authorized"],
            ).rowcount

        eventually(lambda: lost() > 0, "something to lose")


@fault("processes", slow=True)
def processes_stopped_beyond_every_lease(system: System, choice: random.Random) -> None:
    stopped = [choice.choice(system.apis), choice.choice(system.workers)]
    for process in stopped:
        process.pause()
    time.sleep(LEASE_SECONDS)
    for process in stopped:
        process.resume()


# ---------------------------------------------------------------------------------------------------------------------
# PostgreSQL


@fault("postgres")
def postgres_killed(system: System, choice: random.Random) -> None:
    system.postgres.kill()
    hold(choice, 0.2, 1)


@fault("postgres")
def postgres_restarted(system: System, choice: random.Random) -> None:
    system.postgres.stop()
    hold(choice, 0.1, 0.5)
    system.postgres.start()


@fault("postgres")
def postgres_sessions_terminated(system: System, choice: random.Random) -> None:
    for _ in range(3):
        eventually(system.postgres.terminate_sessions, "a session was ended", 15)
        hold(choice, 0.1, 0.3)


@fault("postgres")
def postgres_mute(system: System, choice: random.Random) -> None:
    system.postgres.pause()
    hold(choice, 0.5, 1.5)
    system.postgres.resume()


@fault("postgres")
def reply_to_commit_lost(system: System, choice: random.Random) -> None:
    for _ in range(4):
        before = system.to_postgres.losses
        system.to_postgres.lose_reply_to(b"COMMIT")
        eventually(lambda before=before: system.to_postgres.losses > before, "a COMMIT was struck", 15)  # type: ignore[misc]


@fault("postgres")
def commit_lost(system: System, choice: random.Random) -> None:
    for _ in range(4):
        before = system.to_postgres.losses
        system.to_postgres.lose_request(b"COMMIT")
        eventually(lambda before=before: system.to_postgres.losses > before, "a COMMIT was struck", 15)  # type: ignore[misc]


@fault("postgres")
def postgres_connections_cut_in_the_middle(system: System, choice: random.Random) -> None:
    before = system.to_postgres.losses
    system.to_postgres.cut_replies_after(choice.randint(50, 3000))
    hold(choice, 0.3, 0.8)
    eventually(lambda: system.to_postgres.losses > before, "a reply was cut", 15)


@fault("postgres")
def postgres_far_away(system: System, choice: random.Random) -> None:
    system.to_postgres.delay(choice.uniform(0.02, 0.2))
    hold(choice, 0.5, 1.5)


@fault("postgres")
def postgres_black_holed(system: System, choice: random.Random) -> None:
    system.to_postgres.black_hole()
    hold(choice, 1, 3)


@fault("postgres")
def postgres_disk_full(system: System, choice: random.Random) -> None:
    """Files cannot grow any more: tables, or the log, which then has the server restart itself again and again."""
    system.postgres.limit_file_size(choice.choice([64, 512]) * 1024)
    hold(choice, 0.5, 1.5)
    system.postgres.limit_file_size(None)


# ---------------------------------------------------------------------------------------------------------------------
# RabbitMQ


@fault("rabbitmq")
def rabbitmq_killed(system: System, choice: random.Random) -> None:
    system.rabbitmq.kill()
    hold(choice, 0.2, 1)


@fault("rabbitmq")
def rabbitmq_restarted(system: System, choice: random.Random) -> None:
    system.rabbitmq.stop()
    system.rabbitmq.start()


MEMORY_ALARM: Final = "memory resource limit alarm set"


@fault("rabbitmq")
def rabbitmq_out_of_memory(system: System, choice: random.Random) -> None:
    before = system.rabbitmq.log().count(MEMORY_ALARM)
    system.rabbitmq.control("set_vm_memory_high_watermark", "0.0000001")
    try:
        eventually(lambda: system.rabbitmq.log().count(MEMORY_ALARM) > before, "the alarm", 20)
        hold(choice, 1, 3)
    finally:
        system.rabbitmq.control("set_vm_memory_high_watermark", "0.4")


@fault("rabbitmq")
def queue_deleted(system: System, choice: random.Random) -> None:
    system.rabbitmq.control("delete_queue", "payments.events")
    hold(choice, 0.2, 0.5)


@fault("rabbitmq")
def binding_removed(system: System, choice: random.Random) -> None:
    """Nothing that is published reaches a queue."""
    system.background.run(_unbind(system.rabbitmq.url))
    hold(choice, 0.2, 0.5)


async def _unbind(url: str) -> None:
    async with connected(url) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue("payments.events", ensure=False)
        await queue.unbind("payments.x", "payment.authorized")


@fault("rabbitmq")
def rabbitmq_black_holed(system: System, choice: random.Random) -> None:
    system.to_rabbitmq.black_hole()
    hold(choice, 1, 3)


@fault("rabbitmq")
def rabbitmq_connections_reset(system: System, choice: random.Random) -> None:
    for _ in range(3):
        system.to_rabbitmq.reset()
        hold(choice, 0.1, 0.5)


@fault("rabbitmq")
def confirmations_lost(system: System, choice: random.Random) -> None:
    before = system.to_rabbitmq.losses
    system.to_rabbitmq.cut_replies_after(choice.randint(20, 600))
    eventually(lambda: system.to_rabbitmq.losses > before, "a reply was cut", 15)
    hold(choice, 0.2, 0.5)


# ---------------------------------------------------------------------------------------------------------------------
# Redis


@fault("redis")
def redis_killed(system: System, choice: random.Random) -> None:
    system.redis.kill()
    hold(choice, 0.2, 0.5)


@fault("redis")
def redis_flushed(system: System, choice: random.Random) -> None:
    system.redis.flush()
    hold(choice, 0.1, 0.3)


@fault("redis")
def redis_slow(system: System, choice: random.Random) -> None:
    system.to_redis.delay(choice.uniform(0.1, 0.6))
    hold(choice, 0.5, 1)


@fault("redis")
def redis_mute(system: System, choice: random.Random) -> None:
    system.redis.pause()
    hold(choice, 0.5, 1)
    system.redis.resume()


# ---------------------------------------------------------------------------------------------------------------------
# Messages

YESTERDAY: Final = datetime.now(UTC) - timedelta(days=1)
POISON: Final = [
    b"",
    b"not JSON",
    b"\xff\xfe\x00",
    b"[]",
    b'{"payment_intent_id": 1}',
    b"{" * 5000,
    b" " * (300 * 1024),
    (
        b'{"payment_intent_id": "01a20568-8a1a-72a7-9083-66e400122dd8", "tenant_id": "nobody", "status": "AUTHORIZED",'
        b' "amount": "1.00", "currency": "BRL", "customer_ref": "x", "order_id": null, "correlation_id": "c",'
        b' "occurred_at": "2026-01-01T00:00:00Z"}'
    ),
]


@fault("rabbitmq", needs="postgres")
def messages_repeated_and_reordered(system: System, choice: random.Random) -> None:
    """Whatever was ever published comes again, a day old."""
    with system.owner() as conn:
        rows = conn.execute(
            "SELECT event_type, payload::text FROM outbox_events ORDER BY id DESC LIMIT 2000"
        ).fetchall()
    messages = [(type_, body.encode()) for type_, body in choice.sample(rows, min(len(rows), 300))]
    system.background.run(publish(system.rabbitmq.url, messages))


@fault("rabbitmq")
def poison_sent(system: System, choice: random.Random) -> None:
    messages = [("payment.authorized", body) for body in choice.sample(POISON, len(POISON))]
    system.background.run(publish(system.rabbitmq.url, messages))


@fault("rabbitmq", needs="postgres")
def hostile_metadata_sent(system: System, choice: random.Random) -> None:
    """With bodies that nobody can read, and with those of the latest events, which come again so."""
    with system.owner() as conn:
        rows = conn.execute(
            "SELECT payload::text FROM outbox_events WHERE event_type = 'payment.authorized' ORDER BY id DESC LIMIT 20"
        ).fetchall()
    bodies = [b"not JSON", *(body.encode() for (body,) in rows)]
    frames = list(hostile_metadata("payments.events").values())
    with raw_connection(system.rabbitmq.url) as raw:
        for encoded in choice.sample(frames, len(frames)):
            for body in (b"not JSON", choice.choice(bodies)):
                assert raw.publish("payments.x", b"payment.authorized", encoded, body)


async def publish(url: str, messages: Sequence[tuple[str, bytes]]) -> None:
    """Sends them to everybody who hears payment events, by their type, as if they had been sent yesterday."""
    async with connected(url) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange("payments.x", ensure=False)
        for type_, body in messages:
            await exchange.publish(aio_pika.Message(body, type=type_, timestamp=YESTERDAY), type_, mandatory=False)
