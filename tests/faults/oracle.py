"""The oracle: once everything is healed it says what the system owes its clients and has not kept."""

import asyncio
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx

from tests.faults.load import Payment, Record, capture_request, confirm_request, create_request, refund_request
from tests.faults.system import System, eventually

SETTLE_SECONDS_MAX = 60.0
REPLAYS_AT_ONCE = 8


@dataclass
class Verdict:
    """What was promised and not kept; empty lists are the promise kept."""

    acknowledged: int = 0
    settled: int = 0
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not (self.lost or self.duplicated or self.broken)

    def __str__(self) -> str:
        lines = [*self.lost, *self.duplicated, *self.broken]
        counts = (
            f"requests acknowledged {self.acknowledged}, payments settled {self.settled}, lost {len(self.lost)}, "
            f"duplicated {len(self.duplicated)}, invariants broken {len(self.broken)}"
        )
        return "\n".join([counts, *lines[:20]])


def judge(
    system: System, record: Record, *, replays_max: int = 40, settle_seconds: float = SETTLE_SECONDS_MAX
) -> Verdict:
    """Compares what the clients were told with what the database holds and the API repeats."""
    verdict = Verdict(acknowledged=record.acknowledged, broken=list(record.unforeseen))
    told = {payment.id: payment for payment in record.payments if payment.created}
    if not told:
        verdict.broken.append("nobody was told anything")
        return verdict
    _wait_until_settled(system, [payment.id for payment in told.values() if payment.is_to_settle], settle_seconds)
    prefix = record.payments[0].reference.rpartition("-")[0]
    with system.owner() as conn:
        rows = conn.execute(
            """
            SELECT p.id::text, p.customer_ref, to_char(p.amount / 100.0, 'FM999999990.00'), p.status,
                   (SELECT count(*) FROM ledger_entries AS e
                    WHERE (e.tenant_id, e.kind) = (p.tenant_id, 'settlement') AND e.source_id IN (p.id, p.capture_id)),
                   to_char(p.amount_captured / 100.0, 'FM999999990.00'),
                   (SELECT to_char(coalesce(sum(posting.amount), 0) / 100.0, 'FM999999990.00')
                    FROM payment_refunds AS r
                    JOIN ledger_entries AS e ON (e.tenant_id, e.source_id, e.kind) = (r.tenant_id, r.id, 'refund')
                    JOIN ledger_postings AS posting
                      ON (posting.tenant_id, posting.posted_at, posting.entry_id) = (e.tenant_id, e.posted_at, e.id)
                    WHERE (r.tenant_id, r.payment_id) = (p.tenant_id, p.id)),
                   (SELECT count(*) FROM outbox_events AS o
                    WHERE (o.tenant_id, o.aggregate_id) = (p.tenant_id, p.id) AND o.published_at IS NULL)
            FROM payment_intents AS p
            WHERE starts_with(p.customer_ref, %s || '-')
            """,
            [prefix],
        ).fetchall()
    found = {row[0]: row for row in rows}
    references: dict[str, str] = {}
    for id_, reference, *_ in rows:
        if reference in references:
            verdict.duplicated.append(f"{reference} is {id_} and {references[reference]}")
        references[reference] = id_
    for payment in told.values():
        if payment.id in found:
            _judge_payment(verdict, payment, found[payment.id])
        else:
            verdict.lost.append(f"{payment.reference} ({payment.id}) was acknowledged and is not there")
    verdict.broken += system.background.run(_replay(system, [*told.values()][-replays_max:]))
    verdict.broken += system.verify()
    return verdict


def _judge_payment(verdict: Verdict, payment: Payment, row: tuple[Any, ...]) -> None:
    _, reference, amount, status, entries, captured, refunded, unpublished = row
    if (reference, amount) != (payment.reference, payment.amount):
        verdict.lost.append(f"{payment.reference} of {payment.amount} is {reference} of {amount}")
    if payment.captured and captured != payment.capture:
        verdict.lost.append(f"{payment.reference} was captured with {payment.capture} and has {captured}")
    given_back = sum(Decimal(refund.amount) for refund in payment.refunds if refund.made)
    asked_back = sum(Decimal(refund.amount) for refund in payment.refunds)
    if not given_back <= Decimal(refunded) <= asked_back:
        verdict.lost.append(f"{payment.reference}: {given_back} was acknowledged as given back, {refunded} is")
    if payment.is_to_settle and status != "SETTLED":
        verdict.lost.append(f"{payment.reference} ({payment.id}) was confirmed and is {status}")
    if entries > 1:
        verdict.duplicated.append(f"{payment.reference} has {entries} settlement entries")
    if status == "SETTLED":
        verdict.settled += 1
        if unpublished:
            verdict.lost.append(f"{payment.reference} has {unpublished} unpublished events")


def _wait_until_settled(system: System, ids: list[str], seconds: float) -> None:
    """What does not come in time shows as lost."""
    with system.owner() as conn:

        def is_done() -> bool:
            row = conn.execute(
                """
                SELECT count(*) FROM payment_intents AS p
                WHERE p.id = ANY (%s) AND (p.status <> 'SETTLED' OR EXISTS (
                    SELECT FROM outbox_events AS o
                    WHERE (o.tenant_id, o.aggregate_id) = (p.tenant_id, p.id) AND o.published_at IS NULL))
                """,
                [ids],
            ).fetchone()
            return row is not None and row[0] == 0

        try:
            eventually(is_done, "all is settled and told", seconds)
        except AssertionError:
            return


async def _replay(system: System, payments: list[Payment]) -> list[str]:
    """Asks everything again under its first key; the answers must be the first ones, to the byte."""
    at_once = asyncio.Semaphore(REPLAYS_AT_ONCE)
    broken: list[str] = []
    async with httpx.AsyncClient(headers=system.headers, timeout=10) as http:

        async def ask(path: str, key: str, body: bytes, first: bytes) -> None:
            headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
            async with at_once:
                answer = await http.post(system.base_urls[0] + path, content=body, headers=headers)
            if answer.content != first or answer.headers.get("Idempotent-Replayed") != "true":
                broken.append(f"{key} was answered {first!r}, now {answer.status_code} {answer.content!r}")

        async with asyncio.TaskGroup() as tasks:
            for payment in payments:
                tasks.create_task(ask(*create_request(payment), payment.created))
                if payment.confirmed:
                    tasks.create_task(ask(*confirm_request(payment), payment.confirmed))
                if payment.captured:
                    tasks.create_task(ask(*capture_request(payment), payment.captured))
                for number, refund in enumerate(payment.refunds):
                    if refund.made:
                        tasks.create_task(ask(*refund_request(payment, number), refund.made))
    return broken
