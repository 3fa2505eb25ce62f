"""The plots of the report, as SVG that is the same for the same figures."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from bench.figures import Figure, Figures
from bench.scenarios import QUERIES

# Neither ids nor dates that change, and text as text: small, and readable in a diff.
STYLE: Any = {
    "svg.hashsalt": "payments-ledger",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}
SIZE_INCHES = (6.4, 3.4)
MILLISECONDS = "milliseconds"


def draw(figures: Figures, folder: Path) -> list[tuple[str, Path]]:
    """Draws what the figures allow into the folder; returns title and file of each plot."""
    plots: dict[str, tuple[str, Callable[[Axes, Figures], bool]]] = {
        "throughput.svg": ("Throughput against concurrency", _throughput),
        "latency.svg": ("Latency percentiles", _latency),
        "queries.svg": ("Query time against the size of the books", _queries),
    }
    drawn: list[tuple[str, Path]] = []
    # What a run does not draw must not stay from another one.
    for stale in folder.glob("*.svg"):
        stale.unlink()
    with mpl.rc_context(STYLE):
        for name, (title, plot) in plots.items():
            canvas = Canvas(figsize=SIZE_INCHES, layout="constrained")
            axes = canvas.add_subplot()
            if plot(axes, figures):
                axes.set_title(title, loc="left")
                folder.mkdir(parents=True, exist_ok=True)
                canvas.savefig(folder / name, metadata={"Date": None, "Creator": None})
                drawn.append((title, folder / name))
    return drawn


def _throughput(axes: Axes, figures: Figures) -> bool:
    series = {"limit (a): no I/O": "http.limit.", "create + confirm": "http.engine."}
    for label, prefix in series.items():
        points = _by_number(figures, prefix)
        if not points:
            return False
        _line(axes, points, label)
    for key, label in (("database.steps.2", "limit (b): pgbench, a commit a step"),):
        if (limit := figures.median(key)) is not None:
            axes.axhline(limit, linestyle=":", color="grey", label=label)
    _doubling(axes, [number for number, _ in points])
    axes.set_xlabel("connections")
    axes.set_ylabel("payments/s")
    axes.set_ylim(bottom=0)
    axes.legend()
    return True


def _latency(axes: Axes, figures: Figures) -> bool:
    names = {
        "latency.create": "create, 50 payments/s",
        "latency.half": "create, half of the most",
        "latency.half_settled": "create, half of the most,\neverything settled",
        "latency.settled": "confirm to SETTLED,\n50 payments/s",
        "latency.published": "confirm to published,\n50 payments/s",
    }
    known = {key: label for key, label in names.items() if f"{key}.p50" in figures.by_key}
    if not known:
        return False
    for offset, percent in ((-0.2, 50), (0.2, 99)):
        chosen = [figures.by_key[f"{key}.p{percent}"] for key in known]
        axes.barh(
            [position + offset for position in range(len(known))],
            [figure.median for figure in chosen],
            height=0.38,
            xerr=_spread(chosen),
            label=f"p{percent}",
        )
    axes.set_yticks(range(len(known)), list(known.values()))
    axes.invert_yaxis()
    axes.set_xlabel(MILLISECONDS)
    axes.legend()
    return True


def _queries(axes: Axes, figures: Figures) -> bool:
    lines = {title: _by_number(figures, f"books.{key}.p50.") for key, title in QUERIES.items()}
    if not any(lines.values()):
        return False
    for title, points in lines.items():
        _line(axes, points, title)
    axes.set_xscale("log")
    axes.set_xlabel("payments in the books")
    axes.set_ylabel(f"{MILLISECONDS}, p50 over HTTP")
    axes.set_ylim(bottom=0)
    axes.legend()
    return True


def _by_number(figures: Figures, prefix: str) -> list[tuple[int, Figure]]:
    found = [
        (int(key.removeprefix(prefix)), figure) for key, figure in figures.by_key.items() if key.startswith(prefix)
    ]
    return sorted(found, key=lambda point: point[0])


def _line(axes: Axes, points: Sequence[tuple[int, Figure]], label: str) -> None:
    axes.errorbar(
        [number for number, _ in points],
        [figure.median for _, figure in points],
        yerr=_spread([figure for _, figure in points]),
        marker="o",
        markersize=4,
        capsize=3,
        label=label,
    )


def _spread(chosen: Iterable[Figure]) -> list[list[float]]:
    """From the least to the most, around the median."""
    figures = list(chosen)
    return [[figure.median - figure.least for figure in figures], [figure.most - figure.median for figure in figures]]


def _doubling(axes: Axes, numbers: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, [str(number) for number in numbers])
