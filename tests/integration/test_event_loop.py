"""No request holds the event loop for long: while a large one is read, carried out and answered, others are served."""

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from payments_ledger.payments.routes import PATH
from payments_ledger.platform.garbage import collect_seldom
from tests.integration.conftest import Api

pytestmark = pytest.mark.anyio

HOLD_SECONDS_MAX = 0.02
GOOD = {"amount": "10.50", "currency": "BRL", "customer_ref": "C-1"}
# Of every two digits it has to be asked whether a card number begins there.
SLOW = {**GOOD, "customer_ref": "1 " * 63 + "1"}
WRONG = {"amount": "x", "currency": "brl", "customer_ref": "\n", **{f"m{number}": 1 for number in range(20)}}


@pytest.fixture(autouse=True)
def _collect_as_a_server_does() -> Iterator[None]:
    """Without pytest's own objects, which a collection would go through; a server's process begins like that, too."""
    threshold = gc.get_threshold()
    collect_seldom()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


@asynccontextmanager
async def longest_hold() -> AsyncIterator[list[float]]:
    """The processor time that the thread spent between two turns of the loop, of which other processes take nothing."""
    holds: list[float] = []

    async def watch() -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(0)
            holds.append(time.thread_time() - began)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    try:
        yield holds
        await asyncio.sleep(0)
    finally:
        watching.cancel()


def batch(*items: Any) -> bytes:
    return json.dumps({"payment_intents": items}).encode()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (batch(*[GOOD] * 1000), 200),
        (batch(*[SLOW] * 1000), 200),
        (batch(*[WRONG] * 1000), 200),
        (batch(*[{f"m{number}": 1 for number in range(38)}] * 1000), 200),
        (b'{"payment_intents": [' + b"[]," * 300_000 + b"[]]}", 400),
        (b'{"payment_intents": [' + b'"",' * 300_000 + b'""]}', 400),
        (b'{"payment_intents": [1.' + b"1" * 1_000_000 + b"]}", 200),
        (batch({f"m{number}": 1 for number in range(10_000)}), 400),
        (b'"' * 1_000_000, 400),
    ],
    ids=["good", "slow references", "wrong", "unknown members", "arrays", "texts", "digits", "members", "quotes"],
)
async def test_a_large_batch_lets_others_have_their_turn(api: Api, tenant: str, body: bytes, status: int) -> None:
    headers = api.headers(tenant) | {"Content-Type": "application/json"}
    # What happens once in a process is no part of the question.
    await api.client.post(f"{PATH}/batch", content=batch(GOOD), headers=headers | {"Idempotency-Key": "first"})
    async with longest_hold() as holds:
        answer = await api.client.post(f"{PATH}/batch", content=body, headers=headers | {"Idempotency-Key": "k"})
    assert answer.status_code == status, answer.text[:500]
    assert max(holds) < HOLD_SECONDS_MAX
