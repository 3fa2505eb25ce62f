"""The HTTP routes of payment intents: create one or many, read, confirm."""

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Request, Response
from uuid_utils.compat import uuid7

from payments_ledger.audit import Origin
from payments_ledger.auth.caller import TENANT_PROBLEMS, Caller, admit, identify, tenant_headers
from payments_ledger.auth.policy import Permission
from payments_ledger.auth.refusals import Refusals
from payments_ledger.batching import Command, GroupCommit
from payments_ledger.errors import (
    Forbidden,
    Invalid,
    InvalidHeader,
    MissingHeader,
    PaymentNotFound,
    Rejected,
)
from payments_ledger.idempotency import KEY_LENGTH_MAX, Answer, Keyed, Operation, Scope, answer_once, fingerprint
from payments_ledger.payments.documents import (
    INTENT_EXAMPLE,
    BatchOutcomes,
    PaymentIntent,
    PaymentIntentBatch,
    PaymentIntentRequest,
    outcomes_body,
    payment_body,
    read_payment_intent,
)
from payments_ledger.payments.payment import Payment
from payments_ledger.payments.queries import find_payment
from payments_ledger.payments.use_cases import (
    ConfirmPayment,
    CreatePayment,
    CreatePayments,
    confirm_payments,
    create_many_payments,
    create_payments,
)
from payments_ledger.platform.parameters import CanonicalUUID, path_uuid
from payments_ledger.platform.portions import in_portions
from payments_ledger.platform.postgres import Database
from payments_ledger.platform.problems import BODY_PROBLEMS, documented, problem_body, status_of
from payments_ledger.platform.requests import DirectRoute, ExactRequest, read_body, read_json, single_header

PATH = "/v1/payment-intents"
KEY_HEADER = "Idempotency-Key"
# Room for 1,000 payment intents of the longest references.
BATCH_BYTES_MAX = 1024 * 1024


class PaymentRoute(DirectRoute):
    async def admit(self, request: Request) -> None:
        await identify(request)


router = APIRouter(
    prefix=PATH, tags=["payment intents"], route_class=PaymentRoute, dependencies=[Depends(tenant_headers)]
)

# For the document, like each route's function that ends in _request; the routes read the request themselves.
_KEY = Header(
    alias=KEY_HEADER,
    max_length=KEY_LENGTH_MAX,
    description="A repetition under the same key gets the first response again",
    examples=["6b0f1e0c-confirm-1"],
)
OptionalKey = Annotated[str | None, _KEY]
RequiredKey = Annotated[str, _KEY]
PaymentId = Annotated[CanonicalUUID, Path(description="The payment intent", examples=[INTENT_EXAMPLE["id"]])]


def create_request(body: PaymentIntentRequest, key: OptionalKey = None) -> None: ...


def batch_request(body: PaymentIntentBatch, key: RequiredKey) -> None: ...


def confirm_request(payment_id: PaymentId, key: RequiredKey) -> None: ...


def get_request(payment_id: PaymentId) -> None: ...


@router.post(
    "",
    summary="Create a payment intent",
    status_code=HTTPStatus.CREATED,
    dependencies=[Depends(create_request)],
    response_model=PaymentIntent,
    responses=documented(*TENANT_PROBLEMS, *BODY_PROBLEMS, HTTPStatus.CONFLICT),
)
async def create_payment_intent(request: ExactRequest) -> Response:
    """Creates a payment intent. With an Idempotency-Key a repetition gets the first answer."""
    caller = await admit(request, Permission.PAYMENTS_WRITE)
    body, money = read_payment_intent(await read_json(request))
    caller.require(Permission.PAYMENTS_WRITE, money)
    command = CreatePayment(caller.tenant_id, uuid7(), money, body.customer_ref, caller.origin)
    asked_for = fingerprint(str(money.amount), money.currency, body.customer_ref)
    return await _answer(request.app.state.commands, _keyed(request, PATH, caller, CREATE, command, asked_for))


