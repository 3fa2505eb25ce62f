"""The filter `metadata.KEY=value` of lists: several of them are all to be met, exactly."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic import TypeAdapter, ValidationError

from payments_ledger.errors import Fault, InvalidRequest
from payments_ledger.validation.faults import NAME_LENGTH_MAX, describe
from payments_ledger.validation.metadata import PAIRS_MAX, VALUE_LENGTH_MAX, MetadataKey, MetadataValue
from payments_ledger.web.routes import QUERY_PREFIX

PREFIX = "metadata."

_KEY: TypeAdapter[str] = TypeAdapter(MetadataKey)
_VALUE: TypeAdapter[str] = TypeAdapter(MetadataValue)

# Of the routes that filter by it, since no signature names a parameter of any name, nor can the document: a client that
# is made from it has this one, and its users put their key in place of KEY.
METADATA_PARAMETER: dict[str, Any] = {
    "parameters": [
        {
            "name": f"{PREFIX}KEY",
            "in": "query",
            "description": "Only what has this pair, exactly. KEY is any key; with several keys all are to be met",
            "schema": {"type": "string", "maxLength": VALUE_LENGTH_MAX},
        }
    ]
}


def _metadata_filter(request: Request) -> Mapping[str, str]:
    names = [name for name in request.query_params if name.startswith(PREFIX)]
    if len(names) > PAIRS_MAX:
        raise InvalidRequest([Fault(f"must have at most {PAIRS_MAX} keys", parameter="metadata")])
    return {name.removeprefix(PREFIX): _checked(request, name) for name in names}


def _checked(request: Request, name: str) -> str:
    values = request.query_params.getlist(name)
    shown = name[:NAME_LENGTH_MAX]
    if len(values) > 1:
        raise InvalidRequest([Fault("was sent more than once", parameter=shown)])
    try:
        _KEY.validate_python(name.removeprefix(PREFIX))
        return _VALUE.validate_python(values[0])
    except ValidationError as error:
        detail = describe(error.errors(include_url=False, include_input=False)[0])
        raise InvalidRequest([Fault(detail, parameter=shown)]) from None


setattr(_metadata_filter, QUERY_PREFIX, PREFIX)

MetadataFilter = Annotated[Mapping[str, str], Depends(_metadata_filter)]
