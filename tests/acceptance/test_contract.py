"""The OpenAPI document against the running server: schemathesis makes up requests and finds no difference."""

import subprocess
import sys
from pathlib import Path

import httpx

from tests.acceptance.conftest import Engine
from tests.profiles import scaled

EXAMPLES = scaled(8, nightly=40)
# Of this tenant nobody else here calls the API: it may end suspended, with policies that deny everything.
TENANT = "00000000-0000-0000-0000-000000000002"


def test_the_server_does_what_its_document_says(engine: Engine) -> None:
    """As the global administrator, who reaches every route. Faults cannot be injected: requests would fail.

    One check is off: what an amount may be depends on its currency, which a schema cannot say, so some requests that
    fit the schema are refused with 422.
    """
    with engine.api():
        engine.wait_until_ready()
        credentials = {"email": "admin@local", "password": "admin123"}
        answer = httpx.post(f"{engine.base_url}/v1/auth/token", json=credentials).raise_for_status()
        command = [
            str(Path(sys.executable).with_name("schemathesis")),
            *("run", f"{engine.base_url}/openapi.json", "--no-color"),
            *("--header", f"Authorization: Bearer {answer.json()['access_token']}"),
            *("--header", f"X-Tenant-Id: {TENANT}"),
            *("--exclude-checks", "positive_data_acceptance"),
            *("--max-examples", str(EXAMPLES)),
            # The same requests in every run: a test that fails now and then hides what made it fail.
            "--generation-deterministic",
            # Logging in has limits of its own, which so many attempts would meet.
            *("--exclude-path", "/v1/auth/token"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-9000:]
