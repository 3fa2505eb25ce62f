"""Settings come from the environment as people write them; what is no setting's value is refused by its name."""

from typing import Any

import pytest
from pydantic import ValidationError

from payments_ledger.process.settings import Settings


def settings(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Settings(_env_file=None)


@pytest.mark.parametrize(
    ("text", "listed"),
    [("", ()), ("10.0.0.0/8", ("10.0.0.0/8",)), (" 10.0.0.1 , 10.0.0.2,", ("10.0.0.1", "10.0.0.2"))],
)
def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch, text: str, listed: tuple[Any, ...]) -> None:
    assert settings(monkeypatch, TRUSTED_PROXIES=text).trusted_proxies == listed


@pytest.mark.parametrize("name", ["OUTBOX_RETENTION_DAYS", "AUDIT_RETENTION_DAYS"])
def test_rows_are_kept_for_a_week_at_least_or_for_ever(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for days in ("0", "7"):
        assert getattr(settings(monkeypatch, **{name: days}), name.lower()) == int(days)
    for days in ("-1", "6"):
        with pytest.raises(ValidationError, match=name.lower()):
            settings(monkeypatch, **{name: days})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("APP_ENV", "prod", "Input should be 'development' or 'production'"),
        ("DATABASE_URL", "mysql://app:hunter2@db/app", "must begin with postgresql+psycopg:// or postgresql://"),
        ("REDIS_URL", "https://:hunter2@cache/0", "must begin with redis:// or rediss:// or memory://"),
        ("RABBITMQ_URL", "kafka://ledger:hunter2@broker/", "must begin with amqp:// or amqps:// or memory://"),
        ("DATABASE_POOL_SIZE", "1", "greater than or equal to 2"),
        ("TOKEN_EXPIRES_SECONDS", "0", "greater than or equal to 1"),
        ("WORKER_PORT", "65536", "less than or equal to 65535"),
        ("SHUTDOWN_GRACE_SECONDS", "301", "less than or equal to 300"),
        ("FAILPOINTS", "batch.before_commit", "is not a valid Action"),
    ],
)
def test_a_value_that_a_setting_cannot_have_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        settings(monkeypatch, **{name: value})
    [error] = refused.value.errors()
    assert error["loc"] == (name.lower(),)
    assert said in error["msg"]
    assert "hunter2" not in str(refused.value)
