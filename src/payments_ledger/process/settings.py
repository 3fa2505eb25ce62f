"""The settings: environment variables (or a .env file) by the names below, which docs/reference/settings.md lists."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from payments_ledger.process.failpoints import read_failpoints
from payments_ledger.process.production import unfit

MEMORY_URL = "memory://"
DEFAULT_SECRET = "change-me"  # noqa: S105
# What is published again, followed by an operator or audited in the background is days old at most.
RETENTION_DAYS_MIN = 7


def _with_scheme(*schemes: str) -> AfterValidator:
    def check(url: str) -> str:
        if not url.startswith(schemes):
            raise ValueError(f"must begin with {' or '.join(schemes)}")
        return url

    return AfterValidator(check)


def _split(text: object) -> object:
    return tuple(filter(None, map(str.strip, text.split(",")))) if isinstance(text, str) else text


# NoDecode: a list in the environment is written as people write one, not as JSON.
CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
CommaSeparatedSecrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split)]


def _readable(failpoints: str) -> str:
    read_failpoints(failpoints)
    return failpoints


def _no_less_than_a_week(days: int) -> int:
    """0 stands for ever."""
    if 0 < days < RETENTION_DAYS_MIN:
        raise ValueError(f"rows are kept for {RETENTION_DAYS_MIN} days at least, or with 0 for ever")
    return days


class Settings(BaseSettings):
    """Read once when a process starts. A URL's scheme picks the implementation."""

    # A refused setting may be a secret: errors do not repeat it.
    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", hide_input_in_errors=True, use_attribute_docstrings=True
    )

    app_env: Literal["development", "production"] = "development"
    """`production` refuses to start with settings that are unsafe there."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least severe lines that are logged."""
    log_format: Literal["json", "console"] = "json"
    """`json`: one object a line; `console`: coloured lines for a person."""

    database_url: Annotated[str, _with_scheme("postgresql+psycopg://", "postgresql://")] = (
        "postgresql+psycopg://app:app@postgres:5432/app"
    )
    """PostgreSQL 16 or newer; `postgresql://` works too. The user owns the database and has CREATEROLE."""
    database_pool_size: Annotated[int, Field(ge=2, le=100)] = 4
    """PostgreSQL connections of a process; a worker holds up to 4 more: outbox, retention, audit of the books."""
    redis_url: Annotated[str, _with_scheme("redis://", "rediss://", MEMORY_URL)] = "redis://redis:6379/0"
    """Redis 7 or newer: `redis://`, `rediss://`, or `memory://`, with which each process counts for itself."""
    rabbitmq_url: Annotated[str, _with_scheme("amqp://", "amqps://", MEMORY_URL)] = "amqp://guest:guest@rabbitmq:5672/"
    """RabbitMQ: `amqp://`, `amqps://`, or `memory://`, with which the worker hands each event to its own handlers."""

    jwt_secret: SecretStr = SecretStr(DEFAULT_SECRET)
    """Signs tokens and page cursors; the same for all API processes. Change it: production refuses the default, and
    Compose has none.
    """
    jwt_secrets_previous: CommaSeparatedSecrets = ()
    """Former secrets whose tokens are still accepted."""
    jwt_issuer: str = "local-auth"
    """The issuer (`iss`) that tokens carry and must carry."""
    jwt_audience: str | None = None
    """The audience (`aud`) that tokens carry and must carry; empty: none."""
    token_expires_seconds: Annotated[int, Field(ge=1)] = 3600
    """Lifetime of a token; at most 86400 in production."""

    rate_limit_write_per_min: Annotated[int, Field(ge=1)] = 60
    """Write requests per minute and user."""
    rate_limit_read_per_min: Annotated[int, Field(ge=1)] = 240
    """Read requests per minute and user."""
    login_rate_limit_per_min: Annotated[int, Field(ge=1)] = 30
    """Logins per minute and client address."""
    internal_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """If set, `/metrics`, `/docs`, `/openapi.json` and `/` are served on this port only."""
    shutdown_grace_seconds: Annotated[float, Field(ge=0, le=300)] = 0
    """How long a process keeps serving after SIGTERM while `/readyz` responds 503, so that load balancers notice."""
    trusted_proxies: CommaSeparated = ()
    """Addresses or networks of proxies whose X-Forwarded-For is trusted."""
    cors_origins: CommaSeparated = ()
    """Origins whose scripts may call the API."""
    worker_port: Annotated[int, Field(ge=0, le=65535)] = 9001
    """Port of the worker's `/healthz`, `/readyz` and `/metrics`; 0: none is served."""
    idempotency_ttl_seconds: Annotated[int, Field(ge=1)] = 86400
    """How long an Idempotency-Key is remembered."""
    outbox_retention_days: Annotated[int, Field(ge=0), AfterValidator(_no_less_than_a_week)] = 90
    """How long published events are kept, by whole months of their payments; at least 7, or 0: for ever."""
    audit_retention_days: Annotated[int, Field(ge=0), AfterValidator(_no_less_than_a_week)] = 0
    """How long audit rows are kept, by whole months; at least 7, or 0: for ever."""
    verify_seconds: Annotated[float, Field(ge=0)] = 60
    """Seconds between two steps of the audit of the books in the background; 0: never."""
    remind_after_seconds: Annotated[int, Field(ge=1)] = 60
    """If an authorized payment has not settled this long after its event was published, the event is published again,
    then after pauses that double.
    """
    chaos_enabled: bool = False
    """Permits fault injection (`PUT /v1/admin/chaos`); refused in production."""
    # For tests only: process/failpoints.py says how it is written.
    failpoints: Annotated[str, AfterValidator(_readable)] = ""

    orders_integration_enabled: bool = False
    """Settles payments for the orders service."""
    orders_exchange: str = "orders.x"
    """Exchange of the orders service."""
    orders_queue: str = "payments.orders.events"
    """Queue for its events; a name that ends in `.events` has its dead letters in `.dlq`."""
    orders_routing_key: str = "order.confirmed"
    """Routing keys that ask for a payment, separated by commas. `order.cancelled` and `payment.charge_requested` are
    always received too.
    """

    tenants_sync_enabled: bool = False
    """Synchronizes tenants from the events of another service."""
    tenants_exchange: str = "tenants.x"
    """Exchange of that service."""
    tenants_queue: str = "payments.tenants.events"
    """Queue for its events."""
    tenants_routing_keys: str = "tenant.created,tenant.updated,tenant.deleted"
    """Routing keys to receive, separated by commas."""

    @model_validator(mode="after")
    def _fit_for_production(self) -> Self:
        """What is handy on a laptop is refused where APP_ENV says that it counts."""
        if self.app_env == "production" and (faults := list(unfit(self))):
            raise ValueError(f"APP_ENV is production, but {'; '.join(faults)}")
        return self
