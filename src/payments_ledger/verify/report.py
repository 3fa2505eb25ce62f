"""What the audit found, for a person or for a program."""

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from payments_ledger.verify.audit import Result


def as_json(results: Sequence[Result]) -> str:
    """{"ok", "checks": [{"name", "ok", "examined", "broken", "failures"}]}; `failures` holds the first of `broken`."""
    return json.dumps(
        {
            "ok": all(result.ok for result in results),
            "checks": [
                {
                    "name": result.check.name,
                    "ok": result.ok,
                    "examined": result.examined,
                    "broken": result.broken,
                    "failures": result.failures,
                }
                for result in results
            ],
        },
        indent=2,
    )


def print_report(console: Console, results: Sequence[Result]) -> None:
    table = Table(title="Audit of the books", title_justify="left", title_style="bold")
    for column in ("", "invariant", "examined", "broken"):
        table.add_column(column, justify="right" if column in ("examined", "broken") else "left")
    for result in results:
        mark = "[green]ok[/]" if result.ok else "[bold red]BROKEN[/]"
        table.add_row(mark, result.check.statement, str(result.examined), str(result.broken))
    console.print(table)
    for result in results:
        if not result.ok:
            _explain(console, result)


def _explain(console: Console, result: Result) -> None:
    console.print(f"\n[bold red]{result.check.name}[/]: {result.check.statement}")
    for failure in result.failures:
        console.print("  " + ", ".join(f"{name} {_shown(value)}" for name, value in failure.items()), highlight=False)
    if result.broken > len(result.failures):
        console.print(f"  … and {result.broken - len(result.failures)} more")


def _shown(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)
