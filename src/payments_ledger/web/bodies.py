"""Bodies of requests: read within limits of size and time, to the digit, and checked by their model."""

import asyncio
import json
import re
from typing import Any, Self

from fastapi import Request
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import ClientDisconnect

from payments_ledger.errors import (
    BodyCutOff,
    BodyTooLarge,
    BodyTooSlow,
    Fault,
    InvalidRequest,
    MalformedJson,
    UnsupportedMediaType,
)
from payments_ledger.process.portions import turn
from payments_ledger.validation.exact_json import parse_exact_json
from payments_ledger.validation.faults import invalid_body

# Many times the largest body of a single command. A field's own limit is beside the field.
BODY_BYTES_MAX = 64 * 1024
# From the head of the request to the end of its body, over the slowest line that is still worth serving.
BODY_SECONDS_MAX = 10.0

_JSON_TYPES = re.compile(r"application/(json|[a-z0-9.+-]+\+json)[ \t]*(;.*)?", re.ASCII | re.IGNORECASE)


class Body(BaseModel):
    """An object in the body of a request: members that it does not have are refused, not passed over."""

    model_config = ConfigDict(extra="forbid")

    @classmethod
    def read(cls, value: Any) -> Self:
        """The JSON value as this model; raises Invalid with all its faults."""
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise invalid_body(error) from None


async def read_body[M: Body](
    request: Request, model: type[M], *, bytes_max: int = BODY_BYTES_MAX, default: M | None = None
) -> M:
    """The JSON body as the model has it; `default` stands for none.

    Raises UnsupportedMediaType, BodyTooLarge, BodyTooSlow, BodyCutOff, MalformedJson or Invalid.
    """
    if default is not None and not _announces_body(request):
        return default
    if not _JSON_TYPES.fullmatch(request.headers.get("content-type", "")):
        raise UnsupportedMediaType
    body = await _receive(request, bytes_max)
    if not body and default is not None:
        return default
    if not body:
        raise InvalidRequest([Fault("is required")])
    if len(body) > BODY_BYTES_MAX:
        # Large bodies that arrive together are read one after the other, and others are served in between.
        await turn()
    try:
        value = parse_exact_json(body)
    except json.JSONDecodeError as error:
        raise MalformedJson(f"The body is not JSON: {error.msg}.") from None
    return model.read(value)


def _announces_body(request: Request) -> bool:
    """RFC 9112, section 6.3: without either of these headers a request has no body."""
    return "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"


async def _receive(request: Request, bytes_max: int) -> bytes:
    # A length that is no number never gets here; the server refuses it.
    if int(request.headers.get("content-length", 0)) > bytes_max:
        raise BodyTooLarge
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            async for chunk in request.stream():
                body += chunk
                if len(body) > bytes_max:
                    raise BodyTooLarge
    except TimeoutError:
        raise BodyTooSlow from None
    except ClientDisconnect:
        raise BodyCutOff from None
    return bytes(body)
