"""`python -m bench`, which scripts/bench.sh calls: runs scenarios and writes the report."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from rich.console import Console

from bench import machine, plots, report
from bench.baseline import BASELINE, compare, write_baseline
from bench.figures import Figures
from bench.profiles import profile
from bench.scenarios import FULL, QUICK, SCENARIOS, Bench, run
from bench.servers import Installation

FOLDER = Path(__file__).parent
# Of runs that are not the committed one; not in the repository.
SCRATCH = FOLDER / "out"


def main() -> int:
    options = _options()
    console = Console(width=160)
    # SIGTERM ends everything that was started, as Ctrl-C does.
    signal.signal(signal.SIGTERM, _interrupt)
    names = options.scenario or ([] if options.profile else list(SCENARIOS))
    is_complete = not options.quick and not options.scenario and not options.profile
    folder = FOLDER if is_complete else SCRATCH
    figures = Figures()
    begin = time.perf_counter()
    load_before = os.getloadavg()[0]
    with Installation() as installation:
        bench = Bench(installation, QUICK if options.quick else FULL, figures, console)
        run(bench, names)
        profiles = profile(bench) if options.profile or is_complete else {}
        about = machine.describe(installation)
    about["load average before"] = f"{load_before:.2f}"
    about["run"] = f"{'quick' if options.quick else 'full'}, {time.perf_counter() - begin:.0f} s"
    folder.mkdir(exist_ok=True)
    result = report.Result(about, figures, profiles)
    report.write_json(result, folder / "report.json")
    drawn = plots.draw(figures, folder / "plots")
    report.write_markdown(result, folder / "REPORT.md", drawn)
    console.print(f"Written: {folder / 'REPORT.md'}", highlight=False)
    if options.baseline:
        write_baseline(figures, BASELINE)
    if options.check:
        regressions = compare(figures, BASELINE)
        for regression in regressions:
            console.print(regression, style="bold red", highlight=False)
        console.print("Regressions." if regressions else "No ratio fell below the baseline.", highlight=False)
        bench.succeeded = bench.succeeded and not regressions
    return 0 if bench.succeeded else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench.sh", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under three minutes; fewer and shorter measurements")
    parser.add_argument(
        "--scenario",
        action="append",
        choices=list(SCENARIOS),
        metavar="NAME",
        help=f"only this: {', '.join(SCENARIOS)}",
    )
    parser.add_argument("--profile", action="store_true", help="only profiles of API and worker under load, by py-spy")
    parser.add_argument("--check", action="store_true", help="compare ratios with bench/baseline.json; exit status 1")
    parser.add_argument("--baseline", action="store_true", help="write this run's ratios into bench/baseline.json")
    return parser.parse_args()


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
