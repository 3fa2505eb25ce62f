"""The engine that `payments-ledger dev` runs: a command without DATABASE_URL finds it by its data folder."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from payments_ledger.cli.terminal import CANNOT, errors, fail

if TYPE_CHECKING:
    from payments_ledger.process.settings import Settings

DATA_VARIABLE = "LEDGER_DATA"
DATA_FOLDER = ".ledger"


def with_embedded_engine(settings: "Settings") -> "Settings":
    """These settings, pointed at the engine in the data folder if there is one and no DATABASE_URL was given.

    Ends the command if that engine is not running.
    """
    folder = Path(os.environ.get(DATA_VARIABLE, DATA_FOLDER))
    given = "database_url" in settings.model_fields_set
    if given or settings.app_env == "production" or not (folder / "postgres" / "data").exists():
        return settings

    from payments_ledger.demo.embedded_postgres import EmbeddedPostgres
    from payments_ledger.process.settings import MEMORY_URL

    postgres = EmbeddedPostgres(folder / "postgres")
    if not postgres.is_listening():
        what = f"The engine in {folder} is not running, and DATABASE_URL is not set."
        fail(what, "Start it with ./scripts/dev.sh, or set DATABASE_URL.", CANNOT)
    errors.print(f"Using the engine in {folder}.", style="dim", markup=False, highlight=False, soft_wrap=True)
    # As in demo/dev.py, whatever the environment says.
    services = {"database_url": postgres.url(), "redis_url": MEMORY_URL, "rabbitmq_url": MEMORY_URL}
    return settings.model_copy(update=services)
