"""The settings: environment variables (or a .env file) by the names below, with the defaults of the README's table."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

MEMORY_URL = "memory://"


def _with_scheme(*schemes: str) -> AfterValidator:
    def check(url: str) -> str:
        if not url.startswith(schemes):
            raise ValueError(f"must begin with {' or '.join(schemes)}")
        return url

    return AfterValidator(check)


class Settings(BaseSettings):
    """Read once when a process starts. A URL's scheme picks the implementation."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore")

    app_env: Literal["development", "production"] = "development"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "console"] = "json"

    database_url: Annotated[str, _with_scheme("postgresql+psycopg://", "postgresql://")] = (
        "postgresql+psycopg://app:app@postgres:5432/app"
    )
    database_pool_size: Annotated[int, Field(ge=2, le=100)] = 4
    redis_url: Annotated[str, _with_scheme("redis://", "rediss://", MEMORY_URL)] = "redis://redis:6379/0"
    rabbitmq_url: Annotated[str, _with_scheme("amqp://", "amqps://", MEMORY_URL)] = "amqp://guest:guest@rabbitmq:5672/"

    jwt_secret: SecretStr = SecretStr("change-me")
    jwt_issuer: str = "local-auth"
    token_expires_seconds: Annotated[int, Field(ge=1)] = 3600

    rate_limit_write_per_min: Annotated[int, Field(ge=1)] = 60
    rate_limit_read_per_min: Annotated[int, Field(ge=1)] = 240
    idempotency_ttl_seconds: Annotated[int, Field(ge=1)] = 86400
    chaos_enabled: bool = False

    orders_integration_enabled: bool = False
    orders_exchange: str = "orders.x"
    orders_queue: str = "payments.orders.events"
    orders_routing_key: str = "order.confirmed"

    tenants_sync_enabled: bool = False
    tenants_exchange: str = "tenants.x"
    tenants_queue: str = "payments.tenants.events"
    tenants_routing_keys: str = "tenant.created,tenant.updated,tenant.deleted"
