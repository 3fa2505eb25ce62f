"""Where the time goes: py-spy samples API and worker under full load, and a table says which functions it finds."""

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench.lifecycle import sustain
from bench.scenarios import Bench
from bench.servers import Process

PY_SPY = Path(sys.executable).with_name("py-spy")
RATE = 200
SECONDS = 10
ROWS = 25


@dataclass(frozen=True, slots=True)
class Line:
    """A function or a package: the share of the samples in which it ran itself, and in which it was on the stack."""

    name: str
    itself: float
    cumulative: float


@dataclass(frozen=True, slots=True)
class Profile:
    """What the samples of one process say; shares are of the samples that were not idle, whose number is `samples`."""

    samples: int
    packages: list[Line]
    functions: list[Line]


def profile(bench: Bench) -> dict[str, Profile]:
    """Profiles of API and worker while payments go all the way to SETTLED; empty where py-spy may not look."""
    found: dict[str, Profile] = {}
    with bench.installation.api(bench.cycle) as api, bench.settling_worker(api) as worker:
        recorders: list[threading.Thread] = []

        def mark(moment: str) -> None:
            if moment == "begin":
                for name, process in (("api", api), ("worker", worker)):
                    recorder = threading.Thread(target=_record, args=(bench, name, process, found))
                    recorder.start()
                    recorders.append(recorder)

        uvloop.run(sustain(api, bench.cycle, warm_seconds=3, seconds=SECONDS + 2, during=mark))
        for recorder in recorders:
            recorder.join()
    return dict(sorted(found.items()))


def read_stacks(lines: Iterable[str]) -> Profile:
    """A profile of lines such as `outer (file.py);inner (file.py) 12`, as `py-spy record --format raw` writes them."""
    function_self: Counter[str] = Counter()
    function_all: Counter[str] = Counter()
    package_self: Counter[str] = Counter()
    package_all: Counter[str] = Counter()
    total = 0
    for line in lines:
        stack, _, count_text = line.rstrip().rpartition(" ")
        if not stack:
            continue
        count = int(count_text)
        total += count
        frames = [_frame(frame) for frame in stack.split(";") if " (" in frame]
        if not frames:
            continue
        package_self[frames[-1][0]] += count
        function_self[frames[-1][1]] += count
        # A function that calls itself counts once.
        for package in {package for package, _ in frames}:
            package_all[package] += count
        for function in {function for _, function in frames}:
            function_all[function] += count
    return Profile(
        total,
        [_line(name, package_self, package_all, total) for name, _ in package_self.most_common(ROWS)],
        [_line(name, function_self, function_all, total) for name, _ in function_self.most_common(ROWS)],
    )


def _line(name: str, itself: Counter[str], cumulative: Counter[str], total: int) -> Line:
    return Line(name, itself[name] / total, cumulative[name] / total)


def _frame(frame: str) -> tuple[str, str]:
    """Package, and function with its module: `verify (/…/site-packages/jwt/api_jwt.py)` is jwt, jwt.api_jwt.verify."""
    function, _, place = frame.partition(" (")
    path = Path(place.rstrip(")").partition(":")[0])
    parts = list(path.with_suffix("").parts)
    for root in ("site-packages", "src"):
        if root in parts:
            inner = parts[parts.index(root) + 1 :]
            return inner[0], f"{'.'.join(inner)}.{function}"
    return "python", f"{path.stem}.{function}"


def _record(bench: Bench, name: str, process: Process, found: dict[str, Profile]) -> None:
    output = bench.installation.folder / f"{name}.stacks"
    command = [
        *(str(PY_SPY), "record", "--pid", str(process.pid), "--format", "raw", "--full-filenames", "--function"),
        *("--rate", str(RATE), "--duration", str(SECONDS), "--nonblocking", "--output", str(output)),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=SECONDS + 60)
    if done.returncode or not output.exists():
        # Some systems let only root look into another process.
        bench.figures.absent[f"profile of {name}"] = f"py-spy: {(done.stderr or done.stdout).strip()[-300:]}"
        return
    found[name] = read_stacks(output.read_text().splitlines())
