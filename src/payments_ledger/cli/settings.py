"""The settings of a command: those of the environment, or of the engine that `payments-ledger dev` runs."""

import logging
from typing import TYPE_CHECKING

from payments_ledger.cli.embedded import with_embedded_engine
from payments_ledger.cli.terminal import CANNOT, fail

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from payments_ledger.process.settings import Settings


def read_settings(*, serves: bool = False, connects: bool = True) -> "Settings":
    """The settings of the environment; ends the command if one is not valid.

    Without a DATABASE_URL a command that `connects` to the services uses the engine of `payments-ledger dev`, if there
    is one. Only what `serves` logs; another command reports what matters itself, and its output is its own.
    """
    from pydantic import ValidationError

    from payments_ledger.process.settings import Settings
    from payments_ledger.telemetry.logs import configure_logging

    try:
        settings = Settings()
    except ValidationError as error:
        faults = "\n".join(map(_fault, error.errors()))
        fail(faults, "These settings are environment variables; see .env.example.", CANNOT)
    configure_logging(level=settings.log_level if serves else "CRITICAL", log_format=settings.log_format)
    if serves:
        return settings
    # Some libraries' loggers have levels of their own.
    logging.disable()
    return with_embedded_engine(settings) if connects else settings


def _fault(fault: "ErrorDetails") -> str:
    """One line: the variable, if it is one alone, and what is wrong with it."""
    message = fault["msg"].removeprefix("Value error, ")
    return f"{'.'.join(map(str, fault['loc'])).upper()}: {message}" if fault["loc"] else f"{message}."
