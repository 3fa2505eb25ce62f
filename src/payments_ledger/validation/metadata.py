"""Metadata: pairs of text that clients note on a thing of theirs, given back as they came. They mean nothing here."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from payments_ledger.errors import Invalid
from payments_ledger.validation.card_numbers import no_card_number
from payments_ledger.validation.texts import Matching, no_controls

NO_METADATA: Mapping[str, str] = MappingProxyType({})

PAIRS_MAX = 20
KEY_LENGTH_MAX = 40
VALUE_LENGTH_MAX = 500

MetadataKey = Annotated[
    str,
    Matching(
        rf"[A-Za-z0-9_.-]{{1,{KEY_LENGTH_MAX}}}", f"must have keys of 1 to {KEY_LENGTH_MAX} letters, digits, _ . -"
    ),
    AfterValidator(no_card_number),
]
MetadataValue = Annotated[
    str,
    StringConstraints(max_length=VALUE_LENGTH_MAX),
    AfterValidator(no_controls),
    AfterValidator(no_card_number),
]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=PAIRS_MAX, examples=[{"cart": "A-17"}])]
# By RFC 7396 (JSON Merge Patch): null removes a key. So a change may name more keys than there may be in the end.
MetadataChange = Annotated[
    dict[MetadataKey, MetadataValue | None],
    Field(max_length=2 * PAIRS_MAX, examples=[{"cart": "A-18", "seller": None}]),
]


def merge_metadata(metadata: Mapping[str, str], change: Mapping[str, str | None]) -> dict[str, str]:
    """The metadata after a change (RFC 7396); raises Invalid if these are more than PAIRS_MAX pairs."""
    merged = {key: value for key in [*metadata, *change] if (value := change.get(key, metadata.get(key))) is not None}
    if len(merged) > PAIRS_MAX:
        raise Invalid("metadata", f"must have at most {PAIRS_MAX} elements after the change")
    return merged
