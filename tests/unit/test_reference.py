"""The pages of docs/reference/ that are made from the code are up to date, and leave nothing out."""

import httpx
import pytest

from payments_ledger.api import create_app
from payments_ledger.process.settings import Settings
from scripts.reference import (
    FOLDER,
    FOR_TESTS,
    FRAMEWORK_CODES,
    PAGES,
    errors_page,
    markdown,
    raised_errors,
    settings_page,
)


@pytest.mark.parametrize("name", PAGES)
def test_the_committed_page_is_up_to_date(name: str) -> None:
    assert (FOLDER / f"{name}.md").read_text() == PAGES[name](), "scripts/docs.sh write"


def test_each_code_has_one_heading() -> None:
    headings = [line for line in errors_page().splitlines() if line.startswith("### ")]
    assert len(headings) == len(set(headings))
    assert {f"### `{error.code}`" for error in raised_errors()} <= set(headings)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("GET", "/nothing", b"", "not_found"),
        ("DELETE", "/healthz", b"", "method_not_allowed"),
        ("POST", "/v1/auth/token", b"{", "malformed_json"),
    ],
)
async def test_codes_of_the_framework_are_listed_with_their_status(
    method: str, path: str, body: bytes, code: str
) -> None:
    app = create_app(Settings(_env_file=None, redis_url="memory://"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ledger") as client:
        response = await client.request(method, path, content=body, headers={"Content-Type": "application/json"})
    assert (response.json()["code"], response.status_code) == (code, FRAMEWORK_CODES[code][0])


def test_each_setting_has_a_meaning() -> None:
    silent = {name for name, field in Settings.model_fields.items() if not field.description}
    assert silent <= FOR_TESTS
    assert all(f"`{name.upper()}`" in settings_page() for name in Settings.model_fields.keys() - FOR_TESTS)


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("CHAOS_ENABLED is off.\n    Retry-After says more.", "`CHAOS_ENABLED` is off. `Retry-After` says more."),
        ("`CHAOS_ENABLED` and `X-Tenant-Id: a`", "`CHAOS_ENABLED` and `X-Tenant-Id: a`"),
        (
            "named in X-Tenant-Id, whose X-Forwarded-For counts",
            "named in `X-Tenant-Id`, whose `X-Forwarded-For` counts",
        ),
        ("E-mail and JSON", "E-mail and JSON"),
    ],
)
def test_names_in_a_message_become_code(text: str, rendered: str) -> None:
    assert markdown(text) == rendered
