"""A process is killed at each place between two steps that must not be lost or done twice."""

import random
import signal

import pytest

from payments_ledger.platform.failpoints import Place
from tests.faults.oracle import judge
from tests.faults.system import System, eventually

# Each API process and each worker has a place of its own in a round, and all four die in it.
ROUNDS = [
    (
        (Place.BATCH_BEFORE_COMMIT, Place.BATCH_AFTER_COMMIT),
        (Place.RELAY_BEFORE_PUBLISH, Place.CONSUMER_BEFORE_HANDLE),
    ),
    (
        (Place.ANSWERS_BEFORE_KEPT, Place.BATCH_AFTER_COMMIT),
        (Place.RELAY_AFTER_CONFIRM, Place.CONSUMER_BEFORE_ACK),
    ),
    (
        (Place.BATCH_BEFORE_COMMIT, Place.ANSWERS_BEFORE_KEPT),
        (Place.BATCH_BEFORE_COMMIT, Place.BATCH_AFTER_COMMIT),
    ),
    (
        (Place.BATCH_AFTER_COMMIT, Place.BATCH_AFTER_COMMIT),
        (Place.RELAY_AFTER_MARK, Place.CONSUMER_AFTER_ACK),
    ),
]


@pytest.mark.parametrize(("of_apis", "of_workers"), ROUNDS)
def test_a_process_that_is_killed_at_a_failpoint_loses_and_repeats_nothing(
    system: System, seed: int, of_apis: tuple[Place, Place], of_workers: tuple[Place, Place]
) -> None:
    places = [*of_apis, *of_workers]
    choice = random.Random(f"{seed} {places}")
    for process, place in zip(system.processes, places, strict=True):
        process.restart(failpoints=f"{place.value}=kill@{choice.randint(1, 4)}")
    load = system.load(f"load-{choice.getrandbits(32):08x}", seed=choice.getrandbits(32))
    load.start()
    for process, place in zip(system.processes, places, strict=True):
        eventually(lambda process=process: not process.is_alive, f"killed at {place.value}")  # type: ignore[misc]
        assert process.wait() == -signal.SIGKILL
        if process in system.apis:
            # The workers need something to do before they reach their places.
            process.start()
    system.heal()
    verdict = judge(system, load.finish())
    assert verdict.ok, f"{verdict}\n{system.logs()}"
    assert verdict.settled > 0


def test_errors_that_nobody_foresaw_hold_up_nothing_for_ever(system: System, seed: int) -> None:
    """In the relay, and around the acknowledgement of a message: each tries again, and the worker lives on."""
    choice = random.Random(f"{seed} errors")
    for worker, place in zip(system.workers, (Place.RELAY_AFTER_CONFIRM, Place.CONSUMER_BEFORE_ACK), strict=True):
        worker.restart(failpoints=f"{place.value}=error@{choice.randint(1, 5)}")
    load = system.load(f"load-{choice.getrandbits(32):08x}", seed=choice.getrandbits(32))
    load.start()
    for worker in system.workers:
        eventually(lambda worker=worker: "FailpointStruck" in worker.log(), "the error was raised")  # type: ignore[misc]
    verdict = judge(system, load.finish())
    assert verdict.ok, f"{verdict}\n{system.logs()}"
    assert all(worker.is_alive for worker in system.workers)
