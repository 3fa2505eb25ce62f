"""The report: targets beside what was measured, then every figure with its spread, as Markdown and as JSON."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from bench.figures import Figure, Figures
from bench.limits import BATCH_SIZE, PGBENCH_CLIENTS
from bench.profiles import Line, Profile
from bench.scenarios import QUERIES


@dataclass
class Result:
    """A run, as it is written down."""

    about: Mapping[str, str]
    figures: Figures
    profiles: Mapping[str, Profile] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Target:
    """What the figure under `key` shall reach; `beside` names a figure that puts it into proportion."""

    text: str
    key: str
    comparison: Literal["at least", "at most"]
    bound: float
    unit: str = ""
    beside: str = ""

    def is_met(self, figure: Figure) -> bool:
        return figure.median >= self.bound if self.comparison == "at least" else figure.median <= self.bound


TARGETS = (
    Target(
        "create + confirm, 64 connections, against limit (a)",
        "ratio.http.64",
        "at least",
        0.75,
        beside="http.engine.64",
    ),
    Target(
        "to SETTLED through RabbitMQ, sustained, against limit (a)",
        "ratio.lifecycle.rabbitmq",
        "at least",
        0.50,
        beside="lifecycle.settled.rabbitmq",
    ),
    Target(
        "to SETTLED through the embedded bus, sustained, against limit (a)",
        "ratio.lifecycle.embedded",
        "at least",
        0.60,
        beside="lifecycle.settled.embedded",
    ),
    Target("one hot tenant against 20 tenants", "ratio.hot", "at least", 0.9, beside="http.hot"),
    Target("p99 of create at half of the most", "latency.half.p99", "at most", 25, "ms"),
    Target("confirm to SETTLED at 50 payments/s, p99", "latency.settled.p99", "at most", 100, "ms"),
    *(
        Target(f"{title}, 1 million payments, p99", f"books.{key}.p99.1000000", "at most", 10, "ms")
        for key, title in QUERIES.items()
    ),
    *(
        Target(f"{title}, 1 million payments against 10 thousand", f"ratio.books.{key}.1000000", "at most", 1.5)
        for key, title in QUERIES.items()
    ),
    Target("bulk create", "bulk", "at least", 5000, "payments/s"),
    Target("cost of row-level security", "ratio.row_security", "at most", 10, "%"),
)

SECTIONS = {
    "Create and confirm over HTTP": (
        "http.limit.",
        "http.engine.",
        "http.hot",
        "http.replay",
        "ratio.http",
        "ratio.hot",
        "ratio.replay",
    ),
    "Latency of a request at full load": ("http.p50", "http.p90", "http.p99"),
    "Two API processes": ("processes.", "ratio.processes"),
    "Bulk": ("bulk",),
    "The database's limits": ("database.",),
    "Row-level security": ("ratio.row_security",),
    "All the way to SETTLED": ("lifecycle.limit", "lifecycle.settled", "lifecycle.slices", "ratio.lifecycle"),
    "Backlog around the window": ("lifecycle.unsettled", "lifecycle.unpublished"),
    "Latency below full load": ("latency.",),
    "Queries against the size of the books": ("books.", "ratio.books"),
    "Start, memory, audit": ("start.", "memory.", "verify"),
}

INTRODUCTION = f"""\
# What was measured

Written by `scripts/bench.sh`; [README.md](README.md) says how to read and repeat it. Each figure is the median of its
rounds, with the least and the most beside it. Load generator and servers share the machine with the engine. All guards
are on: token, roles and policies, rate limit in Redis, idempotency, audit, outbox, row-level security; every 2xx is
committed with fsync.

The limits, measured in turn with the engine in the same run:

