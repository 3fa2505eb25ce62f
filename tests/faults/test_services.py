"""Faults of processes and services under load: what was acknowledged is there afterwards, and it is there once."""

import random
import time

import pytest

from tests.faults.faults import CATALOGUE
from tests.faults.oracle import judge
from tests.faults.system import System

# Those of a group strike one after the other, each on a system that was just healed; then the oracle is asked.
GROUPS = {
    "processes end": ["api_killed", "worker_killed", "everything_killed", "processes_asked_to_finish"],
    "processes stop for a moment": ["processes_stopped_for_a_moment", "postgres_mute", "redis_mute"],
    "commits are lost": ["reply_to_commit_lost", "commit_lost", "postgres_connections_cut_in_the_middle"],
    "PostgreSQL ends": ["postgres_killed", "postgres_restarted", "postgres_sessions_terminated"],
    "PostgreSQL is far away": ["postgres_far_away", "postgres_black_holed"],
    "the disk is full": ["postgres_disk_full"],
    "RabbitMQ ends": ["rabbitmq_killed", "rabbitmq_restarted"],
    "RabbitMQ is out of memory": ["rabbitmq_out_of_memory"],
    "a queue is deleted": ["queue_deleted"],
    "RabbitMQ is cut off": ["rabbitmq_black_holed", "rabbitmq_connections_reset", "confirmations_lost"],
    "Redis fails": ["redis_killed", "redis_flushed", "redis_slow"],
}


@pytest.mark.parametrize("group", GROUPS)
def test_nothing_is_lost_and_nothing_is_done_twice_when(system: System, seed: int, group: str) -> None:
    choice = random.Random(f"{seed} {group}")
    load = system.load(f"load-{choice.getrandbits(32):08x}", seed=choice.getrandbits(32))
    load.start()
    for name in GROUPS[group]:
        time.sleep(0.2)
        CATALOGUE[name](system, choice)
        system.heal()
    verdict = judge(system, load.finish())
    assert verdict.ok, f"{verdict}\n{system.logs()}"
    assert verdict.settled > 0


def test_every_fault_strikes_here() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(CATALOGUE)
