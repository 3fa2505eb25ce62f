"""What the audit found, for a person or for a program."""

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from payments_ledger.cli.printable import printable
from payments_ledger.verify.audit import Result


def as_json(results: Sequence[Result]) -> str:
    """{"ok", "checks": [{"name", "ok", "examined", "broken", "failures"}]}; `failures` holds the first of `broken`."""
    return json.dumps(
        {
            "ok": all(result.ok for result in results),
            "checks": [
                {
                    "name": result.invariant.name,
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


def print_result(console: Console, result: Result) -> None:
    """One line, and one more for each broken row that is shown: which it is, what was found, what was expected."""
    mark = "[green]ok    [/]" if result.ok else "[bold red]BROKEN[/]"
    console.print(f"{mark} {result.examined:>10,} examined  {result.invariant.statement}", highlight=False)
    if result.ok:
        return
    console.print(f"       {result.broken:>10,} broken    {result.invariant.name}", highlight=False)
    for failure in result.failures:
        found = ", ".join(f"{name} {_shown(value)}" for name, value in failure.items())
        console.print(f"       {printable(found)}", highlight=False, markup=False)
    if result.broken > len(result.failures):
        console.print(f"       … and {result.broken - len(result.failures):,} more", highlight=False)


def _shown(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)
