"""The HTTP routes of payment intents: create one or many, read, confirm."""

import json
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from uuid_utils.compat import uuid7

from payments_ledger.access.caller import TENANT_PROBLEMS, Caller, caller_with
from payments_ledger.access.policy import Permission
from payments_ledger.access.resources import Resources, Shared
from payments_ledger.commit.audit import Origin
from payments_ledger.commit.group_commit import GroupCommit
from payments_ledger.commit.idempotency import (
    KEY_LENGTH_MAX,
    Key,
    Keyed,
    StoredResponse,
    fingerprint,
    respond_once,
)
from payments_ledger.errors import Forbidden, Invalid, PaymentNotFound, Rejected
from payments_ledger.payments.payment import Payment
from payments_ledger.payments.queries import find_payment
from payments_ledger.payments.schemas import (
    INTENT_EXAMPLE,
    BatchOutcomes,
    PaymentIntent,
    PaymentIntentBatch,
    PaymentIntentRequest,
    outcomes_body,
    payment_body,
)
from payments_ledger.payments.use_cases import (
    ConfirmPayment,
    CreatePayments,
    NewPayment,
    confirm_payments,
    create_payments,
)
from payments_ledger.process.portions import in_portions
from payments_ledger.validation.texts import Matching
from payments_ledger.web.parameters import CanonicalUUID
from payments_ledger.web.problems import BODY_PROBLEMS, documented, problem_body, status_of
from payments_ledger.web.routes import Route, UpTo

PATH = "/v1/payment-intents"
# Room for 1,000 payment intents of the longest references.
BATCH_BYTES_MAX = 1024 * 1024

router = APIRouter(prefix=PATH, tags=["payment intents"], route_class=Route)

Reader = Annotated[Caller, Depends(caller_with(Permission.PAYMENTS_READ))]
Writer = Annotated[Caller, Depends(caller_with(Permission.PAYMENTS_WRITE))]
PaymentId = Annotated[CanonicalUUID, Path(description="The payment intent", examples=[INTENT_EXAMPLE["id"]])]
_KeyText = Annotated[
    str, Matching(f"[ -~]{{1,{KEY_LENGTH_MAX}}}", f"must be 1 to {KEY_LENGTH_MAX} printable ASCII characters")
]
_KEY = Header(
    alias="Idempotency-Key",
    description="A repetition under the same key gets the first response again",
    examples=["6b0f1e0c-confirm-1"],
)
RequiredKey = Annotated[_KeyText, _KEY]
OptionalKey = Annotated[_KeyText | None, _KEY]


@router.post(
    "",
    summary="Create a payment intent",
    status_code=HTTPStatus.CREATED,
    response_model=PaymentIntent,
    responses=documented(*TENANT_PROBLEMS, *BODY_PROBLEMS, HTTPStatus.CONFLICT),
)
async def create_payment_intent(
    caller: Writer, body: PaymentIntentRequest, resources: Shared, key: OptionalKey = None
) -> Response:
    """Creates a payment intent. With an Idempotency-Key a repetition gets the first response."""
    caller.require(Permission.PAYMENTS_WRITE, body.money)
    payment = NewPayment(uuid7(), body.money, body.customer_ref)
    command = CreatePayments(caller.tenant_id, (payment,), caller.origin)
    asked_for = fingerprint(str(body.money.amount), body.money.currency, body.customer_ref)
    stored_under = _key(resources, caller, PATH, key, asked_for)
    return await _respond(resources.commands, CREATE(command, stored_under))


@router.post(
    "/batch",
    summary="Create many payment intents",
    response_model=BatchOutcomes,
    responses=documented(*TENANT_PROBLEMS, *BODY_PROBLEMS, HTTPStatus.CONFLICT),
)
async def create_payment_intents(
    caller: Writer,
    key: RequiredKey,
    body: Annotated[PaymentIntentBatch, UpTo(BATCH_BYTES_MAX)],
    request: Request,
    resources: Shared,
) -> Response:
    """Creates up to 1,000 payment intents, each with an outcome of its own. The Idempotency-Key is required.

    All that are valid are created together, or none if the request as a whole fails. It counts as one request.
    """
    items = in_portions(enumerate(body.payment_intents))
    read = [_payment_of_batch(caller, place, item) async for place, item in items]
    payments = tuple(payment for _, payment in read)
    if denial := _denial_among(payments):
        # One row of the audit log for a request of which the policies deny some: the response itself is no 403.
        resources.refusals.note(request, denial)
    command = CreatePayments(caller.tenant_id, payments, caller.origin)
    asked_for = fingerprint(*(asked_for for asked_for, _ in read))
    stored_under = _key(resources, caller, f"{PATH}/batch", key, asked_for)
    return await _respond(resources.bulk_commands, CREATE_MANY(command, stored_under))


@router.post(
    "/{payment_id}/confirm",
    summary="Confirm a payment intent",
    response_model=PaymentIntent,
    responses=documented(*TENANT_PROBLEMS, HTTPStatus.CONFLICT),
)
async def confirm_payment_intent(
    caller: Writer, key: RequiredKey, payment_id: PaymentId, resources: Shared
) -> Response:
    """Authorizes the payment; its settlement follows. The Idempotency-Key is required."""
    if caller.is_bound_by_amounts:
        # The amount of a payment never changes, so it can be asked for before the batch.
        payment = await _find_payment(resources, caller, payment_id)
        if payment:
            caller.require(Permission.PAYMENTS_WRITE, payment.money)
    command = ConfirmPayment(caller.tenant_id, payment_id, caller.origin)
    stored_under = _key(resources, caller, _confirm_path(payment_id), key, fingerprint(str(payment_id)))
    return await _respond(resources.commands, CONFIRM(command, stored_under))


