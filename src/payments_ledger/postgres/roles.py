"""The roles that `migrate` makes, none of which can log in; they are named after the database of DATABASE_URL."""

from urllib.parse import unquote, urlsplit


def runtime_role(url: str) -> str:
    """The role that owns nothing, under which requests and messages run."""
    return f"{_database_name(url)}_runtime"


def relay_role(url: str) -> str:
    """The role that sees every tenant's outbox, counts of payments, and expired idempotency keys; nothing else."""
    return f"{_database_name(url)}_relay"


def auditor_role(url: str) -> str:
    """The role that reads the books of every tenant, and writes nothing."""
    return f"{_database_name(url)}_auditor"


def _database_name(url: str) -> str:
    return unquote(urlsplit(url).path.lstrip("/")) or "postgres"
