"""Everything that can be refused, as one tree: a class's docstring is the message that its caller reads.

Long because it is all of it: errors of any module are told apart here alone.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self
from uuid import UUID

# How many faults a message tells; all of them are in `faults`.
FAULTS_TOLD = 5


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a request: `path` leads to the member of the body, () being all of it.

    What is wrong with a query parameter, path parameter or header has its name in `parameter`, and no path.
    """

    detail: str
    path: tuple[str | int, ...] = ()
    parameter: str | None = None

    @property
    def place(self) -> str:
        return self.parameter or "/".join(map(str, self.path)) or "body"


class LedgerError(Exception):
    """The request could not be carried out."""

    code: ClassVar[str] = "ledger_error"
    message: ClassVar[str] = __doc__ or ""
    faults: tuple[Fault, ...] = ()

    def __init_subclass__(cls) -> None:
        # PaymentNotFound tells its clients the code "payment_not_found".
        cls.code = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
        cls.message = " ".join((cls.__doc__ or "").split())

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail or self.message)

    @property
    def detail(self) -> str:
        return str(self)


class Unreadable(LedgerError):
    """The request cannot be read."""


class Invalid(LedgerError):
    """The request can be read, but what it asks for is not valid."""

    def __init__(self, field: str, detail: str | None = None) -> None:
        """`field` is the path to the member of the body at fault ("amount", "hours/zone")."""
        super().__init__(detail)
        self.faults = (Fault(self.detail, tuple(field.split("/"))),)

    def within(self, *place: str | int) -> Self:
        """The same faults of something that stands at `place` in a larger body ("payment_intents", 3)."""
        self.faults = tuple(replace(fault, path=(*place, *fault.path)) for fault in self.faults)
        return self


class InvalidRequest(Invalid):
    """The request can be read, but a field of it is not valid."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        told = "; ".join(f"{fault.place}: {fault.detail}" for fault in faults[:FAULTS_TOLD])
        LedgerError.__init__(self, told)
        self.faults = tuple(faults)


class Unauthenticated(LedgerError):
    """A valid bearer token is needed."""


class Forbidden(LedgerError):
    """The caller may not do this."""


class NotFound(LedgerError):
    """There is no such thing here."""


class Conflict(LedgerError):
    """The present state forbids this."""


class Gone(LedgerError):
    """There was such a thing, and it is not kept any more."""


class Unavailable(LedgerError):
    """The service cannot answer right now. Repeat the request with the same Idempotency-Key."""

    retry_after_seconds: ClassVar[int] = 1


class Limited(LedgerError):
    """Too many requests."""

    def __init__(self, retry_after_seconds: int, detail: str | None = None) -> None:
        """After `retry_after_seconds` the next request is admitted."""
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class InvalidParameter(Invalid):
    """A query parameter, path parameter or header is not valid."""

    def __init__(self, name: str, detail: str | None = None) -> None:
        LedgerError.__init__(self, detail)
        self.faults = (Fault(self.detail, parameter=name),)


class InvalidAmount(Invalid):
    """The amount is not a positive whole number of the currency's minor units."""

    def __init__(self, detail: str | None = None) -> None:
        super().__init__("amount", detail)


class InvalidExpiry(Invalid):
    """The expiry is not in the future, or too far ahead."""

    def __init__(self, detail: str | None = None) -> None:
        super().__init__("expires_at", detail)


class UnknownCurrency(Invalid):
    """The currency is not an ISO 4217 currency with minor units."""

    def __init__(self, detail: str | None = None) -> None:
        super().__init__("currency", detail)


class WithdrawnCurrency(UnknownCurrency):
    """The currency was withdrawn: no payment can be created in it any more."""


class Unbalanced(Invalid):
    """Debits and credits of a currency differ."""

    def __init__(self, detail: str | None = None) -> None:
        super().__init__("lines", detail)


class UnknownAccount(InvalidRequest):
    """A transaction names an account that does not exist."""


class MalformedJson(Unreadable):
    """The body is not JSON."""


class UnreadableParameter(Unreadable):
    """A header or parameter cannot be read."""

    def __init__(self, name: str, detail: str | None = None) -> None:
        super().__init__(detail)
        self.faults = (Fault(self.detail, parameter=name),)


class MissingHeader(UnreadableParameter):
    """A required header is missing."""

    def __init__(self, name: str) -> None:
        super().__init__(name, f"{name} is missing.")


class RepeatedHeader(UnreadableParameter):
    """A header that may appear once was sent several times."""


class InvalidHeader(UnreadableParameter):
    """A header's value cannot be read."""


class InvalidCursor(UnreadableParameter):
    """The cursor was not issued by this service for this list."""

    def __init__(self) -> None:
        super().__init__("cursor")


class UnknownEvent(UnreadableParameter):
    """The tenant has no event with this id to read on from."""

    def __init__(self) -> None:
        super().__init__("after")


class TooManyFailedLogins(Limited):
    """Too many failed logins with this e-mail address. It rests for a while."""


class RateLimited(Limited):
    """Too many requests in this minute. Retry-After says when the next one is admitted."""


class UnsupportedMediaType(Unreadable):
    """The body must be JSON, and its Content-Type must say so: application/json."""


class BodyTooLarge(Unreadable):
    """The body is larger than any request needs to be."""


class BodyTooSlow(Unreadable):
    """The body did not arrive in time."""


class BodyCutOff(Unreadable):
    """The connection ended before the body did."""


class BadCredentials(Unauthenticated):
    """E-mail, password or tenant is wrong. Name the tenantId if the e-mail belongs to several tenants."""


