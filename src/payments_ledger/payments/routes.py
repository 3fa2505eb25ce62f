"""The HTTP routes of payment intents: create one or many, read, change what is said of them, and move them."""

import json
from collections.abc import Sequence
from decimal import Decimal
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request, Response
from uuid_utils.compat import uuid7

from payments_ledger.access.caller import TENANT_PROBLEMS, Caller, caller_with
from payments_ledger.access.commands import Operation, OptionalKey, RequiredKey, refusal, rendering
from payments_ledger.access.pages import page_of
from payments_ledger.access.policy import Permission
from payments_ledger.access.resources import Resources, Shared
from payments_ledger.commit.audit import Origin
from payments_ledger.commit.idempotency import StoredResponse, fingerprint
from payments_ledger.errors import Forbidden, Invalid, InvalidAmount, PaymentNotFound, Rejected
from payments_ledger.money import Money, parse_money
from payments_ledger.payments.filters import RequestedFilter
from payments_ledger.payments.listing import list_payments
from payments_ledger.payments.payment import CancellationReason, Failure, Payment
from payments_ledger.payments.queries import find_payment
from payments_ledger.payments.schemas import (
    INTENT_EXAMPLE,
    BatchOutcomes,
    CancelRequest,
    CaptureRequest,
    FailRequest,
    PaymentIntent,
    PaymentIntentBatch,
    PaymentIntentChange,
    PaymentIntentRequest,
    TimelineEvent,
    outcomes_body,
    payment_body,
    show_line,
    show_payment,
)
from payments_ledger.payments.timeline import BEGINNING, Place, list_timeline
from payments_ledger.payments.use_cases import (
    AnnotatePayment,
    CancelPayment,
    CapturePayment,
    ConfirmPayment,
    CreatePayments,
    FailPayment,
    NewPayment,
    annotate_payments,
    cancel_payments,
    capture_payments,
    confirm_payments,
    create_payments,
    fail_payments,
)
from payments_ledger.postgres.database import Connection, transaction_time
from payments_ledger.process.portions import in_portions
from payments_ledger.validation.metadata import NO_METADATA
from payments_ledger.web.metadata_filter import METADATA_PARAMETER
from payments_ledger.web.paging import PAGE_LIMIT_MAX, Page
from payments_ledger.web.parameters import CanonicalUUID
from payments_ledger.web.problems import BODY_PROBLEMS, documented
from payments_ledger.web.routes import Route, UpTo

PATH = "/v1/payment-intents"
# Room for 1,000 payment intents of the longest references; metadata may take more, up to what a batch can carry.
BATCH_BYTES_MAX = 1024 * 1024
# The member of a batch's body that its items stand in.
ITEMS = "payment_intents"

router = APIRouter(prefix=PATH, tags=["payment intents"], route_class=Route)

Reader = Annotated[Caller, Depends(caller_with(Permission.PAYMENTS_READ))]
Writer = Annotated[Caller, Depends(caller_with(Permission.PAYMENTS_WRITE))]
PaymentId = Annotated[CanonicalUUID, Path(description="The payment intent", examples=[INTENT_EXAMPLE["id"]])]

# Of a capture or cancellation without a body.
_ALL_OF_IT = CaptureRequest()
_NO_REASON = CancelRequest()


async def _create_each(conn: Connection, commands: Sequence[CreatePayments]) -> list[Payment | Rejected]:
    """As create_payments, each command with one payment."""
    return [outcome for [outcome] in await create_payments(conn, commands)]


async def _render_many(outcomes: Sequence[Payment | Rejected], instance: str, origin: Origin) -> StoredResponse:
    each = (_outcome_of_batch(outcome, place, instance, origin) for place, outcome in enumerate(outcomes))
    return StoredResponse(HTTPStatus.OK, await outcomes_body((response.status, response.body) for response in each))


# What can be asked for, and what the response to it shows.
_rendering = rendering(payment_body)
CREATE = Operation(
    _create_each, rendering(payment_body, HTTPStatus.CREATED, location=lambda payment: f"{PATH}/{payment.id}")
)
CREATE_MANY = Operation(create_payments, _render_many)
CONFIRM = Operation(confirm_payments, _rendering)
CAPTURE = Operation(capture_payments, _rendering)
CANCEL = Operation(cancel_payments, _rendering)
FAIL = Operation(fail_payments, _rendering)
ANNOTATE = Operation(annotate_payments, _rendering)


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
    command = CreatePayments(caller.tenant_id, (_new_payment(body),), caller.origin)
    asked_for = fingerprint(str(body.money.amount), body.money.currency, body.customer_ref, *body.options)
    return await CREATE.respond(resources, caller, command, path=PATH, key=key, asked_for=asked_for)


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
    return await CREATE_MANY.respond(
        resources,
        caller,
        command,
        path=f"{PATH}/batch",
        key=key,
        asked_for=asked_for,
        commands=resources.bulk_commands,
    )


