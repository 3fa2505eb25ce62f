"""Instants and identifiers in URLs."""

from datetime import UTC, datetime

import pytest
from pydantic import TypeAdapter, ValidationError

from payments_ledger.web.parameters import CanonicalUUID, Instant

INSTANT = TypeAdapter(Instant)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T12:30:00", datetime(2026, 1, 31, 12, 30, tzinfo=UTC)),
        ("2026-01-31T12:30:00Z", datetime(2026, 1, 31, 12, 30, tzinfo=UTC)),
        ("2026-01-31T12:30:00-03:00", datetime(2026, 1, 31, 15, 30, tzinfo=UTC)),
        ("2026-01-31T12:30:00 03:00", datetime(2026, 1, 31, 9, 30, tzinfo=UTC)),
        ("2026-01-31T12:30:00.123456Z", datetime(2026, 1, 31, 12, 30, 0, 123456, tzinfo=UTC)),
    ],
)
def test_a_time_without_a_zone_is_utc(text: str, instant: datetime) -> None:
    assert INSTANT.validate_python(text) == instant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "1767225600",
        "2026",
        "2026-13-01",
        "2026-02-30",
        "2026-01-01T25:00",
        "yesterday",
        "9999-12-31T23:00:00-14:00",
        "0001-01-01T00:00:00+14:00",
        "٢٠٢٦-01-01",
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        INSTANT.validate_python(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "{01890a5d-ac96-774b-bcce-b302099a8057}",
        "01890a5dac96774bbcceb302099a8057",
        "urn:uuid:01890a5d-ac96-774b-bcce-b302099a8057",
        "01890a5d-ac96-774b-bcce-b302099a805g",
    ],
)
def test_only_the_canonical_spelling_is_a_uuid(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(CanonicalUUID).validate_python(text)