class TokenRevoked(Unauthenticated):
    """The user of this bearer token is disabled or does not exist any more."""


class PermissionDenied(Forbidden):
    """The caller's roles do not permit this."""


class PolicyDenied(Forbidden):
    """No policy of the tenant allows this."""


class OwnRights(Forbidden):
    """Nobody changes their own rights. Another administrator may."""


class TenantSuspended(Forbidden):
    """The tenant is suspended."""


class WrongTenant(Forbidden):
    """The token does not belong to the tenant named in X-Tenant-Id."""


class UnknownTenant(NotFound):
    """There is no tenant with this id."""


class PaymentNotFound(NotFound):
    """There is no payment intent with this id."""


class AccountNotFound(NotFound):
    """There is no account with this code."""


class TransactionNotFound(NotFound):
    """There is no ledger transaction with this id."""


class RefundNotFound(NotFound):
    """There is no refund with this id."""


class EventNotFound(NotFound):
    """There is no event with this id."""


class PolicyNotFound(NotFound):
    """There is no policy with this name."""


class UserNotFound(NotFound):
    """There is no user with this id."""


class IllegalMove(Conflict):
    """The payment's status does not allow this."""


class AlreadyMoved(IllegalMove):
    """The payment already has the status that was asked for."""


class TenantExists(Conflict):
    """There is a tenant with this id already."""


class UserExists(Conflict):
    """The tenant has a user with this e-mail address already."""


class WouldLockOutAdministrator(Conflict):
    """After this change its author could not administer the tenant any more."""


class TooManyPolicies(Conflict):
    """The tenant has as many policies as it may have."""


class ChaosNotEnabled(Conflict):
    """Injected faults are not permitted here: CHAOS_ENABLED is off."""


class PaymentExpired(Conflict):
    """The payment's time has run out: it can be neither confirmed nor captured any more."""


class NotCapturable(Conflict):
    """Only a manual payment that is AUTHORIZED can be captured."""


class CursorExpired(Gone):
    """The event to read on from is not kept any more."""

    def __init__(self, oldest_position: int) -> None:
        """Of the events that are kept the oldest one has this position."""
        super().__init__(f"{self.message} The oldest one that is kept has the position {oldest_position}.")
        self.oldest_position = oldest_position


class AlreadyCaptured(Conflict):
    """The payment was captured already. Its settlement follows."""


class AmountExceedsAuthorized(Conflict):
    """The amount is more than was authorized."""


class NotRefundable(Conflict):
    """Only a SETTLED payment can be refunded."""


class AmountExceedsRefundable(Conflict):
    """The amount is more than is left to refund."""


class AccountExists(Conflict):
    """There is an account with this code already."""


class AccountInUse(Conflict):
    """The account's balance is not zero, or a pending transaction holds some of it."""


class ReferenceTaken(Conflict):
    """The tenant has used this reference before."""

    def __init__(self, detail: str | None = None, *, taken_by: UUID | None = None) -> None:
        """`taken_by` is what has it, where a response can say so."""
        super().__init__(detail)
        self.taken_by = taken_by


class NotPending(Conflict):
    """The transaction is not pending."""


class HoldExpired(Conflict):
    """The hold has expired."""


class NotPosted(Conflict):
    """Only a posted transaction can be reversed."""


class AlreadyReversed(Conflict):
    """The transaction was reversed already."""


class AccountClosed(Conflict):
    """Nothing can be posted to a closed account."""


class ConditionFailed(Conflict):
    """A condition of the transaction does not hold."""

    def __init__(self, detail: str, path: tuple[str | int, ...]) -> None:
        """`path` leads to the member of the body that states the condition."""
        super().__init__(detail)
        self.faults = (Fault(detail, path),)

    def within(self, *place: str | int) -> Self:
        """The same condition of a transaction that stands at `place` in a larger body."""
        self.faults = tuple(replace(fault, path=(*place, *fault.path)) for fault in self.faults)
        return self


class InsufficientFunds(Conflict):
    """An account would fall below its minimum."""


class LimitExceeded(Conflict):
    """A balance is, or would come to be, outside of its limits."""


class IdempotencyKeyReused(InvalidParameter):
    """This Idempotency-Key was already used for a different request."""

    def __init__(self) -> None:
        super().__init__("Idempotency-Key")


class TooBusy(Unavailable):
    """Too many requests are waiting. Nothing was done; repeat the request."""


class DatabaseUnavailable(Unavailable):
    """The database cannot be reached. Nothing was done; repeat the request."""


class LoginUnavailable(Unavailable):
    """Logins cannot be counted right now, so none is admitted."""


class SchemaMissing(Unavailable):
    """The database is not set up yet. An operator must run the migrations."""


class ChaosInjected(Unavailable):
    """An operator has this tenant's requests fail, to rehearse. Nothing was done; repeat the request."""


class ChaosStoreUnavailable(Unavailable):
    """Redis, which holds the injected faults, cannot be reached."""


class CurrenciesNotLoaded(Unavailable):
    """The currencies have not been read from the database yet. Nothing was done; repeat the request."""


class OutcomeUnknown(Unavailable):
    """The database did not say in time whether the change was made. Repeat it with the same Idempotency-Key."""


class DependencyUnavailable(Exception):
    """Something that the engine stands on, other than PostgreSQL, cannot be reached; no client reads this."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The outcome of a command that was refused; the other commands of its batch are not touched by it."""

    error: LedgerError


def together(refusals: Sequence[Invalid]) -> Invalid:
    """One refusal with the faults of all; a single one stays what it is."""
    return refusals[0] if len(refusals) == 1 else InvalidRequest([fault for each in refusals for fault in each.faults])
