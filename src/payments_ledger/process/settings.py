"""The settings: environment variables (or a .env file) by the names below, with the defaults of the README's table."""

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
    model_config = SettingsConfigDict(env_file=".env", extra="ignore", hide_input_in_errors=True)

    app_env: Literal["development", "production"] = "development"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "console"] = "json"

    database_url: Annotated[str, _with_scheme("postgresql+psycopg://", "postgresql://")] = (
        "postgresql+psycopg://app:app@postgres:5432/app"
    )
    database_pool_size: Annotated[int, Field(ge=2, le=100)] = 4
    redis_url: Annotated[str, _with_scheme("redis://", "rediss://", MEMORY_URL)] = "redis://redis:6379/0"
    rabbitmq_url: Annotated[str, _with_scheme("amqp://", "amqps://", MEMORY_URL)] = "amqp://guest:guest@rabbitmq:5672/"

    jwt_secret: SecretStr = SecretStr(DEFAULT_SECRET)
    jwt_secrets_previous: CommaSeparatedSecrets = ()
    jwt_issuer: str = "local-auth"
    jwt_audience: str | None = None
    token_expires_seconds: Annotated[int, Field(ge=1)] = 3600

    rate_limit_write_per_min: Annotated[int, Field(ge=1)] = 60
    rate_limit_read_per_min: Annotated[int, Field(ge=1)] = 240
    login_rate_limit_per_min: Annotated[int, Field(ge=1)] = 30
    internal_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    shutdown_grace_seconds: Annotated[float, Field(ge=0, le=300)] = 0
    trusted_proxies: CommaSeparated = ()
    cors_origins: CommaSeparated = ()
    worker_port: Annotated[int, Field(ge=0, le=65535)] = 9001
    idempotency_ttl_seconds: Annotated[int, Field(ge=1)] = 86400
    outbox_retention_days: Annotated[int, Field(ge=0), AfterValidator(_no_less_than_a_week)] = 90
    audit_retention_days: Annotated[int, Field(ge=0), AfterValidator(_no_less_than_a_week)] = 0
    verify_seconds: Annotated[float, Field(ge=0)] = 60
    remind_after_seconds: Annotated[int, Field(ge=1)] = 60
    chaos_enabled: bool = False
    # For tests only: process/failpoints.py says how it is written.
    failpoints: Annotated[str, AfterValidator(_readable)] = ""

    orders_integration_enabled: bool = False
    orders_exchange: str = "orders.x"
    orders_queue: str = "payments.orders.events"
    orders_routing_key: str = "order.confirmed"

    tenants_sync_enabled: bool = False
    tenants_exchange: str = "tenants.x"
    tenants_queue: str = "payments.tenants.events"
    tenants_routing_keys: str = "tenant.created,tenant.updated,tenant.deleted"

    @model_validator(mode="after")
    def _fit_for_production(self) -> Self:
        """What is handy on a laptop is refused where APP_ENV says that it counts."""
        if self.app_env == "production" and (faults := list(unfit(self))):
            raise ValueError(f"APP_ENV is production, but {'; '.join(faults)}")
        return self