@router.post(
    "/{payment_id}/confirm",
    summary="Confirm a payment intent",
    response_model=PaymentIntent,
    responses=documented(*TENANT_PROBLEMS, HTTPStatus.CONFLICT),
)
async def confirm_payment_intent(
    caller: Writer, key: RequiredKey, payment_id: PaymentId, resources: Shared
) -> Response:
    """Authorizes the payment; its settlement follows, of a manual one after its capture.

    The Idempotency-Key is required.
    """
    await _require_amount(resources, caller, payment_id)
    command = ConfirmPayment(caller.tenant_id, payment_id, caller.origin)
    asked_for = fingerprint(str(payment_id))
    return await CONFIRM.respond(
        resources, caller, command, path=f"{PATH}/{payment_id}/confirm", key=key, asked_for=asked_for
    )


@router.post(
    "/{payment_id}/capture",
    summary="Capture a payment intent",
    response_model=PaymentIntent,
    responses=documented(*TENANT_PROBLEMS, *BODY_PROBLEMS, HTTPStatus.CONFLICT),
)
async def capture_payment_intent(
    caller: Writer, key: RequiredKey, payment_id: PaymentId, resources: Shared, body: CaptureRequest = _ALL_OF_IT
) -> Response:
    """Captures a manual payment that is AUTHORIZED, all of it or a part. Its settlement follows; the rest is released.

    The Idempotency-Key is required.
    """
    await _require_amount(resources, caller, payment_id, body.amount)
    command = CapturePayment(caller.tenant_id, payment_id, body.amount, caller.origin)
    asked_for = fingerprint(str(payment_id), decimal_text(body.amount))
    return await CAPTURE.respond(
        resources, caller, command, path=f"{PATH}/{payment_id}/capture", key=key, asked_for=asked_for
    )


@router.post(
    "/{payment_id}/cancel",
    summary="Cancel a payment intent",
    response_model=PaymentIntent,
    responses=documented(*TENANT_PROBLEMS, *BODY_PROBLEMS, HTTPStatus.CONFLICT),
)
async def cancel_payment_intent(
    caller: Writer, key: RequiredKey, payment_id: PaymentId, resources: Shared, body: CancelRequest = _NO_REASON
) -> Response:
    """Gives a payment up before anything of it is captured or settled. The Idempotency-Key is required."""
    reason = CancellationReason(body.reason) if body.reason else None
    command = CancelPayment(caller.tenant_id, payment_id, reason, caller.origin)
    asked_for = fingerprint(str(payment_id), body.reason or "")
    return await CANCEL.respond(
        resources, caller, command, path=f"{PATH}/{payment_id}/cancel", key=key, asked_for=asked_for
    )


@router.post(
    "/{payment_id}/fail",
    summary="Fail a payment intent",
    response_model=PaymentIntent,
    responses=documented(*TENANT_PROBLEMS, *BODY_PROBLEMS, HTTPStatus.CONFLICT),
)
async def fail_payment_intent(
    caller: Writer, key: RequiredKey, payment_id: PaymentId, body: FailRequest, resources: Shared
) -> Response:
    """Records that the payment failed, before anything of it is captured or settled.

    The Idempotency-Key is required.
    """
    failure = Failure(body.failure_code, body.failure_message)
    command = FailPayment(caller.tenant_id, payment_id, failure, caller.origin)
    asked_for = fingerprint(str(payment_id), body.failure_code, body.failure_message or "")
    return await FAIL.respond(
        resources, caller, command, path=f"{PATH}/{payment_id}/fail", key=key, asked_for=asked_for
    )


@router.patch(
    "/{payment_id}",
    summary="Change what is said of a payment intent",
    response_model=PaymentIntent,
    responses=documented(*TENANT_PROBLEMS, *BODY_PROBLEMS, HTTPStatus.METHOD_NOT_ALLOWED),
)
async def change_payment_intent(
    caller: Writer, payment_id: PaymentId, body: PaymentIntentChange, resources: Shared
) -> Response:
    """Changes what the client says of the payment, in any status (RFC 7396). No event tells of it."""
    description = "" if body.removes_description else body.description
    command = AnnotatePayment(caller.tenant_id, payment_id, description, body.metadata, caller.origin)
    return await ANNOTATE.respond(resources, caller, command, path=f"{PATH}/{payment_id}")


@router.get(
    "",
    summary="List payment intents",
    response_model=list[PaymentIntent],
    responses=documented(*TENANT_PROBLEMS),
    openapi_extra=METADATA_PARAMETER,
)
async def list_payment_intents(
    caller: Reader,
    wanted: RequestedFilter,
    page: Annotated[Page, Depends(page_of("payment intents", is_filtered=True))],
    resources: Shared,
) -> Response:
    """The tenant's payment intents that meet all filters, newest first.

    A page may have fewer than `limit`, even none, where few meet the filters: the list ends where no `Link` is. The
    next page is in `Link: <…>; rel="next"` (RFC 8288).
    """
    async with resources.database.transaction([caller.tenant_id]) as conn:
        listed = await list_payments(conn, caller.tenant_id, wanted, after=page.after, limit=page.rows_wanted)
        now = await transaction_time(conn)
    return await page.response(
        listed.payments,
        lambda payment: show_payment(payment, now),
        lambda payment: (payment.created_at, payment.id),
        goes_on_after=listed.goes_on_after,
    )


