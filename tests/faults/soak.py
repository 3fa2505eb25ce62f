"""The soak: every fault of the catalogue, in random order and sometimes two at once, for as long as one likes.

scripts/soak.sh --minutes 10 --seed 1
"""

import argparse
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests.faults.faults import CATALOGUE, SLOW, Fault
from tests.faults.oracle import Verdict, judge
from tests.faults.system import System, running_system

# So often everything is healed and the oracle asked.
ROUND_SECONDS = 45.0
# What was lost in a queue is published again after this time.
REMIND_AFTER_SECONDS = 5
REPLAYS_OF_A_ROUND = 150


@dataclass
class Report:
    """What was done to the system, and what became of what it had promised."""

    faults: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    settled: int = 0
    failed: list[Verdict] = field(default_factory=list)

    def add(self, verdict: Verdict) -> None:
        self.acknowledged += verdict.acknowledged
        self.settled += verdict.settled
        if not verdict.ok:
            self.failed.append(verdict)

    def __str__(self) -> str:
        lost = sum(len(verdict.lost) for verdict in self.failed)
        duplicated = sum(len(verdict.duplicated) for verdict in self.failed)
        broken = sum(len(verdict.broken) for verdict in self.failed)
        return (
            f"faults injected {self.faults.total()}\nrequests acknowledged {self.acknowledged}\n"
            f"payments settled {self.settled}\nlost {lost}\nduplicated {duplicated}\ninvariants broken {broken}"
        )


def soak(system: System, *, seconds: float, seed: int, slow: bool = True) -> Report:
    """`slow` faults take half a minute each."""
    choice = random.Random(f"{seed} soak")
    report = Report()
    faults = _in_turn([fault for fault in CATALOGUE.values() if slow or fault.name not in SLOW], choice)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        load = system.load(f"soak-{choice.getrandbits(32):08x}", seed=choice.getrandbits(32))
        load.start()
        round_ends = min(ends, time.monotonic() + ROUND_SECONDS)
        while time.monotonic() < round_ends:
            time.sleep(choice.uniform(0.1, 0.5))
            _strike(system, faults, choice, report)
        report.add(judge(system, load.finish(), replays_max=REPLAYS_OF_A_ROUND))
    return report


def _in_turn(faults: list[Fault], choice: random.Random) -> Iterator[Fault]:
    """Every fault once in random order, then again."""
    while True:
        yield from choice.sample(faults, len(faults))


def _strike(system: System, faults: Iterator[Fault], choice: random.Random, report: Report) -> None:
    """One fault, or two: at once if they can be."""
    struck = [next(faults)]
    if choice.random() < 0.3:
        second = next(faults)
        if not second.goes_with(struck[0]):
            _strike_at_once(system, struck, choice, report)
            struck.clear()
        struck.append(second)
    _strike_at_once(system, struck, choice, report)


def _strike_at_once(system: System, struck: Sequence[Fault], choice: random.Random, report: Report) -> None:
    sys.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {' and '.join(fault.name for fault in struck)}\n")
    with ThreadPoolExecutor() as threads:
        for striking in [threads.submit(fault.strike, system, random.Random(choice.random())) for fault in struck]:
            striking.result()
    system.heal()
    report.faults.update(fault.name for fault in struck)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    arguments = parser.parse_args()
    out = sys.stdout
    out.write(f"seed {arguments.seed}\n")
    out.flush()
    with running_system(arguments.seed, remind_after_seconds=REMIND_AFTER_SECONDS) as system:
        try:
            report = soak(system, seconds=arguments.minutes * 60, seed=arguments.seed)
        except BaseException:
            sys.stderr.write(f"{traceback.format_exc()}\n{system.logs()}")
            raise
        for name, number in sorted(report.faults.items()):
            out.write(f"  {name} {number}\n")
        out.write(f"{report}\n")
        for verdict in report.failed:
            sys.stderr.write(f"{verdict}\n{system.logs()}\n")
    return 1 if report.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