@router.post(
    "/batch",
    summary="Create many payment intents",
    dependencies=[Depends(batch_request)],
    response_model=BatchOutcomes,
    responses=documented(*TENANT_PROBLEMS, *BODY_PROBLEMS, HTTPStatus.CONFLICT),
)
async def create_payment_intents(request: ExactRequest) -> Response:
    """Creates up to 1,000 payment intents, each with an outcome of its own. The Idempotency-Key is required.

    All that are valid are created together, or none if the request as a whole fails. It counts as one request.
    """
    caller = await admit(request, Permission.PAYMENTS_WRITE)
    _require_key(request)
    body = await read_body(request, PaymentIntentBatch, bytes_max=BATCH_BYTES_MAX)
    items = in_portions(enumerate(body.payment_intents))
    read = [_payment_of_batch(caller, place, item) async for place, item in items]
    payments = tuple(payment for _, payment in read)
    _note_refusal(request, payments)
    command = CreatePayments(caller.tenant_id, payments, caller.origin)
    keyed = _keyed(
        request, f"{PATH}/batch", caller, CREATE_MANY, command, fingerprint(*(asked_for for asked_for, _ in read))
    )
    return await _answer(request.app.state.bulk_commands, keyed)


@router.get("/batch", include_in_schema=False)
async def get_no_batch(request: ExactRequest) -> Response:
    """There is nothing to get here; without this it would be taken for the id of a payment intent."""
    raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED)


@router.post(
    "/{payment_id}/confirm",
    summary="Confirm a payment intent",
    dependencies=[Depends(confirm_request)],
    response_model=PaymentIntent,
    responses=documented(*TENANT_PROBLEMS, HTTPStatus.CONFLICT),
)
async def confirm_payment_intent(request: ExactRequest) -> Response:
    """Authorizes the payment; its settlement follows. The Idempotency-Key is required."""
    caller = await admit(request, Permission.PAYMENTS_WRITE)
    payment_id = path_uuid(request, "payment_id")
    _require_key(request)
    command = ConfirmPayment(caller.tenant_id, payment_id, caller.origin)
    keyed = _keyed(request, _confirm_path(payment_id), caller, CONFIRM, command, fingerprint(str(payment_id)))
    if caller.is_bound_by_amounts:
        # The amount of a payment never changes, so it can be asked for before the batch.
        database: Database = request.app.state.database
        async with database.transaction([caller.tenant_id]) as conn:
            payment = await find_payment(conn, caller.tenant_id, payment_id)
        if payment:
            caller.require(Permission.PAYMENTS_WRITE, payment.money)
    return await _answer(request.app.state.commands, keyed)


@router.get(
    "/{payment_id}",
    summary="Show a payment intent",
    dependencies=[Depends(get_request)],
    response_model=PaymentIntent,
    # 405 for "batch", which is a path of its own.
    responses=documented(*TENANT_PROBLEMS, HTTPStatus.METHOD_NOT_ALLOWED),
)
async def get_payment_intent(request: ExactRequest) -> Response:
    """The payment intent as it is now."""
    caller = await admit(request, Permission.PAYMENTS_READ)
    payment_id = path_uuid(request, "payment_id")
    database: Database = request.app.state.database
    async with database.transaction([caller.tenant_id]) as conn:
        payment = await find_payment(conn, caller.tenant_id, payment_id)
    if payment is None:
        raise PaymentNotFound
    return Response(payment_body(payment), media_type="application/json")


async def _render_created(command: CreatePayment, outcome: Payment | Rejected) -> Answer:
    if isinstance(outcome, Payment):
        return Answer(HTTPStatus.CREATED, payment_body(outcome), location=f"{PATH}/{outcome.id}")
    return _refusal(outcome, PATH, command.origin)


async def _render_confirmed(command: ConfirmPayment, outcome: Payment | Rejected) -> Answer:
    if isinstance(outcome, Payment):
        return Answer(HTTPStatus.OK, payment_body(outcome))
    return _refusal(outcome, _confirm_path(command.payment_id), command.origin)


