"""How tests ask for accounts and transactions over HTTP."""

from typing import Any
from uuid import uuid4

import httpx

from tests.integration.conftest import Api

ACCOUNTS = "/v1/ledger/accounts"
TRANSACTIONS = "/v1/ledger/transactions"


class Journal:
    """One user of a tenant, who may write to its ledger."""

    def __init__(self, api: Api, tenant_id: str) -> None:
        self.client = api.client
        self.headers = api.headers(tenant_id, role="admin")

    async def get(self, path: str, **query: Any) -> httpx.Response:
        return await self.client.get(path, params=query, headers=self.headers)

    async def post(self, path: str, body: Any = None, key: str | None = None) -> httpx.Response:
        headers = self.headers | {"Idempotency-Key": key or uuid4().hex}
        return await self.client.post(path, json=body, headers=headers)

    async def patch(self, code: str, /, **changes: Any) -> httpx.Response:
        return await self.client.patch(f"{ACCOUNTS}/{code}", json=changes, headers=self.headers)

    async def account(self, code: str, type_: str = "liability", **more: Any) -> dict[str, Any]:
        response = await self.post(ACCOUNTS, {"code": code, "name": f"Account {code}", "type": type_, **more})
        assert response.status_code == 201, response.text
        account: dict[str, Any] = response.json()
        return account

    async def wallet(self, code: str, minimum: str | None = "0.00", maximum: str | None = None) -> dict[str, Any]:
        """A liability in BRL with these limits."""
        return await self.account(code, limits=[{"currency": "BRL", "balance_min": minimum, "balance_max": maximum}])

    async def try_to_move(self, debit: str, credit: str, amount: str, **more: Any) -> httpx.Response:
        currency = more.pop("currency", "BRL")
        posting = {"debit": debit, "credit": credit, "amount": amount, "currency": currency}
        return await self.post(TRANSACTIONS, {"postings": [posting], **more})

    async def move(self, debit: str, credit: str, amount: str, **more: Any) -> dict[str, Any]:
        response = await self.try_to_move(debit, credit, amount, **more)
        assert response.status_code == 201, response.text
        transaction: dict[str, Any] = response.json()
        return transaction

    async def move_all(self, postings: list[dict[str, str]], **more: Any) -> None:
        """One transaction of several postings."""
        response = await self.post(TRANSACTIONS, {"postings": postings, **more})
        assert response.status_code == 201, response.text

    async def hold(self, debit: str, credit: str, amount: str, **more: Any) -> dict[str, Any]:
        return await self.move(debit, credit, amount, status="pending", **more)

    async def end(self, transaction: dict[str, Any], verb: str, body: Any = None) -> httpx.Response:
        return await self.post(f"{TRANSACTIONS}/{transaction['id']}/{verb}", body)

    async def balance(self, code: str, currency: str = "BRL") -> dict[str, Any]:
        response = await self.get(f"{ACCOUNTS}/{code}/balances")
        assert response.status_code == 200, response.text
        by_currency: dict[str, dict[str, Any]] = {each["currency"]: each for each in response.json()}
        return by_currency[currency]
