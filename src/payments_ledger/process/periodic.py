"""The one loop of everything that a process does again and again beside its main work."""

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import NoReturn

import psycopg
import structlog

from payments_ledger.errors import DependencyUnavailable, Unavailable

log = structlog.get_logger(__name__)


class Again(Enum):
    """What a step returns to be taken again without a pause: there is more of its work."""

    AT_ONCE = "at once"


type Step = Callable[[], Awaitable[object]]
"""Does one piece of the work; what it returns counts only if it is `Again.AT_ONCE`."""


async def repeat(
    name: str, step: Step, *, seconds: float, retry_seconds: float | None = None, first_after_seconds: float = 0
) -> NoReturn:
    """Takes a step every `seconds` until cancelled; `name` is what the log calls the work.

    A step that fails is logged and taken again after `retry_seconds` (`seconds` without them): an outage passes, and a
    fault in work on the side must not end a process that moves money.
    """
    await asyncio.sleep(first_after_seconds)
    while True:
        pause = seconds
        try:
            if await step() is Again.AT_ONCE:
                pause = 0
        except (Unavailable, DependencyUnavailable, psycopg.Error) as error:
            log.warning(f"{name} waits", reason=f"{type(error).__name__}: {error}")
            pause = seconds if retry_seconds is None else retry_seconds
        except Exception:
            log.exception(f"{name} failed")
            pause = seconds if retry_seconds is None else retry_seconds
        await asyncio.sleep(pause)
