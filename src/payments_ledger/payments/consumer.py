"""The messages that payments follow: what is authorized is settled, what is manual once it was captured."""

import structlog
from prometheus_client import Histogram
from pydantic import ValidationError

from payments_ledger.commit.audit import Origin
from payments_ledger.commit.group_commit import GroupCommit
from payments_ledger.errors import IllegalMove, Rejected
from payments_ledger.messaging.messages import DeadLetter, Handler, Message
from payments_ledger.payments.events import PaymentEvent
from payments_ledger.payments.lifecycle import PAYMENT_AUTHORIZED, PAYMENT_CAPTURE_REQUESTED
from payments_ledger.payments.use_cases import SettlePayment, settle_payments
from payments_ledger.telemetry.tracing import current_trace
from payments_ledger.validation.faults import invalid_body

log = structlog.get_logger(__name__)

SETTLEMENT_SECONDS = Histogram(
    "ledger_settlement_seconds",
    "From a payment's confirmation to its settlement, by the database's clock",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0),
)

PRINCIPAL = "worker"


class PaymentMessages:
    """Handles payment.authorized and payment.capture_requested by submitting the settlement to the group commit."""

    def __init__(self, commands: GroupCommit) -> None:
        self._commands = commands

    def handlers(self) -> dict[str, Handler]:
        return {PAYMENT_AUTHORIZED: self.settle, PAYMENT_CAPTURE_REQUESTED: self.settle}

    async def settle(self, message: Message) -> None:
        """→ settle_payments. A payment that waits for its capture, is settled already, or cancelled, needs nothing."""
        event = _read(message)
        command = SettlePayment(event.tenant_id, event.payment_intent_id, Origin(PRINCIPAL, None, current_trace()))
        outcome = await self._commands.submit(settle_payments, command)
        if not isinstance(outcome, Rejected):
            log.info("payment settled", payment_intent_id=str(command.payment_id), tenant_id=command.tenant_id)
            SETTLEMENT_SECONDS.observe((outcome.updated_at - event.occurred_at).total_seconds())
        elif isinstance(outcome.error, IllegalMove):
            # A manual payment's authorization, a repetition, or what a cancellation has overtaken: no fault.
            log.info("nothing to settle", payment_intent_id=str(command.payment_id), reason=outcome.error.detail)
        else:
            raise DeadLetter(outcome.error.detail)


def _read(message: Message) -> PaymentEvent:
    try:
        return PaymentEvent.model_validate_json(message.body)
    except ValidationError as error:
        raise DeadLetter(f"not a payment event: {invalid_body(error).detail}") from None
