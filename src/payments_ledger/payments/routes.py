"""The HTTP routes of payment intents: create, read, confirm."""

from datetime import datetime
from decimal import Decimal
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from uuid_utils.compat import uuid7

from payments_ledger.auth.caller import TENANT_PROBLEMS, Caller, admit, tenant_headers
from payments_ledger.auth.policy import Permission
from payments_ledger.batching import Command, GroupCommit, UseCase
from payments_ledger.errors import InvalidHeader, MissingHeader, PaymentNotFound, Rejected
from payments_ledger.idempotency import KEY_LENGTH_MAX, Answer, Keyed, Scope, answer_once, fingerprint
from payments_ledger.money import format_amount, parse_money
from payments_ledger.payments.card_numbers import holds_card_number
from payments_ledger.payments.payment import Payment, Status
from payments_ledger.payments.queries import find_payment
from payments_ledger.payments.use_cases import ConfirmPayment, CreatePayment, confirm_payments, create_payments
from payments_ledger.platform.parameters import CanonicalUUID, path_uuid
from payments_ledger.platform.postgres import Database
from payments_ledger.platform.problems import BODY_PROBLEMS, documented, problem_body, status_of
from payments_ledger.platform.requests import DirectRoute, ExactRequest, read_body, single_header

PATH = "/v1/payment-intents"

router = APIRouter(
    prefix=PATH, tags=["payment intents"], route_class=DirectRoute, dependencies=[Depends(tenant_headers)]
)

# For the document, like each route's function that ends in _request; the routes read the request themselves.
OptionalKey = Annotated[str | None, Header(alias="Idempotency-Key", max_length=KEY_LENGTH_MAX)]
RequiredKey = Annotated[str, Header(alias="Idempotency-Key", max_length=KEY_LENGTH_MAX)]


def _number_or_text(amount: Any) -> Any:
    if isinstance(amount, bool) or not isinstance(amount, str | int | Decimal):
        raise ValueError("must be a number or a decimal text such as 100.00")
    return amount


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must not hold control characters or lone surrogates")
    return text


def _no_card_number(text: str) -> str:
    if holds_card_number(text):
        raise ValueError("must not hold what looks like a card number")
    return text


