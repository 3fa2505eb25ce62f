"""The system that the fault tests strike: one for all of them, since a broker takes seconds to start."""

import os
from collections.abc import Iterator

import pytest

from tests.faults.system import System, running_system


@pytest.fixture(scope="session")
def seed() -> int:
    """What every random choice begins with; FAULTS_SEED repeats a run."""
    return int(os.environ["FAULTS_SEED"])


@pytest.fixture(scope="session")
def shared_system(seed: int) -> Iterator[System]:
    with running_system(seed) as system:
        yield system


@pytest.fixture
def system(shared_system: System) -> Iterator[System]:
    """Healthy before the test, and healed after it."""
    shared_system.heal()
    yield shared_system
    shared_system.heal()
