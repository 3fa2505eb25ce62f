"""A short soak: faults in random order, some two at once. `scripts/soak.sh` has more time."""

from tests.faults.soak import soak
from tests.faults.system import System

SECONDS = 20.0


def test_a_mixture_of_faults_loses_nothing_doubles_nothing_and_breaks_nothing(
    reminding_system: System, seed: int
) -> None:
    report = soak(reminding_system, seconds=SECONDS, seed=seed, slow=False)
    assert not report.failed, f"{report}\n{report.failed}\n{reminding_system.logs()}"
    assert report.settled > 0
