"""Faults of processes and services under load: what was acknowledged is there afterwards, and it is there once."""

import os
import random
import time
from collections.abc import Sequence

import pytest

from tests.faults.faults import CATALOGUE, hold
from tests.faults.oracle import Verdict, judge
from tests.faults.soak import soak
from tests.faults.system import System
from tests.profiles import scaled

# A short soak; `scripts/soak.sh` has more time.
SOAK_SECONDS = scaled(10.0, nightly=20.0)

# How long sessions are ended one after the other; a minute is the long form.
TERMINATING_SECONDS = float(os.environ.get("FAULTS_TERMINATING_SECONDS", "5"))

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
    "a queue loses its binding": ["binding_removed"],
    "RabbitMQ is cut off": ["rabbitmq_black_holed", "rabbitmq_connections_reset", "confirmations_lost"],
    "metadata of messages is hostile": ["hostile_metadata_sent"] * 3,
    "Redis fails": ["redis_killed", "redis_flushed", "redis_slow"],
}
# These have tests of their own in the other files here.
ELSEWHERE = [
    "confirmed_messages_lost",
    "queue_deleted",
    "clocks_ten_minutes_off",
    "messages_repeated_and_reordered",
    "poison_sent",
    "processes_killed_at_failpoints",
    "processes_stopped_beyond_every_lease",
]


@pytest.mark.parametrize("group", GROUPS)
def test_nothing_is_lost_and_nothing_is_done_twice_when(system: System, seed: int, group: str) -> None:
    verdict = strike_under_load(system, GROUPS[group], random.Random(f"{seed} {group}"))
    assert verdict.ok, f"{verdict}\n{system.logs()}"
    assert verdict.settled > 0


def test_sessions_that_are_ended_on_and_on_lose_nothing_double_nothing_and_are_no_fault_of_ours(
    system: System, seed: int
) -> None:
    choice = random.Random(f"{seed} terminating")
    load = system.load(f"load-{choice.getrandbits(32):08x}", seed=choice.getrandbits(32), pause_seconds=0)
    load.start()
    ends = time.monotonic() + TERMINATING_SECONDS
    ended = 0
    while time.monotonic() < ends:
        ended += system.postgres.terminate_sessions()
        hold(choice, 0.02, 0.3)
    record = load.finish()
    verdict = judge(system, record)
    # Whatever is neither what was asked for nor a request to come again is among what is broken: a 500, too.
    assert verdict.ok, f"{verdict}\n{system.logs()}"
    assert verdict.settled > 0
    assert ended > TERMINATING_SECONDS
    assert record.answers["503"] > 0


def test_what_the_broker_has_confirmed_and_lost_is_published_again(reminding_system: System, seed: int) -> None:
    names = ["queue_deleted", "confirmed_messages_lost"]
    verdict = strike_under_load(reminding_system, names, random.Random(f"{seed} lost"))
    assert verdict.ok, f"{verdict}\n{reminding_system.logs()}"


def strike_under_load(system: System, names: Sequence[str], choice: random.Random) -> Verdict:
    load = system.load(f"load-{choice.getrandbits(32):08x}", seed=choice.getrandbits(32))
    load.start()
    for name in names:
        time.sleep(0.2)
        CATALOGUE[name].strike(system, choice)
        system.heal()
    return judge(system, load.finish())


def test_every_fault_strikes_here() -> None:
    assert {*ELSEWHERE, *(name for names in GROUPS.values() for name in names)} == CATALOGUE.keys()


def test_a_mixture_of_faults_loses_nothing_doubles_nothing_and_breaks_nothing(
    reminding_system: System, seed: int
) -> None:
    report = soak(reminding_system, seconds=SOAK_SECONDS, seed=seed, slow=False)
    assert not report.failed, f"{report}\n{report.failed}\n{reminding_system.logs()}"
    assert report.settled > 0
