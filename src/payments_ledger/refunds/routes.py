"""The HTTP routes of refunds: make one, list them, show one."""

import json
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Response

from payments_ledger.access.caller import TENANT_PROBLEMS, Caller, caller_with
from payments_ledger.access.commands import Operation, RequiredKey, rendering
from payments_ledger.access.pages import page_of
from payments_ledger.access.policy import Permission
from payments_ledger.access.resources import Resources, Shared
from payments_ledger.commit.idempotency import fingerprint
from payments_ledger.errors import PaymentNotFound, RefundNotFound
from payments_ledger.ledger.period import Period
from payments_ledger.ledger.schemas import RequestedPeriod
from payments_ledger.money import Money
from payments_ledger.payments.queries import find_payment
from payments_ledger.payments.routes import PATH as PAYMENTS_PATH
from payments_ledger.payments.routes import PaymentId, decimal_text, wanted_money
from payments_ledger.refunds import queries
from payments_ledger.refunds.schemas import (
    REFUND_EXAMPLE,
    PaymentRefund,
    Reference,
    RefundRequest,
    refund_body,
    show_refund,
)
from payments_ledger.refunds.use_cases import RefundPayment, refund_payments
from payments_ledger.validation.metadata import NO_METADATA
from payments_ledger.web.paging import Page
from payments_ledger.web.parameters import CanonicalUUID
from payments_ledger.web.problems import BODY_PROBLEMS, documented
from payments_ledger.web.routes import Route

PATH = "/v1/refunds"

router = APIRouter(tags=["refunds"], route_class=Route)

Reader = Annotated[Caller, Depends(caller_with(Permission.PAYMENTS_READ))]
Refunder = Annotated[Caller, Depends(caller_with(Permission.PAYMENTS_REFUND))]
RefundId = Annotated[CanonicalUUID, Path(description="The refund", examples=[REFUND_EXAMPLE["id"]])]
RefundsPage = Annotated[Page, Depends(page_of("refunds", is_filtered=True))]

# Of a refund without a body.
_ALL_THAT_IS_LEFT = RefundRequest()

REFUND = Operation(
    refund_payments, rendering(refund_body, HTTPStatus.CREATED, location=lambda refund: f"{PATH}/{refund.id}")
)


@router.post(
    PAYMENTS_PATH + "/{payment_id}/refunds",
    summary="Refund a payment intent",
    status_code=HTTPStatus.CREATED,
    response_model=PaymentRefund,
    responses=documented(*TENANT_PROBLEMS, *BODY_PROBLEMS, HTTPStatus.CONFLICT),
)
async def create_refund(
    caller: Refunder,
    key: RequiredKey,
    payment_id: PaymentId,
    resources: Shared,
    body: RefundRequest = _ALL_THAT_IS_LEFT,
) -> Response:
    """Gives back all that is left of a SETTLED payment, or a part of it. The Idempotency-Key is required."""
    await _require_amount(resources, caller, payment_id, body)
    command = RefundPayment(
        tenant_id=caller.tenant_id,
        payment_id=payment_id,
        amount=body.amount,
        origin=caller.origin,
        reason=body.reason,
        reference=body.reference,
        metadata=body.metadata or NO_METADATA,
    )
    asked_for = fingerprint(
        str(payment_id),
        decimal_text(body.amount),
        body.reason or "",
        body.reference or "",
        json.dumps(body.metadata or {}, sort_keys=True),
    )
    path = f"{PAYMENTS_PATH}/{payment_id}/refunds"
    return await REFUND.respond(resources, caller, command, path=path, key=key, asked_for=asked_for)


@router.get(
    PAYMENTS_PATH + "/{payment_id}/refunds",
    summary="List the refunds of a payment intent",
    response_model=list[PaymentRefund],
    responses=documented(*TENANT_PROBLEMS),
)
async def list_refunds_of_payment(
    caller: Reader, payment_id: PaymentId, page: RefundsPage, resources: Shared
) -> Response:
    """The payment's refunds, newest first; the next page is in `Link: <…>; rel="next"` (RFC 8288)."""
    async with resources.database.transaction([caller.tenant_id]) as conn:
        if await find_payment(conn, caller.tenant_id, payment_id) is None:
            raise PaymentNotFound
    return await _page_of_refunds(caller, resources, page, Period(), payment_id=payment_id)


@router.get(
    PATH,
    summary="List refunds",
    response_model=list[PaymentRefund],
    responses=documented(*TENANT_PROBLEMS),
)
async def list_refunds(
    caller: Reader,
    period: RequestedPeriod,
    page: RefundsPage,
    resources: Shared,
    payment_intent_id: Annotated[CanonicalUUID | None, Query(description="Those of this payment intent")] = None,
    reference: Annotated[Reference | None, Query(description="The one with this reference")] = None,
) -> Response:
    """The tenant's refunds, newest first; the next page is in `Link: <…>; rel="next"` (RFC 8288)."""
    return await _page_of_refunds(caller, resources, page, period, payment_id=payment_intent_id, reference=reference)


@router.get(
    PATH + "/{refund_id}",
    summary="Show a refund",
    response_model=PaymentRefund,
    responses=documented(*TENANT_PROBLEMS),
)
async def get_refund(caller: Reader, refund_id: RefundId, resources: Shared) -> Response:
    """The refund; it never changes."""
    async with resources.database.transaction([caller.tenant_id]) as conn:
        refund = await queries.find_refund(conn, caller.tenant_id, refund_id)
    if refund is None:
        raise RefundNotFound
    return Response(refund_body(refund), media_type="application/json")


async def _page_of_refunds(
    caller: Caller,
    resources: Resources,
    page: Page,
    period: Period,
    *,
    payment_id: UUID | None,
    reference: str | None = None,
) -> Response:
    async with resources.database.transaction([caller.tenant_id]) as conn:
        refunds = await queries.list_refunds(
            conn,
            caller.tenant_id,
            period,
            payment_id=payment_id,
            reference=reference,
            after=page.after,
            limit=page.rows_wanted,
        )
    return await page.response(refunds, show_refund, lambda refund: (refund.created_at, refund.id))


async def _require_amount(resources: Resources, caller: Caller, payment_id: UUID, body: RefundRequest) -> None:
    """Raises PolicyDenied if the policies do not allow the amount: of the request, or what is left."""
    if not caller.is_bound_by_amounts:
        return
    async with resources.database.transaction([caller.tenant_id]) as conn:
        payment = await find_payment(conn, caller.tenant_id, payment_id)
    if payment and payment.amount_refundable:
        left = Money(payment.amount_refundable, payment.money.currency)
        caller.require(Permission.PAYMENTS_REFUND, wanted_money(body.amount, left))
