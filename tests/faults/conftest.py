"""The system that the fault tests strike: one for all of a file, since a broker takes seconds to start."""

import os
from collections.abc import Iterator

import pytest

from tests.faults.system import System, running_system

REMIND_AFTER_SECONDS = 2


@pytest.fixture(scope="session")
def seed() -> int:
    """What every random choice begins with; FAULTS_SEED repeats a run."""
    return int(os.environ["FAULTS_SEED"])


@pytest.fixture(scope="module")
def shared_system(seed: int) -> Iterator[System]:
    with running_system(seed) as system:
        yield system


@pytest.fixture
def system(shared_system: System) -> Iterator[System]:
    """Healthy before the test, and healed after it."""
    shared_system.heal()
    yield shared_system
    shared_system.heal()


@pytest.fixture
def reminding_system(system: System) -> Iterator[System]:
    """One whose workers publish again what was lost."""
    usually = system.remind_after_seconds
    system.remind_after_seconds = REMIND_AFTER_SECONDS
    system.restart_workers()
    yield system
    system.remind_after_seconds = usually
    system.restart_workers()
