"""Request bodies read exactly: numbers become Decimal from their text, and what is no JSON (RFC 8259) is refused."""

import json
from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

# Longer integers are no amount and no limit of ours; int() would take quadratic time over them.
_INTEGER_DIGITS_MAX = 40


def parse_exact_json(body: bytes) -> Any:
    """The value of a JSON text; raises json.JSONDecodeError, also for duplicate names and bottomless nesting.

    NaN and Infinity are no JSON, but they are read, so that whoever checks the field can refuse it by its name.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise json.JSONDecodeError("The body is not UTF-8", "", error.start) from None
    try:
        return json.loads(
            text,
            parse_float=Decimal,
            parse_int=_parse_integer,
            parse_constant=Decimal,
            object_pairs_hook=_refuse_duplicates,
        )
    except RecursionError:
        raise json.JSONDecodeError("The body is nested too deeply", "", 0) from None


def _parse_integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= _INTEGER_DIGITS_MAX else Decimal(digits)


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise json.JSONDecodeError("A name occurs twice in an object", "", 0)
    return members


class _ExactRequest(Request):
    async def json(self) -> Any:
        return parse_exact_json(await self.body())


class ExactJSONRoute(APIRoute):
    """A route whose body is read by `parse_exact_json`, after `admit` has let the request in."""

    async def admit(self, request: Request) -> None:
        """Raises what refuses the request whatever its body is."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_exactly(request: Request) -> Response:
            await self.admit(request)
            return await handle(_ExactRequest(request.scope, request.receive))

        return handle_exactly
