"""`statement`, `report` and `export` as they are typed: tables for people, JSON for programs, refusals in words."""

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.conftest import Api
from tests.integration.ledger.journal import Journal

pytestmark = pytest.mark.anyio

PROGRAM = Path(sys.executable).with_name("payments-ledger")


@pytest.fixture
async def journal(api: Api, tenant: str, monkeypatch: pytest.MonkeyPatch) -> Journal:
    """1,100 deposits into a wallet in March, which is more than a page, and one in April."""
    monkeypatch.setenv("DATABASE_URL", api.database_url)
    journal = Journal(api, tenant)
    await journal.account("BANK", "asset")
    await journal.account("WALLET")
    postings = [{"debit": "BANK", "credit": "WALLET", "amount": "1.00", "currency": "BRL"}]
    for days in range(11):
        await journal.move_all(postings * 100, effective_at=f"2026-03-{days + 10}T12:00:00Z")
    await journal.move("BANK", "WALLET", "5.00", effective_at="2026-04-10T12:00:00Z", description="Pix")
    return journal


@dataclass(frozen=True)
class Result:
    exit_code: int
    output: str


async def typed(*arguments: str) -> Result:
    """In a process of its own, since a command configures the logging of all of it."""
    process = await asyncio.create_subprocess_exec(
        PROGRAM, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return Result(process.returncode, output.decode())


async def test_a_statement_is_a_table_from_the_opening_to_the_closing_balance(journal: Journal, tenant: str) -> None:
    result = await typed("statement", "WALLET", "--tenant", tenant, "--from", "2026-04-01")
    assert result.exit_code == 0, result.output
    heading, opening, line, closing = result.output.splitlines()
    assert heading.split("  ")[-1] == "balance in BRL"
    assert opening.split() == ["opening", "balance", "1100.00"]
    assert line.startswith("2026-04-10  2026-04-10 12:00:00+00:00")
    assert line.split()[-3:] == ["Pix", "5.00", "1105.00"]
    assert closing.split() == ["closing", "balance", "1105.00"]


async def test_a_statement_of_many_pages_is_printed_whole(journal: Journal, tenant: str) -> None:
    result = await typed("statement", "WALLET", "--tenant", tenant, "--json")
    statement = json.loads(result.output)
    assert len(statement["lines"]) == 1101
    assert statement["opening_balance"] == "0.00"
    assert statement["closing_balance"] == statement["lines"][-1]["balance"] == "1105.00"


async def test_a_report_is_a_table_and_its_totals(journal: Journal, tenant: str) -> None:
    result = await typed("report", "balance-sheet", "--tenant", tenant, "--as-of", "2026-03-31")
    assert [line.split() for line in result.output.splitlines() if line] == [
        ["account", "type", "currency", "debits", "credits", "balance"],
        ["BANK", "asset", "BRL", "1100.00", "0.00", "1100.00"],
        ["WALLET", "liability", "BRL", "0.00", "1100.00", "1100.00"],
        ["currency", "assets", "liabilities", "equity"],
        ["BRL", "1100.00", "1100.00", "0.00"],
    ]


async def test_a_report_can_be_had_as_json(journal: Journal, tenant: str) -> None:
    result = await typed(
        *("report", "income-statement", "--tenant", tenant, "--from", "2026-03-01", "--to", "2026-04-01", "--json")
    )
    assert json.loads(result.output) == {
        "rows": [],
        "totals": [{"currency": "BRL", "revenue": "0.00", "expenses": "0.00", "result": "0.00"}],
    }


async def test_an_export_says_what_it_wrote(journal: Journal, tenant: str, tmp_path: Path) -> None:
    path = tmp_path / "books.csv"
    options = ("export", "--tenant", tenant, "--format", "csv", "--to", str(path))
    assert (await typed(*options)).output == f"12 entries written to {path}.\n"
    assert json.loads((await typed(*options, "--json")).output) == {"entries": 12, "file": str(path)}


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("statement", "NOWHERE"), 1, "account"),
        (("statement", "WALLET", "--from", "2026-02-02", "--to", "2026-02-01"), 1, "from must not be later than to."),
        (("statement", "WALLET", "--from", "yesterday"), 2, "A day such as 2026-01-31"),
        (("report", "trial-balance", "--as-of", "2026-02-02", "--to", "2026-02-01"), 1, "as_of goes without"),
        (("report", "cash-flow"), 2, "cash-flow"),
        (("export", "--format", "xlsx", "--to", "x"), 2, "xlsx"),
        (("export", "--format", "csv", "--to", "/no/such/folder/x"), 3, "Cannot write /no/such/folder/x"),
    ],
)
async def test_a_refusal_says_what_is_wrong(
    journal: Journal, tenant: str, arguments: tuple[str, ...], status: int, words: str
) -> None:
    result = await typed(*arguments, "--tenant", tenant)
    assert (result.exit_code, words in result.output) == (status, True), result.output


async def test_an_unknown_tenant_is_refused(journal: Journal, tmp_path: Path) -> None:
    for command in (("statement", "CASH"), ("report", "trial-balance")):
        result = await typed(*command, "--tenant", "nobody")
        assert (result.exit_code, "tenants list" in result.output) == (1, True)
