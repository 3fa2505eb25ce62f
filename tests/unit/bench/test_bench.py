"""What the benchmark makes of its measurements: percentiles, ratios, the check, wrk's output, profiles, the report."""

import json
from pathlib import Path

import pytest

from bench.baseline import compare, write_baseline
from bench.figures import Figures, percentile
from bench.load import LoadFailed, read_wrk
from bench.plots import draw
from bench.profiles import read_stacks
from bench.report import TARGETS, Result, write_json, write_markdown

WRK = {
    "seconds": 2.0,
    "created": 110,
    "confirmed": 90,
    "other": 0,
    "unexpected": 0,
    "example": "",
    "connect_errors": 0,
    "read_errors": 0,
    "write_errors": 0,
    "timeouts": 0,
    "p50_ms": 1.0,
    "p90_ms": 2.0,
    "p99_ms": 3.0,
    "max_ms": 4.0,
}


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([5.0], 99, 5.0),
        ([1.0, 2.0], 50, 1.0),
        ([3.0, 1.0, 2.0], 50, 2.0),
        ([float(number) for number in range(1, 101)], 99, 99.0),
        ([float(number) for number in range(1, 102)], 99, 100.0),
        ([1.0, 2.0], 0, 1.0),
    ],
)
def test_a_percentile_is_a_value_that_was_measured(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == expected


def test_a_ratio_compares_figures_of_the_same_round() -> None:
    figures = Figures()
    figures.add("engine", "", "", 50, 90, 80)
    figures.add("limit", "", "", 100, 100, 200)
    figures.add_ratio("ratio.of", "", "engine", "limit")
    assert figures.by_key["ratio.of"].values == [0.5, 0.9, 0.4]


def test_a_ratio_of_what_was_not_measured_is_not_there() -> None:
    figures = Figures()
    figures.add("engine", "", "", 50)
    figures.add_ratio("ratio.of", "", "engine", "limit")
    assert "ratio.of" not in figures.by_key


@pytest.mark.parametrize(
    ("key", "baseline", "now", "is_worse"),
    [
        ("ratio.http.64", 0.8, 0.61, False),
        ("ratio.http.64", 0.8, 0.59, True),
        ("ratio.http.64", 0.8, 1.2, False),
        ("ratio.books.balances.100000", 1.0, 1.24, False),
        ("ratio.books.balances.100000", 1.0, 1.26, True),
        ("ratio.books.balances.100000", 1.0, 0.5, False),
        ("ratio.row_security", 1.0, 12.9, False),
        ("ratio.row_security", 1.0, 13.1, True),
    ],
)
def test_the_check_finds_ratios_beyond_their_tolerance(
    tmp_path: Path, key: str, baseline: float, now: float, is_worse: bool
) -> None:
    before, after = Figures(), Figures()
    before.add(key, "what", "", baseline)
    after.add(key, "what", "", now)
    write_baseline(before, tmp_path / "baseline.json")
    assert bool(compare(after, tmp_path / "baseline.json")) == is_worse


def test_the_baseline_holds_no_absolute_figures_and_keeps_what_a_run_left_out(tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    file.write_text('{"ratio.hot": 0.9}')
    figures = Figures()
    figures.add("http.engine.64", "", "payments/s", 1000)
    figures.add("ratio.http.64", "", "", 0.8)
    write_baseline(figures, file)
    assert json.loads(file.read_text()) == {"ratio.hot": 0.9, "ratio.http.64": 0.8}


def test_two_requests_are_a_payment() -> None:
    result = read_wrk(f"Running 2s test\n{json.dumps(WRK)}\n")
    assert (result.payments_a_second, result.requests_a_second) == (50.0, 100.0)


@pytest.mark.parametrize("fault", ["unexpected", "connect_errors", "read_errors", "write_errors", "timeouts"])
def test_one_fault_fails_the_run(fault: str) -> None:
    with pytest.raises(LoadFailed, match=f"{fault}: 1; the first: 503 busy"):
        read_wrk(json.dumps({**WRK, fault: 1, "example": "503 busy"}))


def test_a_profile_counts_a_recursive_function_once() -> None:
    profile = read_stacks(
        [
            "main (/src/payments_ledger/cli.py);walk (/site-packages/jwt/api.py);walk (/site-packages/jwt/api.py) 3",
            "main (/src/payments_ledger/cli.py) 1",
            "",
        ]
    )
    assert profile.samples == 4
    functions = {line.name: (line.itself, line.cumulative) for line in profile.functions}
    assert functions == {"jwt.api.walk": (0.75, 0.75), "payments_ledger.cli.main": (0.25, 1.0)}
    packages = {line.name: (line.itself, line.cumulative) for line in profile.packages}
    assert packages == {"jwt": (0.75, 0.75), "payments_ledger": (0.25, 1.0)}


def test_the_report_says_what_was_missed_and_can_be_read_back(tmp_path: Path) -> None:
    figures = Figures()
    figures.add("http.engine.64", "create and confirm, 64 connections", "payments/s", 1234.5, 1200)
    figures.add("ratio.http.64", "against limit (a)", "", 0.7, 0.72)
    figures.add("ratio.hot", "hot", "", 0.95)
    figures.absent["bulk"] = "not there"
    result = Result({"commit": "abc"}, figures)
    write_json(result, tmp_path / "report.json")
    write_markdown(result, tmp_path / "REPORT.md", [])
    text = (tmp_path / "REPORT.md").read_text()
    assert "| at least 0.75 | **0.71** (1,217 payments/s) | 0.7 to 0.72 | **missed** |" in text
    assert "| at least 0.9 | **0.95** | 0.95 to 0.95 | met |" in text
    assert "**bulk:** not there" in text
    assert json.loads((tmp_path / "report.json").read_text())["figures"]["ratio.hot"]["median"] == 0.95


def test_every_target_has_a_key_of_its_own() -> None:
    assert len({target.key for target in TARGETS}) == len(TARGETS)


def test_plots_of_the_same_figures_are_the_same_to_the_byte(tmp_path: Path) -> None:
    figures = Figures()
    for connections in (1, 16, 64):
        figures.add(f"http.limit.{connections}", "", "payments/s", 900.0 + connections, 1000.0)
        figures.add(f"http.engine.{connections}", "", "payments/s", 800.0 + connections)
    figures.add("latency.create.p50", "", "ms", 2.0)
    figures.add("latency.create.p99", "", "ms", 5.0)
    figures.add("books.balances.p50.10000", "", "ms", 1.5)
    once, twice = draw(figures, tmp_path / "once"), draw(figures, tmp_path / "twice")
    assert len(once) == 3
    assert [path.read_bytes() for _, path in once] == [path.read_bytes() for _, path in twice]
