"""`payments`: list, show, capture, cancel, refund."""

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import typer

from payments_ledger.cli.session import operate, operator
from payments_ledger.cli.settings import read_settings
from payments_ledger.cli.terminal import Json, Tenant, as_utc, print_columns, say
from payments_ledger.payments.lifecycle import Status

commands = typer.Typer(no_args_is_help=True, help="Payments of a tenant: list, show, capture, cancel, refund.")

Id = Annotated[UUID, typer.Argument(help="The payment intent.")]
REASONS = ("requested_by_customer", "duplicate", "fraudulent", "abandoned")


def _checked_amount(text: str | None) -> str | None:
    from payments_ledger.errors import InvalidAmount
    from payments_ledger.money import parse_amount

    try:
        if text is not None:
            parse_amount(text)
    except InvalidAmount as error:
        raise typer.BadParameter(error.detail) from None
    return text


def _checked_reason(text: str | None) -> str | None:
    if text is not None and text not in REASONS:
        raise typer.BadParameter(f"A reason is one of {', '.join(REASONS)}.")
    return text


Amount = Annotated[
    str | None,
    typer.Option(help="In major units of the payment's currency, such as 80.00.", callback=_checked_amount),
]


@commands.command("list")
def list_(
    tenant: Tenant,
    status: Annotated[list[Status] | None, typer.Option(help="In this status; repeatable.")] = None,
    customer_ref: Annotated[str | None, typer.Option(help="Of this customer.")] = None,
    order: Annotated[str | None, typer.Option(help="The one of this order.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="KEY=VALUE, exactly; repeatable.")] = None,
    since: Annotated[datetime | None, typer.Option("--from", help="Created from this time (UTC) on.")] = None,
    until: Annotated[datetime | None, typer.Option("--to", help="Created before this time (UTC).")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    json: Json = False,
) -> None:
    """List the tenant's newest payments, by any of these filters."""
    from payments_ledger.ledger.period import Period
    from payments_ledger.operations import payments
    from payments_ledger.payments.listing import PaymentFilter
    from payments_ledger.payments.schemas import payment_body

    pairs = [pair.partition("=") for pair in metadata or ()]
    if any(not separator for _, separator, _ in pairs):
        raise typer.BadParameter("Metadata is filtered by KEY=VALUE.")
    wanted = PaymentFilter(
        statuses=tuple(status or ()),
        customer_ref=customer_ref,
        order_id=order,
        metadata={key: value for key, _, value in pairs},
        period=Period(as_utc(since), as_utc(until)),
    )
    found = operate(read_settings(), lambda database: payments.list_newest(database, tenant, wanted, limit=limit))
    if json:
        _print_bodies(payment_body(each, datetime.now(UTC)) for each in found)
    elif found:
        rows = [(each.created_at, each.id, each.status, each.money, each.customer_ref, each.order_id) for each in found]
        print_columns(rows, "created", "id", "status", "amount", "customer_ref", "order_id")
    else:
        typer.echo("There are no such payments.")


@commands.command()
def show(id: Id, tenant: Tenant, json: Json = False) -> None:  # noqa: A002
    """Show a payment as clients see it, and its refunds."""
    from payments_ledger.operations import payments
    from payments_ledger.payments.schemas import payment_body
    from payments_ledger.refunds.schemas import refund_body

    shown = operate(read_settings(), lambda database: payments.show(database, tenant, id))
    bodies = [payment_body(shown.payment, shown.at), *map(refund_body, shown.refunds)]
    if json:
        _print_bodies(bodies)
        return
    _print_fields(bodies[0])
    if shown.refunds:
        typer.echo()
        rows = [
            (refund.created_at, refund.id, refund.money, refund.reference, refund.reason) for refund in shown.refunds
        ]
        print_columns(rows, "refunded at", "id", "amount", "reference", "reason")


@commands.command()
def capture(id: Id, tenant: Tenant, amount: Amount = None, json: Json = False) -> None:  # noqa: A002
    """Capture a manual payment that is AUTHORIZED: all of it, or an amount. The worker settles it then."""
    from payments_ledger.payments.use_cases import CapturePayment, capture_payments

    _move(capture_payments, CapturePayment(tenant, id, Decimal(amount) if amount else None, operator()), json)


@commands.command()
def cancel(
    id: Id,  # noqa: A002
    tenant: Tenant,
    reason: Annotated[str | None, typer.Option(help=f"{', '.join(REASONS)}.", callback=_checked_reason)] = None,
    json: Json = False,
) -> None:
    """Cancel a payment of which nothing was captured or settled."""
    from payments_ledger.payments.payment import CancellationReason
    from payments_ledger.payments.use_cases import CancelPayment, cancel_payments

    why = CancellationReason(reason) if reason else None
    _move(cancel_payments, CancelPayment(tenant, id, why, operator()), json)


@commands.command()
def refund(
    id: Id,  # noqa: A002
    tenant: Tenant,
    amount: Amount = None,
    reason: Annotated[str | None, typer.Option(help="For people, up to 200 characters.")] = None,
    reference: Annotated[
        str | None, typer.Option(help="Your own name of the refund; it can be used once, so a repetition is refused.")
    ] = None,
    json: Json = False,
) -> None:
    """Give back all that is left of a SETTLED payment, or an amount."""
    from payments_ledger.operations import payments
    from payments_ledger.refunds.schemas import RefundRequest, refund_body
    from payments_ledger.refunds.use_cases import RefundPayment, refund_payments

    asked = _read(RefundRequest, amount=amount, reason=reason, reference=reference)
    command = RefundPayment(tenant, id, asked.amount, operator(), asked.reason, asked.reference)
    made = operate(read_settings(), lambda database: payments.carry_out(database, refund_payments, command))
    _print(refund_body(made), json)


def _move(use_case: Any, command: Any, json: bool) -> None:
    from payments_ledger.operations import payments
    from payments_ledger.payments.schemas import payment_body

    payment = operate(read_settings(), lambda database: payments.carry_out(database, use_case, command))
    _print(payment_body(payment), json)


def _read(model: Any, **fields: str | None) -> Any:
    """The options as the body of a request would be read; a fault ends the command as any wrong option does."""
    from payments_ledger.errors import Invalid

    try:
        return model.read({name: value for name, value in fields.items() if value is not None})
    except Invalid as error:
        raise typer.BadParameter(error.detail) from None


def _print(body: bytes, json: bool) -> None:
    if json:
        _print_bodies([body])
    else:
        _print_fields(body)


def _print_bodies(bodies: Iterable[bytes]) -> None:
    for body in bodies:
        say(body.decode())


def _print_fields(body: bytes) -> None:
    import json

    fields = json.loads(body)
    print_columns([(name, value) for name, value in fields.items() if value not in (None, {})], "field", "value")