@router.get(
    "/{payment_id}",
    summary="Show a payment intent",
    response_model=PaymentIntent,
    # 405 for "batch", which is a path of its own.
    responses=documented(*TENANT_PROBLEMS, HTTPStatus.METHOD_NOT_ALLOWED),
)
async def get_payment_intent(caller: Reader, payment_id: PaymentId, resources: Shared) -> Response:
    """The payment intent as it is now."""
    payment = await _find_payment(resources, caller, payment_id)
    if payment is None:
        raise PaymentNotFound
    return Response(payment_body(payment), media_type="application/json")


async def _find_payment(resources: Resources, caller: Caller, payment_id: UUID) -> Payment | None:
    async with resources.database.transaction([caller.tenant_id]) as conn:
        return await find_payment(conn, caller.tenant_id, payment_id)


async def _render_created(command: CreatePayments, outcomes: Sequence[Payment | Rejected]) -> StoredResponse:
    [outcome] = outcomes
    if isinstance(outcome, Payment):
        return StoredResponse(HTTPStatus.CREATED, payment_body(outcome), location=f"{PATH}/{outcome.id}")
    return _refusal(outcome, PATH, command.origin)


async def _render_confirmed(command: ConfirmPayment, outcome: Payment | Rejected) -> StoredResponse:
    if isinstance(outcome, Payment):
        return StoredResponse(HTTPStatus.OK, payment_body(outcome))
    return _refusal(outcome, _confirm_path(command.payment_id), command.origin)


async def _render_many(command: CreatePayments, outcomes: Sequence[Payment | Rejected]) -> StoredResponse:
    each = (_outcome_of_batch(command, place, outcome) for place, outcome in enumerate(outcomes))
    return StoredResponse(HTTPStatus.OK, await outcomes_body((response.status, response.body) for response in each))


def _outcome_of_batch(command: CreatePayments, place: int, outcome: Payment | Rejected) -> StoredResponse:
    if isinstance(outcome, Payment):
        return StoredResponse(HTTPStatus.CREATED, payment_body(outcome))
    if outcome is not command.payments[place] and isinstance(outcome.error, Invalid):
        # The use case does not know where in the request the payment stood.
        outcome = Rejected(outcome.error.within("payment_intents", place))
    return _refusal(outcome, f"{PATH}/batch", command.origin)


def _refusal(outcome: Rejected, instance: str, origin: Origin) -> StoredResponse:
    body = problem_body(outcome.error, instance=instance, correlation_id=origin.trace.correlation_id)
    return StoredResponse(status_of(outcome.error), body)


# What a route carries out, each with the command and the key that it was sent under.
CREATE = partial(Keyed, create_payments, _render_created)
CREATE_MANY = partial(Keyed, create_payments, _render_many)
CONFIRM = partial(Keyed, confirm_payments, _render_confirmed)


def _payment_of_batch(caller: Caller, place: int, item: Any) -> tuple[str, NewPayment | Rejected]:
    """What one payment intent of many asks for, as text, and the payment to create, or why there is none.

    The text depends on the item alone: what policies say of it may be different when the request is repeated.
    """
    try:
        body = PaymentIntentRequest.read(item)
    except Invalid as error:
        refusal = error
    else:
        asked_for = f"{body.money} {body.customer_ref}"
        try:
            caller.require(Permission.PAYMENTS_WRITE, body.money)
        except Forbidden as error:
            return asked_for, Rejected(error)
        return asked_for, NewPayment(uuid7(), body.money, body.customer_ref)
    return json.dumps(item, sort_keys=True, default=str), Rejected(refusal.within("payment_intents", place))


def _denial_among(payments: Sequence[NewPayment | Rejected]) -> Forbidden | None:
    errors = (payment.error for payment in payments if isinstance(payment, Rejected))
    return next((error for error in errors if isinstance(error, Forbidden)), None)


def _confirm_path(payment_id: UUID) -> str:
    return f"{PATH}/{payment_id}/confirm"


def _key(resources: Resources, caller: Caller, path: str, key: str | None, asked_for: bytes) -> Key | None:
    """`path` is the canonical one, so that a key counts for a resource, however its URL is spelled."""
    if key is None:
        return None
    lifetime_seconds = resources.settings.idempotency_ttl_seconds
    return Key(caller.tenant_id, caller.identity.subject, f"POST {path}", key, asked_for, lifetime_seconds)


async def _respond(commands: GroupCommit, request: Keyed[Any, Any]) -> Response:
    stored = await commands.submit(respond_once, request)
    if isinstance(stored, Rejected):
        raise stored.error
    headers = {"Idempotent-Replayed": "true"} if stored.replayed else {}
    if stored.location:
        headers["Location"] = stored.location
    media_type = "application/json" if stored.status < HTTPStatus.BAD_REQUEST else "application/problem+json"
    return Response(stored.body, stored.status, headers, media_type)
