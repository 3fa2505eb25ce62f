"""A client that pays while everything around it fails: it repeats each request under the same key until it is answered.

Of four payments two are automatic, two are captured by hand, and two are given back in part once they are settled. It
writes down what it was told, to the byte. `oracle.py` then asks whether that was true.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

import httpx

from tests.faults.background import Background

REQUEST_SECONDS_MAX = 7.0
# A payment that everything else has healed around is done long before.
PAYMENT_SECONDS_MAX = 90.0
# What tells a correct client to come again with the same key.
COME_AGAIN = (409, 429, 503)


# So long a client waits for a settlement, of which it then gives something back; it does without if the worker is down.
SETTLEMENT_SECONDS_MAX = 5.0


@dataclass
class Refund:
    """What was asked back, and what the client was told, if anything."""

    amount: str
    made: bytes = b""


@dataclass
class Payment:
    """One payment of the client: what it asked for, and what it was told, if anything.

    `capture` is the amount to capture of a manual one, None for an automatic one.
    """

    reference: str
    amount: str
    id: str = ""
    created: bytes = b""
    confirmed: bytes = b""
    capture: str | None = None
    captured: bytes = b""
    refunds: list[Refund] = field(default_factory=list)

    @property
    def is_to_settle(self) -> bool:
        """Whether the client was told all that its settlement needs."""
        return bool(self.confirmed if self.capture is None else self.captured)

    @property
    def answers(self) -> list[bytes]:
        return [self.created, self.confirmed, self.captured, *(refund.made for refund in self.refunds)]

    @property
    def create_key(self) -> str:
        return f"create-{self.reference}"

    @property
    def confirm_key(self) -> str:
        return f"confirm-{self.reference}"


@dataclass
class Record:
    """All that the clients did and were told."""

    payments: list[Payment] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    # Answers that no client should ever get: repeated all the same.
    unforeseen: list[str] = field(default_factory=list)

    @property
    def acknowledged(self) -> int:
        """How many requests were acknowledged."""
        return sum(bool(answer) for payment in self.payments for answer in payment.answers)


class Load:
    """So many clients, each paying one payment after the other, from `start` to `finish`.

    Now and then one of them sends a request twice at once, or hangs up in the middle and asks again.
    """

    def __init__(
        self,
        background: Background,
        base_urls: Sequence[str],
        headers: dict[str, str],
        *,
        name: str,
        seed: int,
        clients: int,
        pause_seconds: float,
    ) -> None:
        self.record = Record()
        self._background = background
        self._base_urls = base_urls
        self._headers = headers
        self._name = name
        self._random = random.Random(seed)
        self._clients = clients
        self._pause_seconds = pause_seconds
        self._goes_on = True
        self._running: Future[None] | None = None

    def start(self) -> None:
        self._running = self._background.start(self._run())

    def finish(self) -> Record:
        """Lets every client finish the payment it is at, which takes healthy services."""
        self._goes_on = False
        assert self._running is not None
        self._running.result(PAYMENT_SECONDS_MAX + 10)
        return self.record

    async def _run(self) -> None:
        limits = httpx.Limits(max_connections=self._clients * 3)
        async with (
            httpx.AsyncClient(headers=self._headers, timeout=REQUEST_SECONDS_MAX, limits=limits) as http,
            asyncio.TaskGroup() as clients,
        ):
            for _ in range(self._clients):
                clients.create_task(self._pay_on_and_on(http))

    async def _pay_on_and_on(self, http: httpx.AsyncClient) -> None:
        while self._goes_on:
            number = len(self.record.payments) + 1
            # The letter keeps the digits apart: together they could be taken for the number of a card.
            payment = _planned(f"{self._name}-n{number}", self._random.randint(1, 99_999), number)
            self.record.payments.append(payment)
            async with asyncio.timeout(PAYMENT_SECONDS_MAX):
                await self._pay(http, payment)
            await asyncio.sleep(self._pause_seconds)

    async def _pay(self, http: httpx.AsyncClient, payment: Payment) -> None:
        created = await self._ask_until_answered(http, *create_request(payment), expected=201)
        payment.id, payment.created = created.json()["id"], created.content
        confirmed = await self._ask_until_answered(http, *confirm_request(payment), expected=200)
        payment.confirmed = confirmed.content
        if payment.capture is not None:
            captured = await self._ask_until_answered(http, *capture_request(payment), expected=200)
            payment.captured = captured.content
        if payment.refunds and await self._is_settled(http, payment):
            for number, refund in enumerate(payment.refunds):
                made = await self._ask_until_answered(http, *refund_request(payment, number), expected=201)
                refund.made = made.content

    async def _is_settled(self, http: httpx.AsyncClient, payment: Payment) -> bool:
        """A refund before that would be refused, and the refusal kept under its key."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLEMENT_SECONDS_MAX):
                while True:
                    with suppress(httpx.TransportError):
                        url = f"{self._random.choice(self._base_urls)}/v1/payment-intents/{payment.id}"
                        answer = await http.get(url)
                        if answer.is_success and answer.json()["status"] == "SETTLED":
                            return True
                    await asyncio.sleep(0.1)
        return False

    async def _ask_until_answered(
        self, http: httpx.AsyncClient, path: str, key: str, body: bytes, *, expected: int
    ) -> httpx.Response:
        first: httpx.Response | None = None
        wait = 0.02
        while True:
            twice = self._random.random() < 0.05
            for answer in await asyncio.gather(*(self._ask(http, path, key, body) for _ in range(1 + twice))):
                if answer is None:
                    continue
                if answer.status_code == expected:
                    first = first or answer
                    if answer.content != first.content:
                        self.record.unforeseen.append(f"two answers to {key}: {first.content!r}, {answer.content!r}")
                elif answer.status_code not in COME_AGAIN:
                    self.record.unforeseen.append(f"{answer.status_code} to {key}: {answer.text}")
            if first:
                return first
            await asyncio.sleep(wait * self._random.uniform(0.5, 1))
            wait = min(wait * 2, 0.4)

    async def _ask(self, http: httpx.AsyncClient, path: str, key: str, body: bytes) -> httpx.Response | None:
        """The answer, or None if there was none that says anything."""
        url = self._random.choice(self._base_urls) + path
        headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
        patience = self._random.uniform(0.001, 0.03) if self._random.random() < 0.05 else None
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    answer = await http.post(url, content=body, headers=headers)
                    self.record.answers[str(answer.status_code)] += 1
                    return answer
            self.record.answers["hung up"] += 1
        except httpx.TransportError as error:
            self.record.answers[type(error).__name__] += 1
        return None


