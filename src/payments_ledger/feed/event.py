"""An event as it stands in its tenant's feed."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """`position` rises within the tenant, `place` over all of them; `payload` is what a broker's consumers get."""

    tenant_id: str
    position: int
    place: int
    id: UUID
    type: str
    aggregate_id: UUID
    sequence: int
    correlation_id: str
    created_at: datetime
    payload: dict[str, Any]
