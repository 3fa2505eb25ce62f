"""Exports for plain text accounting: Beancount's language, and hledger's journal."""

from collections.abc import Iterator, Sequence
from typing import TextIO

from payments_ledger.ledger.accounts import Account, AccountType
from payments_ledger.ledger.exports.export import ExportedEntry, Opening
from payments_ledger.money import exponent_of, format_amount

# The five roots of both languages.
_ROOTS = {
    AccountType.ASSET: "Assets",
    AccountType.LIABILITY: "Liabilities",
    AccountType.EQUITY: "Equity",
    AccountType.REVENUE: "Income",
    AccountType.EXPENSE: "Expenses",
}
# hledger's letters for them (hledger manual, "Declaring account types").
_HLEDGER_TYPES = {
    AccountType.ASSET: "A",
    AccountType.LIABILITY: "L",
    AccountType.EQUITY: "E",
    AccountType.REVENUE: "R",
    AccountType.EXPENSE: "X",
}


class BeancountWriter:
    """A ledger for Beancount 3 (Beancount language syntax). Codes WALLET.C_1 become Liabilities:WALLET:C-1."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._names: dict[str, str] = {}

    def begin(self, opening: Opening) -> None:
        """Opens every account on the first day."""
        # A name has letters, digits and dashes. A code has no dash, so two codes never become one name.
        self._names = {account.code: _name(account).replace("_", "-") for account in opening.accounts}
        self._file.write(f'option "title" "{_quoted(opening.tenant_id)}"\n\n')
        for account in opening.accounts:
            self._file.write(f"{opening.first_day} open {self._names[account.code]}\n")
            self._file.write(f'  title: "{_quoted(account.name)}"\n')

    def write(self, entries: Sequence[ExportedEntry]) -> None:
        """Each entry is a transaction on its book date."""
        for entry in entries:
            self._file.write(f'\n{entry.book_date} * "{_quoted(entry.title)}"\n')
            for name, value in _facts(entry):
                self._file.write(f'  {name}: "{_quoted(value)}"\n')
            for account, amount in _legs(entry):
                self._file.write(f"  {self._names[account]}  {amount}\n")

    def end(self) -> None:
        """Nothing is left."""


class HledgerWriter:
    """A journal for hledger (hledger manual, "Journal"). Codes WALLET.C_1 become Liabilities:WALLET:C_1."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._names: dict[str, str] = {}

    def begin(self, opening: Opening) -> None:
        """Declares every commodity and every account, as `hledger check --strict` wants them."""
        self._names = {account.code: _name(account) for account in opening.accounts}
        self._file.write(f"; The books of {opening.tenant_id}\n\n")
        for currency in opening.currencies:
            self._file.write(f"commodity 1000.{'0' * exponent_of(currency)} {currency}\n")
        for account in opening.accounts:
            self._file.write(f"account {self._names[account.code]}  ; type:{_HLEDGER_TYPES[account.type]}\n")

    def write(self, entries: Sequence[ExportedEntry]) -> None:
        """Each entry is a transaction on its book date, its id the code."""
        for entry in entries:
            self._file.write(f"\n{entry.book_date} * ({entry.id}) {_commentless(entry.title)}\n")
            for name, value in _facts(entry):
                self._file.write(f"    ; {name}: {_commentless(value).replace(',', ' ')}\n")
            for account, amount in _legs(entry):
                self._file.write(f"    {self._names[account]}  {amount}\n")

    def end(self) -> None:
        """Nothing is left."""


def _name(account: Account) -> str:
    return ":".join((_ROOTS[account.type], *account.code.split(".")))


def _facts(entry: ExportedEntry) -> Iterator[tuple[str, str]]:
    yield "entry", str(entry.id)
    yield "kind", entry.kind
    yield "transaction" if entry.is_transaction else "payment", str(entry.source_id)
    yield "recorded", entry.recorded_at.isoformat()
    yield "effective", entry.effective_at.isoformat()
    if entry.reference is not None:
        yield "reference", entry.reference


def _legs(entry: ExportedEntry) -> Iterator[tuple[str, str]]:
    """The sides of its postings: debits are positive, credits negative."""
    for posting in entry.postings:
        currency = posting.money.currency
        amount = format_amount(posting.money.amount, currency)
        yield posting.debit_account, f"{amount} {currency}"
        yield posting.credit_account, f"-{amount} {currency}"


def _quoted(text: str) -> str:
    """Within double quotes (Beancount language syntax, "Strings")."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _commentless(text: str) -> str:
    """A semicolon begins a comment, wherever it stands, and there is no way to write one otherwise."""
    return text.replace(";", ",")