def _planned(reference: str, whole: int, number: int) -> Payment:
    """What a client is going to do: the amounts say it to whoever reads a failure."""
    amount = f"{whole}.{number % 100:02}"
    half, third = f"{whole // 2}.50", f"{whole // 3}.25"
    match number % 4:
        case 1:
            return Payment(reference, amount, refunds=[Refund(third), Refund(third)])
        case 2:
            return Payment(reference, amount, capture=half if whole > 1 else amount)
        case 3:
            return Payment(reference, amount, capture=amount, refunds=[Refund(third)])
    return Payment(reference, amount)


def create_request(payment: Payment) -> tuple[str, str, bytes]:
    """Path, key and body."""
    method = ', "capture_method": "manual"' if payment.capture is not None else ""
    text = f'{{"amount": {payment.amount}, "currency": "BRL", "customer_ref": "{payment.reference}"{method}}}'
    return "/v1/payment-intents", payment.create_key, text.encode()


def confirm_request(payment: Payment) -> tuple[str, str, bytes]:
    return f"/v1/payment-intents/{payment.id}/confirm", payment.confirm_key, b""


def capture_request(payment: Payment) -> tuple[str, str, bytes]:
    path = f"/v1/payment-intents/{payment.id}/capture"
    return path, f"capture-{payment.reference}", f'{{"amount": "{payment.capture}"}}'.encode()


def refund_request(payment: Payment, number: int) -> tuple[str, str, bytes]:
    path = f"/v1/payment-intents/{payment.id}/refunds"
    key = f"refund-{number}-{payment.reference}"
    return path, key, f'{{"amount": "{payment.refunds[number].amount}", "reference": "{key}"}}'.encode()
