"""The regression check: ratios of this run against those that were committed. Absolute times are never compared."""

import json
from pathlib import Path
from typing import Any

from bench.figures import Figures

BASELINE = Path(__file__).with_name("baseline.json")
PREFIX = "ratio."
# Ratios of which less is better: a query in large books against small ones, the cost of something.
LESS_IS_BETTER = ("ratio.books.", "ratio.row_security")
# Short runs on a shared machine differ by this much without a cause.
TOLERANCE = 0.25
# Row-level security is a difference of two equal times, in percent: what counts is how far it moves.
TOLERANCE_BY_KEY = {"ratio.row_security": 12.0}


def write_baseline(figures: Figures, file: Path) -> None:
    """Writes the ratios of this run, beside those that it did not measure."""
    known: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for key, figure in figures.by_key.items():
        if key.startswith(PREFIX):
            known[key] = float(f"{figure.median:.3g}")
    file.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")


def compare(figures: Figures, file: Path) -> list[str]:
    """A line for each ratio that is worse than the baseline by more than its tolerance."""
    if not file.exists():
        return [f"{file.name} is missing: write one with --baseline"]
    baseline: dict[str, float] = json.loads(file.read_text())
    regressions = []
    for key, expected in sorted(baseline.items()):
        figure = figures.by_key.get(key)
        if figure is None:
            continue
        if key in TOLERANCE_BY_KEY:
            bound = expected + TOLERANCE_BY_KEY[key]
        elif key.startswith(LESS_IS_BETTER):
            bound = expected * (1 + TOLERANCE)
        else:
            bound = expected * (1 - TOLERANCE)
        is_worse = figure.median > bound if key.startswith(LESS_IS_BETTER) else figure.median < bound
        if is_worse:
            regressions.append(f"{figure.title}: {figure.median:.3g}, the baseline is {expected:.3g}")
    return regressions
