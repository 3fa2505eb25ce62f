"""In production the process does not start with what is handy on a laptop, and says what that is."""

from typing import Any

import pytest
from pydantic import ValidationError

from payments_ledger.platform.settings import Settings

GOOD = {"APP_ENV": "production", "JWT_SECRET": "a secret of more than thirty-two bytes"}


def settings(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Settings(_env_file=None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"JWT_SECRET": "change-me"}, "JWT_SECRET is the default"),
        ({"JWT_SECRET": "x" * 31}, "JWT_SECRET is shorter than 32 bytes"),
        ({"JWT_SECRETS_PREVIOUS": f"{'x' * 40},short"}, "JWT_SECRETS_PREVIOUS has a secret shorter"),
        ({"CORS_ORIGINS": "https://shop.example,*"}, "CORS_ORIGINS admits every origin"),
        ({"TRUSTED_PROXIES": "*"}, "TRUSTED_PROXIES trusts everybody"),
        ({"CHAOS_ENABLED": "true"}, "CHAOS_ENABLED permits"),
        ({"FAILPOINTS": "batch.before_commit=kill"}, "FAILPOINTS is for tests"),
    ],
)
def test_production_refuses(monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said) as refused:
        settings(monkeypatch, **GOOD | changes)
    assert refused.value.error_count() == 1
    settings(monkeypatch, **changes | {"APP_ENV": "development"})


def test_production_says_everything_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match=r"JWT_SECRET.*CORS_ORIGINS.*CHAOS_ENABLED"):
        settings(monkeypatch, APP_ENV="production", JWT_SECRET="short", CORS_ORIGINS="*", CHAOS_ENABLED="1")


def test_production_starts_with_what_is_fit_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings(monkeypatch, **GOOD, JWT_SECRETS_PREVIOUS="x" * 32).app_env == "production"


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