- **(a)** the same two routes in plain FastAPI, pydantic and PyJWT, no I/O at all, one uvicorn process (`reference.py`);
- **(b)** the same rows through pgbench with {PGBENCH_CLIENTS} clients, one transaction a step (`pgbench/`);
- **(c)** the engine's use cases over batches of {BATCH_SIZE}, no HTTP (`limits.py`).
"""


def write_json(result: Result, file: Path) -> None:
    """Everything, for programs: about, figures by key with all values, what is absent, profiles."""
    document = {
        "about": result.about,
        "figures": result.figures.as_json(),
        "absent": result.figures.absent,
        "profiles": {name: asdict(profile) for name, profile in result.profiles.items()},
    }
    file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def write_markdown(result: Result, file: Path, plots: Sequence[tuple[str, Path]]) -> None:
    file.write_text("\n\n".join(part.strip() for part in _parts(result, file.parent, plots)) + "\n")


def _parts(result: Result, folder: Path, plots: Sequence[tuple[str, Path]]) -> Iterable[str]:
    figures = result.figures
    yield INTRODUCTION
    if targets := [_target(target, figures) for target in TARGETS if target.key in figures.by_key]:
        yield "## Targets\n\n" + _table(("what", "target", "measured", "least to most", ""), targets)
    for what, why in figures.absent.items():
        yield f"**{what}:** {why}"
    for title, path in plots:
        yield f"![{title}]({path.relative_to(folder)})"
    for title, prefixes in SECTIONS.items():
        chosen = [
            figure
            for prefix in prefixes
            for key, figure in figures.by_key.items()
            if key.startswith(prefix) and ".cpu." not in key
        ]
        if chosen:
            yield f"## {title}\n\n" + _table(("what", "median", "least to most", "rounds"), map(_row, chosen))
    if costs := _processor_time(figures):
        yield "## Processor time of one payment\n\n" + costs
    for name, profile in result.profiles.items():
        yield _profile(name, profile)
    yield "## Machine and versions\n\n" + _table(("", ""), [(name, value) for name, value in result.about.items()])


def _target(target: Target, figures: Figures) -> tuple[str, ...]:
    figure = figures.by_key[target.key]
    measured = f"**{_number(figure.median)}** {target.unit}".strip()
    if target.beside in figures.by_key:
        beside = figures.by_key[target.beside]
        measured += f" ({_number(beside.median)} {beside.unit})"
    bound = f"{target.comparison} {_number(target.bound)} {target.unit}".strip()
    return target.text, bound, measured, _spread(figure), "met" if target.is_met(figure) else "**missed**"


def _row(figure: Figure) -> tuple[str, ...]:
    return figure.title, f"{_number(figure.median)} {figure.unit}".strip(), _spread(figure), str(len(figure.values))


def _processor_time(figures: Figures) -> str:
    """One column for each load, one row for each part of the system."""
    loads = {
        "http.cpu.": "create + confirm",
        "lifecycle.rabbitmq.cpu.": "to SETTLED, RabbitMQ",
        "lifecycle.embedded.cpu.": "to SETTLED, embedded bus",
    }
    parts = {key.removeprefix(prefix): None for prefix in loads for key in figures.by_key if key.startswith(prefix)}
    if not parts:
        return ""
    rows = []
    for part in parts:
        costs = [figures.median(prefix + part) for prefix in loads]
        rows.append((part, *("" if cost is None else f"{_number(cost)} µs" for cost in costs)))
    return _table(("part", *loads.values()), rows)


def _profile(name: str, profile: Profile) -> str:
    return (
        f"## Profile of the {name} under full load\n\n"
        f"py-spy, {profile.samples} samples that were not idle: in which it ran itself, or was on the stack.\n\n"
        + _table(("package", "itself", "with callees"), map(_profile_line, profile.packages[:15]))
        + "\n\n"
        + _table(("function", "itself", "with callees"), map(_profile_line, profile.functions))
    )


def _profile_line(line: Line) -> tuple[str, ...]:
    return f"`{line.name}`", f"{line.itself:.1%}", f"{line.cumulative:.1%}"


def _spread(figure: Figure) -> str:
    return f"{_number(figure.least)} to {_number(figure.most)}"


def _number(value: float) -> str:
    """As many places as the figure is worth."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