class PaymentIntentRequest(BaseModel):
    """`amount` in major units (100.00), as a number or as text: exact either way, never a float."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    amount: Annotated[
        Any,
        BeforeValidator(_number_or_text),
        WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}], "examples": ["100.00"]}),
    ]
    currency: Annotated[str, Field(min_length=3, max_length=3, examples=["BRL"])]
    customer_ref: Annotated[
        str,
        StringConstraints(min_length=1, max_length=128),
        AfterValidator(_printable),
        AfterValidator(_no_card_number),
    ]


class PaymentIntent(BaseModel):
    """`amount` is a decimal text with all the decimal places of its currency (ISO 4217)."""

    id: str
    amount: str
    currency: str
    status: Status
    customer_ref: str
    created_at: datetime
    updated_at: datetime


def create_request(body: PaymentIntentRequest, key: OptionalKey = None) -> None: ...


def confirm_request(payment_id: CanonicalUUID, key: RequiredKey) -> None: ...


def get_request(payment_id: CanonicalUUID) -> None: ...


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    dependencies=[Depends(create_request)],
    response_model=PaymentIntent,
    responses=documented(*TENANT_PROBLEMS, *BODY_PROBLEMS, HTTPStatus.CONFLICT),
)
async def create_payment_intent(request: ExactRequest) -> Response:
    """Creates a payment intent. With an Idempotency-Key a repetition gets the first answer."""
    caller = await admit(request, Permission.PAYMENTS_WRITE)
    body = await read_body(request, PaymentIntentRequest)
    money = parse_money(body.amount, body.currency)
    caller.require(Permission.PAYMENTS_WRITE, money)
    command = CreatePayment(caller.tenant_id, uuid7(), money, body.customer_ref, caller.origin)
    asked_for = fingerprint(str(money.amount), money.currency, body.customer_ref)
    return await _answer(request, create_once, _keyed(request, caller, command, asked_for))


@router.post(
    "/{payment_id}/confirm",
    dependencies=[Depends(confirm_request)],
    response_model=PaymentIntent,
    responses=documented(*TENANT_PROBLEMS, HTTPStatus.CONFLICT),
)
async def confirm_payment_intent(request: ExactRequest) -> Response:
    """Authorizes the payment; its settlement follows. The Idempotency-Key is required."""
    caller = await admit(request, Permission.PAYMENTS_WRITE)
    payment_id = path_uuid(request, "payment_id")
    if single_header(request, "Idempotency-Key") is None:
        raise MissingHeader("Idempotency-Key is missing.")
    command = ConfirmPayment(caller.tenant_id, payment_id, caller.origin)
    keyed = _keyed(request, caller, command, fingerprint(str(payment_id)))
    if caller.is_bound_by_amounts:
        # The amount of a payment never changes, so it can be asked for before the batch.
        database: Database = request.app.state.database
        async with database.transaction([caller.tenant_id]) as conn:
            payment = await find_payment(conn, caller.tenant_id, payment_id)
        if payment:
            caller.require(Permission.PAYMENTS_WRITE, payment.money)
    return await _answer(request, confirm_once, keyed)


@router.get(
    "/{payment_id}",
    dependencies=[Depends(get_request)],
    response_model=PaymentIntent,
    responses=documented(*TENANT_PROBLEMS),
)
async def get_payment_intent(request: ExactRequest) -> Response:
    caller = await admit(request, Permission.PAYMENTS_READ)
    payment_id = path_uuid(request, "payment_id")
    database: Database = request.app.state.database
    async with database.transaction([caller.tenant_id]) as conn:
        payment = await find_payment(conn, caller.tenant_id, payment_id)
    if payment is None:
        raise PaymentNotFound
    return Response(payment_body(payment), media_type="application/json")


def _render_created(command: CreatePayment, payment: Payment) -> Answer:
    return Answer(HTTPStatus.CREATED, payment_body(payment), location=f"{PATH}/{payment.id}")


def _render_confirmed(command: ConfirmPayment, outcome: Payment | Rejected) -> Answer:
    if isinstance(outcome, Payment):
        return Answer(HTTPStatus.OK, payment_body(outcome))
    body = problem_body(
        outcome.error,
        instance=f"{PATH}/{command.payment_id}/confirm",
        correlation_id=command.origin.trace.correlation_id,
    )
    return Answer(status_of(outcome.error), body)


create_once = answer_once(create_payments, _render_created)
confirm_once = answer_once(confirm_payments, _render_confirmed)


def _keyed[C: Command](request: Request, caller: Caller, command: C, asked_for: bytes) -> Keyed[C]:
    """The command with the request's Idempotency-Key; raises InvalidHeader or RepeatedHeader."""
    key = single_header(request, "Idempotency-Key")
    if key is not None and not (0 < len(key) <= KEY_LENGTH_MAX and key.isascii() and key.isprintable()):
        raise InvalidHeader(f"Idempotency-Key must be 1 to {KEY_LENGTH_MAX} printable ASCII characters.")
    route = f"{request.method} {request.url.path}"
    scope = Scope(caller.tenant_id, caller.identity.subject, route, key) if key else None
    return Keyed(command, scope, asked_for, request.app.state.settings.idempotency_ttl_seconds)


async def _answer[C: Command](
    request: Request, use_case: UseCase[Keyed[C], Answer | Rejected], keyed: Keyed[C]
) -> Response:
    commands: GroupCommit = request.app.state.commands
    answer = await commands.submit(use_case, keyed)
    if isinstance(answer, Rejected):
        raise answer.error
    headers = {"Idempotent-Replayed": "true"} if answer.replayed else {}
    if answer.location:
        headers["Location"] = answer.location
    media_type = "application/json" if answer.status < HTTPStatus.BAD_REQUEST else "application/problem+json"
    return Response(answer.body, answer.status, headers, media_type)


def payment_body(payment: Payment) -> bytes:
    """The payment as clients see it, to the byte."""
    body = PaymentIntent.model_construct(
        id=str(payment.id),
        amount=format_amount(payment.money.amount, payment.money.currency),
        currency=payment.money.currency,
        status=payment.status,
        customer_ref=payment.customer_ref,
        created_at=payment.created_at,
        updated_at=payment.updated_at,
    )
    return body.model_dump_json().encode()
