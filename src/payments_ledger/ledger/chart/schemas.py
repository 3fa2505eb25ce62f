"""Accounts as they stand in requests and responses: flat JSON, limits and balances as decimal strings."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic.config import JsonDict

from payments_ledger.errors import Fault, Invalid, InvalidAmount, InvalidRequest, together
from payments_ledger.ledger.accounts import Account, AccountState, AccountType, Limit, Side, side_of
from payments_ledger.ledger.balances.balance import RunningBalance
from payments_ledger.money import format_amount, parse_balance
from payments_ledger.validation.amounts import UnparsedAmount
from payments_ledger.validation.card_numbers import no_card_number
from payments_ledger.validation.metadata import Metadata, MetadataChange
from payments_ledger.validation.texts import Matching, no_controls
from payments_ledger.web.bodies import Body

CODE_LENGTH_MAX = 128
# Currencies that one account is limited in; each is a row that its postings lock.
LIMITS_MAX = 50

CODE = Matching(
    rf"(?=.{{1,{CODE_LENGTH_MAX}}}$)[A-Z][A-Z0-9_]*(\.[A-Z][A-Z0-9_]*)*",
    "must be parts of A to Z, 0 to 9 and _, each beginning with a letter, joined by dots, "
    f"{CODE_LENGTH_MAX} characters in all",
)
Code = Annotated[str, CODE, Field(examples=["WALLET.C001"])]
CurrencyCode = Annotated[str, Field(min_length=3, max_length=3, examples=["BRL"])]


# What stands in lists and logs is on one line, and nothing of it is a card number.
Name = Annotated[
    str, StringConstraints(min_length=1, max_length=200), AfterValidator(no_controls), AfterValidator(no_card_number)
]
OwnerRef = Annotated[
    str, StringConstraints(min_length=1, max_length=128), AfterValidator(no_controls), AfterValidator(no_card_number)
]

ACCOUNT_EXAMPLE: JsonDict = {
    "code": "WALLET.C001",
    "name": "Wallet of customer C001",
    "type": "liability",
    "normal_side": "credit",
    "owner_ref": "C001",
    "metadata": {"tier": "gold"},
    "limits": [{"currency": "BRL", "balance_min": "0.00", "balance_max": None}],
    "state": "open",
    "created_at": "2026-01-31T12:00:00Z",
    "closed_at": None,
}
_FIELDS_OF_REQUEST = ("code", "name", "type", "owner_ref", "metadata", "limits")
BALANCE_EXAMPLE: JsonDict = {
    "account": "WALLET.C001",
    "currency": "BRL",
    "posted": "100.00",
    "pending_debits": "30.00",
    "pending_credits": "0.00",
    "available": "70.00",
    "version": 7,
}


class LimitTerms(Body):
    """Bounds of the balance on the account's normal side, in major units, both inclusive; null is no bound.

    What is pending counts towards them. A `balance_min` of "0.00" is never overdrawn.
    """

    currency: CurrencyCode
    balance_min: UnparsedAmount | None = None
    balance_max: UnparsedAmount | None = None


Limits = Annotated[list[LimitTerms], Field(max_length=LIMITS_MAX)]


class AccountRequest(Body):
    """`normal_side` is that of the type unless it is given: contra accounts have the other one."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{name: ACCOUNT_EXAMPLE[name] for name in _FIELDS_OF_REQUEST}]}
    )

    code: Code
    name: Name
    type: AccountType
    normal_side: Side | None = None
    owner_ref: OwnerRef | None = None
    metadata: Metadata | None = None
    limits: Limits | None = None

    @property
    def account(self) -> Account:
        """The account that is asked for; raises Invalid with the faults of its limits."""
        return Account(
            code=self.code,
            name=self.name,
            type=self.type,
            is_contra=self.normal_side not in (None, side_of(self.type)),
            owner_ref=self.owner_ref,
            metadata=self.metadata or {},
            limits=read_limits(self.limits or ()),
        )


