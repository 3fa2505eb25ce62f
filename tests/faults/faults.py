"""The catalogue of faults. Each strikes a running system for a moment, and makes sure that it did strike.

`System.heal` brings everything back afterwards.
"""

import random
import time
from collections.abc import Callable
from typing import Final

from tests.faults.system import System, eventually

type Fault = Callable[[System, random.Random], None]

CATALOGUE: Final[dict[str, Fault]] = {}


def fault(strike: Fault) -> Fault:
    CATALOGUE[strike.__name__] = strike
    return strike


def hold(choice: random.Random, least: float, most: float) -> None:
    """Lets the load meet the fault for so many seconds."""
    time.sleep(choice.uniform(least, most))


# ---------------------------------------------------------------------------------------------------------------------
# Processes


@fault
def api_killed(system: System, choice: random.Random) -> None:
    system.apis[choice.randrange(2)].kill()
    hold(choice, 0.2, 0.5)


@fault
def worker_killed(system: System, choice: random.Random) -> None:
    system.workers[choice.randrange(2)].kill()
    hold(choice, 0.2, 0.5)


@fault
def everything_killed(system: System, choice: random.Random) -> None:
    for process in choice.sample(system.processes, 4):
        process.kill()


@fault
def processes_asked_to_finish(system: System, choice: random.Random) -> None:
    """SIGTERM under load: each finishes what is in hand."""
    for process in choice.sample(system.processes, 4):
        process.terminate()
        process.start()


@fault
def processes_stopped_for_a_moment(system: System, choice: random.Random) -> None:
    stopped = choice.sample(system.processes, 2)
    for process in stopped:
        process.pause()
    hold(choice, 0.5, 2)
    for process in stopped:
        process.resume()


# ---------------------------------------------------------------------------------------------------------------------
# PostgreSQL


@fault
def postgres_killed(system: System, choice: random.Random) -> None:
    system.postgres.kill()
    hold(choice, 0.2, 1)


@fault
def postgres_restarted(system: System, choice: random.Random) -> None:
    system.postgres.stop()
    hold(choice, 0.1, 0.5)
    system.postgres.start()


@fault
def postgres_sessions_terminated(system: System, choice: random.Random) -> None:
    for _ in range(3):
        assert system.postgres.terminate_sessions() > 0
        hold(choice, 0.1, 0.3)


@fault
def postgres_mute(system: System, choice: random.Random) -> None:
    system.postgres.pause()
    hold(choice, 0.5, 1.5)
    system.postgres.resume()


@fault
def reply_to_commit_lost(system: System, choice: random.Random) -> None:
    for _ in range(4):
        before = system.to_postgres.losses
        system.to_postgres.lose_reply_to(b"COMMIT")
        eventually(lambda before=before: system.to_postgres.losses > before, "a COMMIT was struck", 15)  # type: ignore[misc]


@fault
def commit_lost(system: System, choice: random.Random) -> None:
    for _ in range(4):
        before = system.to_postgres.losses
        system.to_postgres.lose_request(b"COMMIT")
        eventually(lambda before=before: system.to_postgres.losses > before, "a COMMIT was struck", 15)  # type: ignore[misc]


@fault
def postgres_connections_cut_in_the_middle(system: System, choice: random.Random) -> None:
    before = system.to_postgres.losses
    system.to_postgres.cut_replies_after(choice.randint(50, 3000))
    hold(choice, 0.3, 0.8)
    eventually(lambda: system.to_postgres.losses > before, "a reply was cut", 15)


@fault
def postgres_far_away(system: System, choice: random.Random) -> None:
    system.to_postgres.delay(choice.uniform(0.02, 0.2))
    hold(choice, 0.5, 1.5)


@fault
def postgres_black_holed(system: System, choice: random.Random) -> None:
    system.to_postgres.black_hole()
    hold(choice, 1, 3)


@fault
def postgres_disk_full(system: System, choice: random.Random) -> None:
    """Files cannot grow any more: tables, or the log, which then has the server restart itself again and again."""
    system.postgres.limit_file_size(choice.choice([64, 512]) * 1024)
    hold(choice, 0.5, 1.5)
    system.postgres.limit_file_size(None)


# ---------------------------------------------------------------------------------------------------------------------
# RabbitMQ


@fault
def rabbitmq_killed(system: System, choice: random.Random) -> None:
    system.rabbitmq.kill()
    hold(choice, 0.2, 1)


@fault
def rabbitmq_restarted(system: System, choice: random.Random) -> None:
    system.rabbitmq.stop()
    system.rabbitmq.start()


@fault
def rabbitmq_out_of_memory(system: System, choice: random.Random) -> None:
    system.rabbitmq.control("set_vm_memory_high_watermark", "0.0000001")
    try:
        hold(choice, 1, 3)
    finally:
        system.rabbitmq.control("set_vm_memory_high_watermark", "0.4")


@fault
def queue_deleted(system: System, choice: random.Random) -> None:
    system.rabbitmq.control("delete_queue", "payments.events")
    hold(choice, 0.2, 0.5)


@fault
def rabbitmq_black_holed(system: System, choice: random.Random) -> None:
    system.to_rabbitmq.black_hole()
    hold(choice, 1, 3)


@fault
def rabbitmq_connections_reset(system: System, choice: random.Random) -> None:
    for _ in range(3):
        system.to_rabbitmq.reset()
        hold(choice, 0.1, 0.5)


@fault
def confirmations_lost(system: System, choice: random.Random) -> None:
    before = system.to_rabbitmq.losses
    system.to_rabbitmq.cut_replies_after(choice.randint(20, 600))
    eventually(lambda: system.to_rabbitmq.losses > before, "a reply was cut", 15)
    hold(choice, 0.2, 0.5)


# ---------------------------------------------------------------------------------------------------------------------
# Redis


@fault
def redis_killed(system: System, choice: random.Random) -> None:
    system.redis.kill()
    hold(choice, 0.2, 0.5)


@fault
def redis_flushed(system: System, choice: random.Random) -> None:
    system.redis.flush()
    hold(choice, 0.1, 0.3)


@fault
def redis_slow(system: System, choice: random.Random) -> None:
    system.to_redis.delay(choice.uniform(0.1, 0.6))
    hold(choice, 0.5, 1)


@fault
def redis_mute(system: System, choice: random.Random) -> None:
    system.redis.pause()
    hold(choice, 0.5, 1)
    system.redis.resume()