async def _render_many(command: CreatePayments, outcomes: Sequence[Payment | Rejected]) -> Answer:
    answers = (_outcome_of_batch(command, place, outcome) for place, outcome in enumerate(outcomes))
    return Answer(HTTPStatus.OK, await outcomes_body((answer.status, answer.body) for answer in answers))


def _outcome_of_batch(command: CreatePayments, place: int, outcome: Payment | Rejected) -> Answer:
    if isinstance(outcome, Payment):
        return Answer(HTTPStatus.CREATED, payment_body(outcome))
    if outcome is not command.payments[place] and isinstance(outcome.error, Invalid):
        # The use case does not know where in the request the payment stood.
        outcome = Rejected(outcome.error.within("payment_intents", place))
    return _refusal(outcome, f"{PATH}/batch", command.origin)


def _refusal(outcome: Rejected, instance: str, origin: Origin) -> Answer:
    body = problem_body(outcome.error, instance=instance, correlation_id=origin.trace.correlation_id)
    return Answer(status_of(outcome.error), body)


CREATE = Operation(create_payments, _render_created)
CREATE_MANY = Operation(create_many_payments, _render_many)
CONFIRM = Operation(confirm_payments, _render_confirmed)


def _payment_of_batch(caller: Caller, place: int, item: Any) -> tuple[str, CreatePayment | Rejected]:
    """What one payment intent of many asks for, as text, and the command for it, or why there is none.

    The text depends on the item alone: what policies say of it may be different when the request is repeated.
    """
    try:
        body, money = read_payment_intent(item)
    except Invalid as error:
        refusal = error
    else:
        asked_for = f"{money} {body.customer_ref}"
        try:
            caller.require(Permission.PAYMENTS_WRITE, money)
        except Forbidden as error:
            return asked_for, Rejected(error)
        return asked_for, CreatePayment(caller.tenant_id, uuid7(), money, body.customer_ref, caller.origin)
    return json.dumps(item, sort_keys=True, default=str), Rejected(refusal.within("payment_intents", place))


def _note_refusal(request: Request, payments: Sequence[CreatePayment | Rejected]) -> None:
    """One row of the audit log for a request of which the policies deny some: the answer itself is no 403."""
    errors = [payment.error for payment in payments if isinstance(payment, Rejected)]
    if denial := next((error for error in errors if isinstance(error, Forbidden)), None):
        refusals: Refusals = request.app.state.refusals
        refusals.note(request, denial)


def _confirm_path(payment_id: UUID) -> str:
    return f"{PATH}/{payment_id}/confirm"


def _require_key(request: Request) -> None:
    if single_header(request, KEY_HEADER) is None:
        raise MissingHeader(KEY_HEADER)


def _keyed[C: Command](
    request: Request, path: str, caller: Caller, operation: Operation[C, Any], command: C, asked_for: bytes
) -> Keyed[C]:
    """The command with the request's Idempotency-Key; raises InvalidHeader or RepeatedHeader.

    `path` is the canonical one, so that a key counts for a resource, however its URL is spelled.
    """
    key = single_header(request, KEY_HEADER)
    if key is not None and not (0 < len(key) <= KEY_LENGTH_MAX and key.isascii() and key.isprintable()):
        raise InvalidHeader(KEY_HEADER, f"{KEY_HEADER} must be 1 to {KEY_LENGTH_MAX} printable ASCII characters.")
    scope = Scope(caller.tenant_id, caller.identity.subject, f"{request.method} {path}", key) if key else None
    return Keyed(operation, command, scope, asked_for, request.app.state.settings.idempotency_ttl_seconds)


async def _answer(commands: GroupCommit, keyed: Keyed[Any]) -> Response:
    answer = await commands.submit(answer_once, keyed)
    if isinstance(answer, Rejected):
        raise answer.error
    headers = {"Idempotent-Replayed": "true"} if answer.replayed else {}
    if answer.location:
        headers["Location"] = answer.location
    media_type = "application/json" if answer.status < HTTPStatus.BAD_REQUEST else "application/problem+json"
    return Response(answer.body, answer.status, headers, media_type)