class AccountChange(Body):
    """RFC 7396 (JSON Merge Patch): what is left out stays; null removes. `limits` replace all that there were."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "Wallet of Ana", "metadata": {"tier": None}, "limits": []}]}
    )

    name: Name | None = None
    owner_ref: OwnerRef | None = None
    metadata: MetadataChange | None = None
    limits: Limits | None = None

    @classmethod
    def read(cls, value: Any) -> Self:
        """The change; raises Invalid, also for a name that is null: an account always has one."""
        change = super().read(value)
        if "name" in change.model_fields_set and change.name is None:
            raise InvalidRequest([Fault("must be a text", ("name",))])
        return change

    @property
    def removes_owner_ref(self) -> bool:
        """Whether it is null, and not left out."""
        return self.owner_ref is None and "owner_ref" in self.model_fields_set

    @property
    def limits_then(self) -> tuple[Limit, ...] | None:
        """The limits after the change, None if they stay; raises Invalid with their faults."""
        return read_limits(self.limits or ()) if "limits" in self.model_fields_set else None


class LimitDocument(BaseModel):
    """As it was asked for, with all decimal places of the currency."""

    currency: str
    balance_min: str | None = None
    balance_max: str | None = None


class AccountDocument(BaseModel):
    """An account; its balances are at …/balances."""

    model_config = ConfigDict(json_schema_extra={"examples": [ACCOUNT_EXAMPLE]})

    code: str
    name: str
    type: AccountType
    normal_side: Side
    owner_ref: str | None = None
    metadata: dict[str, str]
    limits: list[LimitDocument]
    state: AccountState
    created_at: datetime
    closed_at: datetime | None = None


class RunningBalanceDocument(BaseModel):
    """Decimal strings in major units. `posted` and `available` are positive on the account's normal side.

    `available` is what is posted less what pending transactions could take away; what a pending transaction debits and
    credits counts by its net. `version` grows with each change.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [BALANCE_EXAMPLE]})

    account: str
    currency: str
    posted: str
    pending_debits: str
    pending_credits: str
    available: str
    version: Annotated[int, WithJsonSchema({"type": "integer"})]


def read_limits(terms: Sequence[LimitTerms]) -> tuple[Limit, ...]:
    """The limits in the order of their currencies; raises Invalid with the faults of all."""
    refusals: list[Invalid] = []
    limits: dict[str, Limit] = {}
    for place, limit in enumerate(terms):
        try:
            minimum = _bound(limit, "balance_min", limit.balance_min)
            maximum = _bound(limit, "balance_max", limit.balance_max)
            if minimum is not None and maximum is not None and minimum > maximum:
                raise InvalidRequest([Fault("must not be above the maximum", ("balance_min",))])
            if limit.currency in limits:
                raise InvalidRequest([Fault("has a limit already", ("currency",))])
            limits[limit.currency] = Limit(limit.currency, minimum, maximum)
        except Invalid as error:
            refusals.append(error.within("limits", place))
    if refusals:
        raise together(refusals)
    return tuple(limit for _, limit in sorted(limits.items()) if not limit.is_none)


def _bound(limit: LimitTerms, name: str, amount: Any) -> int | None:
    return None if amount is None else parse_named_balance(name, amount, limit.currency)


def parse_named_balance(name: str, amount: Any, currency: str) -> int:
    """As parse_balance, of the member `name`; raises Invalid of it, or UnknownCurrency."""
    try:
        return parse_balance(amount, currency)
    except InvalidAmount as error:
        raise InvalidRequest([Fault(error.detail, (name,))]) from None


def show_account(account: Account) -> AccountDocument:
    """Its limits as decimal strings."""
    assert account.created_at is not None
    return AccountDocument(
        code=account.code,
        name=account.name,
        type=account.type,
        normal_side=account.normal_side,
        owner_ref=account.owner_ref,
        metadata=dict(account.metadata),
        limits=[
            LimitDocument(
                currency=limit.currency,
                balance_min=None if limit.minimum is None else format_amount(limit.minimum, limit.currency),
                balance_max=None if limit.maximum is None else format_amount(limit.maximum, limit.currency),
            )
            for limit in account.limits
        ],
        state=account.state,
        created_at=account.created_at,
        closed_at=account.closed_at,
    )


def account_body(account: Account) -> bytes:
    """The account as clients see it, to the byte."""
    return show_account(account).model_dump_json().encode()


def show_running_balance(balance: RunningBalance) -> RunningBalanceDocument:
    """Minor units become decimal strings in major units."""

    def text(amount: int) -> str:
        return format_amount(amount, balance.currency)

    return RunningBalanceDocument.model_construct(
        account=balance.account,
        currency=balance.currency,
        posted=text(balance.posted),
        pending_debits=text(balance.pending_debits),
        pending_credits=text(balance.pending_credits),
        available=text(balance.available),
        version=balance.version,
    )
