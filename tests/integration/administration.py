"""What an administrator asks of the API, and what the audit log says afterwards."""

import asyncio
import time
from typing import Any

import httpx
import jwt

from tests.integration.conftest import Api

POLICIES = "/v1/admin/policies"
USERS = "/v1/admin/users"
NOBODY = "01890a5d-ac96-774b-bcce-b302099a8057"
DENY_ALL = {"effect": "deny"}


def subject_of(headers: dict[str, str]) -> str:
    token = headers["Authorization"].removeprefix("Bearer ")
    subject: str = jwt.decode(token, options={"verify_signature": False})["sub"]
    return subject


async def put(api: Api, headers: dict[str, str], name: str, terms: Any) -> httpx.Response:
    return await api.client.put(f"{POLICIES}/{name}", json=terms, headers=headers)


async def audit(api: Api, headers: dict[str, str], **parameters: str) -> list[dict[str, Any]]:
    response = await api.client.get("/v1/admin/audit", params=parameters, headers=headers)
    assert response.status_code == 200, response.text
    entries: list[dict[str, Any]] = response.json()
    return entries


async def rows_of(api: Api, headers: dict[str, str], correlation_id: str, **filters: str) -> list[dict[str, Any]]:
    """The rows of one request, once they are written."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if rows := [row for row in await audit(api, headers, **filters) if row["correlation_id"] == correlation_id]:
            return rows
        await asyncio.sleep(0.05)
    return []
