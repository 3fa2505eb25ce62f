"""`verify`: the audit of the books, and its report for a person or for a program."""

import json as json_format
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from payments_ledger.cli.printable import printable
from payments_ledger.cli.settings import read_settings
from payments_ledger.cli.terminal import REFUSED, AnyTenant, Json, as_utc, progress_bar, run

if TYPE_CHECKING:
    from payments_ledger.verify.audit import Result

# As in payments/invariants.py, which is only imported when it is needed.
AUTHORIZED_SECONDS_MAX = 900


def verify(
    tenant: AnyTenant = None,
    since: Annotated[datetime | None, typer.Option(help="Only rows written since this time (UTC).")] = None,
    authorized_seconds_max: Annotated[
        int, typer.Option(min=0, help="How long a payment may stay AUTHORIZED.")
    ] = AUTHORIZED_SECONDS_MAX,
    json: Json = False,
) -> None:
    """Audit the books: recompute everything from the rows, change nothing. Exit status 1 if an invariant is broken."""
    from payments_ledger.invariants import BOUNDS, INVARIANTS
    from payments_ledger.verify.audit import audit

    settings = read_settings()
    console = Console()

    async def examine() -> "list[Result]":
        results: list[Result] = []
        with progress_bar() as progress:
            bar = progress.add_task("Auditing", total=len(INVARIANTS))
            async for result in audit(
                settings.database_url,
                INVARIANTS,
                tenant_id=tenant,
                since=as_utc(since),
                bounds=BOUNDS | {"authorized_seconds_max": authorized_seconds_max},
            ):
                results.append(result)
                if not json:
                    _print_result(console, result)
                progress.update(bar, advance=1, description=result.invariant.name)
        return results

    results = run(settings, examine())
    if json:
        typer.echo(_as_json(results))
    raise typer.Exit(0 if all(result.ok for result in results) else REFUSED)


def _as_json(results: "Sequence[Result]") -> str:
    """{"ok", "checks": [{"name", "ok", "examined", "broken", "failures"}]}; `failures` holds the first of `broken`."""
    return json_format.dumps(
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


def _print_result(console: Console, result: "Result") -> None:
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
    return "none" if value is None else value if isinstance(value, str) else json_format.dumps(value)
