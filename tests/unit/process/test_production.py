"""In production the process does not start with what is handy on a laptop, and says what that is."""

import random
import re

import pytest
from pydantic import ValidationError

from payments_ledger.process.settings import Settings

GOOD = {
    "APP_ENV": "production",
    "DATABASE_URL": "postgresql+psycopg://app:Zk4h-wQ9x_m2@db.internal/app",
    "REDIS_URL": "rediss://:uV7c-tR1p_s8@cache.internal/0",
    "RABBITMQ_URL": "amqps://ledger:nB5j-yE3a_d6@broker.internal/",
    "JWT_SECRET": "UkQWmbbi8C4Jr1h9MJgPLK6AadvJI0jTqDxHDXTgOeQ",
}


def settings(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Settings(_env_file=None)


REFUSED = [
    ({"JWT_SECRET": "change-me"}, "JWT_SECRET is the default or another published"),
    (
        {"JWT_SECRET": "a demonstration secret, not for production"},
        "JWT_SECRET is the default or another published",
    ),
    ({"JWT_SECRET": "please-change-this-to-a-long-random-value"}, "JWT_SECRET is the default or another published"),
    # jwt.io's example, and the one of our own tests.
    ({"JWT_SECRET": "a-string-secret-at-least-256-bits-long"}, "JWT_SECRET is the default or another published"),
    ({"JWT_SECRET": "a secret of more than thirty-two bytes"}, "JWT_SECRET is the default or another published"),
    ({"JWT_SECRET": "x" * 31}, "JWT_SECRET is shorter than 32 bytes"),
    ({"JWT_SECRET": "a" * 32}, "JWT_SECRET is easy to guess"),
    ({"JWT_SECRET": "ab" * 32}, "JWT_SECRET is easy to guess"),
    ({"JWT_SECRET": "secret" * 8}, "JWT_SECRET is easy to guess"),
    ({"JWT_SECRET": "0123456789" * 4}, "JWT_SECRET is easy to guess"),
    ({"JWT_SECRET": "abcdefghijklmnopqrstuvwxyz0123456789"}, "JWT_SECRET is easy to guess"),
    ({"JWT_SECRETS_PREVIOUS": f"{GOOD['JWT_SECRET']},short"}, "JWT_SECRETS_PREVIOUS has a secret that is shorter"),
    ({"JWT_SECRETS_PREVIOUS": "x" * 40}, "JWT_SECRETS_PREVIOUS has a secret that is easy to guess"),
    (
        {"JWT_SECRETS_PREVIOUS": "change-me"},
        "JWT_SECRETS_PREVIOUS has a secret that is the default",
    ),
    ({"TOKEN_EXPIRES_SECONDS": "86401"}, "TOKEN_EXPIRES_SECONDS is longer than 24 hours"),
    ({"CORS_ORIGINS": "https://shop.example,*"}, "CORS_ORIGINS admits every origin"),
    ({"CORS_ORIGINS": "https://shop.example,null"}, "CORS_ORIGINS admits null"),
    ({"TRUSTED_PROXIES": "*"}, "TRUSTED_PROXIES trusts"),
    ({"TRUSTED_PROXIES": "10.0.0.1,0.0.0.0/0"}, "TRUSTED_PROXIES trusts"),
    ({"TRUSTED_PROXIES": "::/0"}, "TRUSTED_PROXIES trusts"),
    ({"TRUSTED_PROXIES": "0.0.0.0/1,128.0.0.0/1"}, "TRUSTED_PROXIES trusts"),
    ({"TRUSTED_PROXIES": "::/1, 8000::/1"}, "TRUSTED_PROXIES trusts"),
    ({"TRUSTED_PROXIES": ",".join(f"{first}.0.0.0/8" for first in range(2, 256, 2))}, "TRUSTED_PROXIES trusts"),
    ({"TRUSTED_PROXIES": "::ffff:0:0/96"}, "TRUSTED_PROXIES trusts"),
    ({"TRUSTED_PROXIES": "::ffff:0:0/97,::ffff:8000:0/97"}, "TRUSTED_PROXIES trusts"),
    ({"TRUSTED_PROXIES": "::/64"}, "TRUSTED_PROXIES trusts"),
    ({"TRUSTED_PROXIES": "10.0.0.1/8"}, "TRUSTED_PROXIES has an entry that is neither an address nor a network"),
    ({"DATABASE_URL": "postgresql://app:app@db.internal/app"}, "DATABASE_URL has a password that everybody knows"),
    ({"DATABASE_URL": "postgresql://ledger:ledger@db/app"}, "DATABASE_URL has a password that everybody knows"),
    (
        {"DATABASE_URL": "postgresql://db/app?user=app&password=%61pp"},
        "DATABASE_URL has a password that everybody knows",
    ),
    ({"REDIS_URL": "redis://:Redis@cache.internal/0"}, "REDIS_URL has a password that everybody knows"),
    ({"RABBITMQ_URL": "amqp://guest:guest@broker/"}, "RABBITMQ_URL has a password that everybody knows"),
    # Its client then logs in as guest, with the password guest.
    ({"RABBITMQ_URL": "amqp://broker.internal/"}, "RABBITMQ_URL has a password that everybody knows"),
    ({"REDIS_URL": "memory://"}, "REDIS_URL is memory://"),
    ({"RABBITMQ_URL": "memory://"}, "RABBITMQ_URL is memory://"),
    ({"CHAOS_ENABLED": "true"}, "CHAOS_ENABLED permits"),
    ({"FAILPOINTS": "batch.before_commit=kill"}, "FAILPOINTS is for tests"),
]


@pytest.mark.parametrize(("changes", "said"), REFUSED, ids=lambda case: str(case)[:60])
def test_production_refuses(monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        settings(monkeypatch, **GOOD | changes)
    [error] = refused.value.errors()
    assert error["msg"].startswith(f"Value error, APP_ENV is production, but {said}")
    assert ";" not in error["msg"]
    settings(monkeypatch, **changes | {"APP_ENV": "development"})


@pytest.mark.parametrize(("changes", "said"), REFUSED, ids=lambda case: str(case)[:60])
def test_what_production_refuses_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], said: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        settings(monkeypatch, **GOOD | changes)
    told = str(refused.value).replace("memory://", "")
    assert not [value for value in changes.values() if len(value) > 8 and value in told]


def test_production_says_everything_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any setting of its own: each default that everybody knows, and what was put wrong besides."""
    with pytest.raises(ValidationError) as refused:
        settings(monkeypatch, APP_ENV="production", CORS_ORIGINS="*,null", CHAOS_ENABLED="1", TRUSTED_PROXIES="::/0")
    named = re.findall("[A-Z]+_[A-Z_]+", str(refused.value).partition("but ")[2])
    assert named == [
        "JWT_SECRET",
        "DATABASE_URL",
        "RABBITMQ_URL",
        "CORS_ORIGINS",
        "CORS_ORIGINS",
        "TRUSTED_PROXIES",
        "CHAOS_ENABLED",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"TOKEN_EXPIRES_SECONDS": "86400"},
        {"JWT_SECRET": "0f0c4b9cbe9d3a7785e5b1f2a6d8c31e"},
        {"JWT_SECRETS_PREVIOUS": "Jp3V0oYlqkTz8W1uQn5cXbM7RfHs2GdE"},
        # Without a password: a certificate, a peer, or a file of passwords.
        {"DATABASE_URL": "postgresql://app@db.internal/app?sslmode=verify-full"},
        {"REDIS_URL": "redis://cache.internal:6379/0"},
        {"TRUSTED_PROXIES": "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7,::1,127.0.0.1"},
        # The networks of a large content delivery network.
        {"TRUSTED_PROXIES": "104.16.0.0/13,172.64.0.0/13,2400:cb00::/32,2a06:98c0::/29"},
        {"CORS_ORIGINS": "https://shop.example"},
    ],
    ids=str,
)
def test_production_starts_with_what_is_fit_for_it(monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]) -> None:
    assert settings(monkeypatch, **GOOD | changes).app_env == "production"


def test_a_random_secret_is_never_taken_for_one_that_is_easy_to_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the least length, in the poorest alphabet that people use for them: the digits of a hexadecimal number."""
    choice = random.Random(1)
    for _ in range(2000):
        settings(monkeypatch, **GOOD | {"JWT_SECRET": "".join(choice.choices("0123456789abcdef", k=32))})
