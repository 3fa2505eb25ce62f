"""A refund: a fact about a settled payment, with an id of its own. It gives back all of the payment or a part."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from payments_ledger.money import Money
from payments_ledger.validation.metadata import NO_METADATA

# A refund is done once it is in the books. PENDING and FAILED would be a payment provider's.
SUCCEEDED = "SUCCEEDED"


@dataclass(frozen=True, slots=True)
class Refund:
    """`money` was given back; `reference` is the client's own name of it, for ever unique in the tenant."""

    tenant_id: str
    id: UUID
    payment_id: UUID
    money: Money
    created_at: datetime
    reason: str | None = None
    reference: str | None = None
    metadata: Mapping[str, str] = NO_METADATA
    status: str = SUCCEEDED
