"""Request bodies read exactly: numbers become Decimal from their text, and what is no JSON (RFC 8259) is refused."""

import asyncio
import json
import re
from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from payments_ledger.errors import BodyCutOff, BodyTooLarge, BodyTooSlow, UnsupportedMediaType

# Longer integers are no amount and no limit of ours; int() would take quadratic time over them.
_INTEGER_DIGITS_MAX = 40
# Deeper than any body of ours, and shallow enough for whatever looks at the value afterwards.
DEPTH_MAX = 16
# Many times our largest body. A field's own limit is beside the field.
BODY_BYTES_MAX = 64 * 1024
# From the head of the request to the end of its body, over the slowest line that is still worth serving.
BODY_SECONDS_MAX = 10.0

_TOO_DEEP = "The body is nested too deeply"
_JSON_TYPES = re.compile(r"application/(json|[a-z0-9.+-]+\+json)[ \t]*(;.*)?", re.ASCII | re.IGNORECASE)


def parse_exact_json(body: bytes) -> Any:
    """The value of a JSON text; raises json.JSONDecodeError, also for duplicate names and bottomless nesting.

    NaN and Infinity are no JSON, but they are read, so that whoever checks the field can refuse it by its name.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise json.JSONDecodeError("The body is not UTF-8", "", error.start) from None
    try:
        value = _DECODER.decode(text)
        _refuse_depth(value)
        return value
    except RecursionError:
        raise json.JSONDecodeError(_TOO_DEEP, "", 0) from None


def _refuse_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH_MAX):
        level = [
            child
            for container in level
            if isinstance(container, dict | list)
            for child in (container.values() if isinstance(container, dict) else container)
        ]
        if not level:
            return
    raise json.JSONDecodeError(_TOO_DEEP, "", 0)


def _parse_integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= _INTEGER_DIGITS_MAX else Decimal(digits)


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise json.JSONDecodeError("A name occurs twice in an object", "", 0)
    return members


_DECODER = json.JSONDecoder(
    parse_float=Decimal,
    parse_int=_parse_integer,
    parse_constant=Decimal,
    object_pairs_hook=_refuse_duplicates,
)


class _ExactRequest(Request):
    async def json(self) -> Any:
        return parse_exact_json(await self.body())

    async def body(self) -> bytes:
        """Raises BodyTooLarge, BodyTooSlow or BodyCutOff."""
        if not hasattr(self, "_body"):
            # A length that is no number never gets here; the server refuses it.
            if int(self.headers.get("content-length", 0)) > BODY_BYTES_MAX:
                raise BodyTooLarge
            try:
                async with asyncio.timeout(BODY_SECONDS_MAX):
                    self._body = await self._read()
            except TimeoutError:
                raise BodyTooSlow from None
            except ClientDisconnect:
                raise BodyCutOff from None
        return self._body

    async def _read(self) -> bytes:
        body = bytearray()
        async for chunk in self.stream():
            body += chunk
            if len(body) > BODY_BYTES_MAX:
                raise BodyTooLarge
        return bytes(body)


class ExactJSONRoute(APIRoute):
    """A route whose body is read by `parse_exact_json`, after `admit` has let the request in."""

    async def admit(self, request: Request) -> None:
        """Raises what refuses the request whatever its body is."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_exactly(request: Request) -> Response:
            await self.admit(request)
            exact = _ExactRequest(request.scope, request.receive)
            if self.body_field is not None:
                if not _JSON_TYPES.fullmatch(request.headers.get("content-type", "")):
                    raise UnsupportedMediaType
                # Read here, because FastAPI would make one vague 400 of whatever reading it raises.
                await exact.body()
            return await handle(exact)

        return handle_exactly