@router.get(
    "/{payment_id}",
    summary="Show a payment intent",
    response_model=PaymentIntent,
    # 405 for "batch", which is a path of its own.
    responses=documented(*TENANT_PROBLEMS, HTTPStatus.METHOD_NOT_ALLOWED),
)
async def get_payment_intent(caller: Reader, payment_id: PaymentId, resources: Shared) -> Response:
    """The payment intent as it is now."""
    async with resources.database.transaction([caller.tenant_id]) as conn:
        payment = await find_payment(conn, caller.tenant_id, payment_id)
        now = await transaction_time(conn)
    if payment is None:
        raise PaymentNotFound
    return Response(payment_body(payment, now), media_type="application/json")


@router.get(
    "/{payment_id}/timeline",
    summary="Show what happened to a payment intent",
    response_model=list[TimelineEvent],
    responses=documented(*TENANT_PROBLEMS),
)
async def list_timeline_of_payment(
    caller: Reader,
    payment_id: PaymentId,
    page: Annotated[Page, Depends(page_of("timeline", is_filtered=True, rows=PAGE_LIMIT_MAX))],
    resources: Shared,
) -> Response:
    """Each move, capture, refund, ledger entry and published event, oldest first.

    All of it, unless the payment has very many refunds: the next page is in `Link: <…>; rel="next"` (RFC 8288).
    """
    after = BEGINNING if page.after_code is None else Place.read(page.after_code)
    async with resources.database.transaction([caller.tenant_id]) as conn:
        payment = await find_payment(conn, caller.tenant_id, payment_id)
        lines = await list_timeline(conn, caller.tenant_id, payment_id, after=after, limit=page.rows_wanted)
    if payment is None:
        raise PaymentNotFound
    return await page.response_by_code(lines, show_line, lambda line: str(line.place))


def decimal_text(amount: Decimal | None) -> str:
    """The amount as a fingerprint has it, however it was spelled; "" for none."""
    return "" if amount is None else f"{amount.normalize():f}"


async def _require_amount(
    resources: Resources, caller: Caller, payment_id: UUID, amount: Decimal | None = None
) -> None:
    """Raises PolicyDenied if the policies do not allow the amount: of the request, or all of the payment.

    The amount of a payment never changes, so it can be asked for before the batch.
    """
    if not caller.is_bound_by_amounts:
        return
    async with resources.database.transaction([caller.tenant_id]) as conn:
        payment = await find_payment(conn, caller.tenant_id, payment_id)
    if payment:
        caller.require(Permission.PAYMENTS_WRITE, wanted_money(amount, payment.money))


def wanted_money(amount: Decimal | None, whole: Money) -> Money:
    """The amount in the currency of the whole; the whole without one, or with one that is refused further on."""
    try:
        return whole if amount is None else parse_money(amount, whole.currency)
    except InvalidAmount:
        return whole


def _new_payment(body: PaymentIntentRequest) -> NewPayment:
    return NewPayment(
        id=uuid7(),
        money=body.money,
        customer_ref=body.customer_ref,
        terms=body.terms,
        description=body.description,
        metadata=body.metadata or NO_METADATA,
    )


def _outcome_of_batch(outcome: Payment | Rejected, place: int, instance: str, origin: Origin) -> StoredResponse:
    if isinstance(outcome, Payment):
        return StoredResponse(HTTPStatus.CREATED, payment_body(outcome))
    error = outcome.error
    if isinstance(error, Invalid) and error.faults[0].path[:1] != (ITEMS,):
        # The use case does not know where in the request the payment stood.
        outcome = Rejected(error.within(ITEMS, place))
    return refusal(outcome, instance, origin)


def _payment_of_batch(caller: Caller, place: int, item: Any) -> tuple[str, NewPayment | Rejected]:
    """What one payment intent of many asks for, as text, and the payment to create, or why there is none.

    The text depends on the item alone: what policies say of it may be different when the request is repeated.
    """
    try:
        body = PaymentIntentRequest.read(item)
    except Invalid as error:
        refused = error
    else:
        asked_for = " ".join([str(body.money), body.customer_ref, *body.options])
        try:
            caller.require(Permission.PAYMENTS_WRITE, body.money)
        except Forbidden as error:
            return asked_for, Rejected(error)
        return asked_for, _new_payment(body)
    return json.dumps(item, sort_keys=True, default=str), Rejected(refused.within(ITEMS, place))


def _denial_among(payments: Sequence[NewPayment | Rejected]) -> Forbidden | None:
    errors = (payment.error for payment in payments if isinstance(payment, Rejected))
    return next((error for error in errors if isinstance(error, Forbidden)), None)
