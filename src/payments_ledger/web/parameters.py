"""Parameters of a request: headers, identifiers in their canonical spelling, instants with or without a zone."""

import re
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import Request
from pydantic import BeforeValidator

from payments_ledger.errors import RepeatedHeader

_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_NO_INSTANT = "must be a time such as 2026-01-31T00:00:00Z (ISO 8601; UTC without a zone)"
_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.]{5,15}(Z|[+-][0-9]{2}:[0-9]{2})?)?", re.ASCII)


def _check_uuid(text: str) -> str:
    if not _CANONICAL_UUID.fullmatch(text):
        raise ValueError("must be a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057")
    return text


def parse_instant(text: object) -> datetime:
    """The instant in UTC, of an ISO 8601 text; raises ValueError."""
    if not isinstance(text, str):
        raise ValueError(_NO_INSTANT)
    # A plus sign that was not percent-encoded arrives as a blank.
    text = re.sub(r" ([0-9]{2}:[0-9]{2})$", r"+\1", text) if "T" in text else text
    try:
        if not _INSTANT.fullmatch(text):
            raise ValueError
        instant = datetime.fromisoformat(text)
        return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(_NO_INSTANT) from None


def single_header(request: Request, name: str) -> str | None:
    """A header's value, None without one; raises RepeatedHeader."""
    values = request.headers.getlist(name)
    if len(values) > 1:
        raise RepeatedHeader(name, f"{name} was sent {len(values)} times.")
    return values[0] if values else None


def canonical(text: str) -> str:
    """A UUID in its canonical spelling, any other text as it is."""
    return text.lower() if _CANONICAL_UUID.fullmatch(text) else text


CanonicalUUID = Annotated[UUID, BeforeValidator(_check_uuid)]
Instant = Annotated[datetime, BeforeValidator(parse_instant)]
