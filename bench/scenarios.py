"""The scenarios: what is measured, in which order, and how often. Rounds alternate, so that noise hits all alike.

Long because it is the list of scenarios, which are read side by side.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from urllib.parse import urlencode
from uuid import uuid4

import httpx
import uvloop
from rich.console import Console

from bench import big_books, limits, payment_lists
from bench.figures import Figures, percentile
from bench.lifecycle import follow, pace, sustain
from bench.load import CREATE_PATH, LoadFailed, Mode, WrkResult, wrk
from bench.machine import Meter, resident_megabytes
from bench.servers import SECRET, START_SECONDS_MAX, Books, Installation, Process
from payments_ledger.process.settings import MEMORY_URL
from payments_ledger.web.cursors import CursorSigner

BULK_SIZE = 1000
# Where targets are measured.
CONNECTIONS = 64
BUSES = {"rabbitmq": "through RabbitMQ", "embedded": "through the embedded bus"}
QUERIES = {
    "balances": "balances",
    "balances_of_period": "balances of a period",
    "entries": "entries, first page",
    "entries_deep": "entries, deep page",
    "entries_of_period": "entries of a period",
    "balance_as_of": "balances of an account as of a time",
    "balance_known_at": "balances of an account as of a time, as far as known at another",
    "statement": "statement of a period, first page",
    "statement_recorded": "statement of a period by recording, first page",
}
# The beginning of the source accounts' codes and how many there are, as requests.lua reads it.
TRANSFERS = {
    "hot": ("FREE.A 1", "transfers between one hot pair of accounts"),
    "spread": (f"FREE.A {BULK_SIZE}", "transfers among 1,000 pairs of accounts"),
    "limited": (f"LIMITED.A {BULK_SIZE}", "transfers from 1,000 accounts with a minimum"),
}
# What a process needs at full load until it is as fast as it gets.
WARM_SECONDS = 1.0
# The load at which the time from confirm to SETTLED has a target.
FOLLOWED_RATE = 50


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how often; the books' sizes are payments."""

    http_rounds: int
    rounds: int
    http_seconds: float
    limit_seconds: float
    lifecycle_rounds: int
    lifecycle_warm_seconds: float
    lifecycle_seconds: float
    followed_seconds: float
    paced_seconds: float
    query_seconds: float
    row_security_batches: int
    book_sizes: tuple[int, ...]
    connections: tuple[int, ...] = (1, 16, 64, 256)


FULL = Plan(
    http_rounds=3,
    rounds=3,
    http_seconds=6,
    limit_seconds=8,
    lifecycle_rounds=2,
    lifecycle_warm_seconds=5,
    lifecycle_seconds=60,
    followed_seconds=20,
    paced_seconds=10,
    query_seconds=2,
    row_security_batches=200,
    book_sizes=(10_000, 100_000, 1_000_000),
)
QUICK = Plan(
    http_rounds=2,
    rounds=1,
    http_seconds=2,
    limit_seconds=2,
    lifecycle_rounds=1,
    lifecycle_warm_seconds=2,
    lifecycle_seconds=8,
    followed_seconds=5,
    paced_seconds=3,
    query_seconds=1,
    row_security_batches=40,
    book_sizes=(10_000, 100_000),
    connections=(1, 64, 256),
)


class Bench:
    """A run: the servers, the plan, what was measured so far, and databases that several scenarios share."""

    def __init__(self, installation: Installation, plan: Plan, figures: Figures, console: Console) -> None:
        self.installation = installation
        self.plan = plan
        self.figures = figures
        self.console = console
        self.succeeded = True

    @cached_property
    def edge(self) -> Books:
        """For requests without a worker."""
        return Books(self.installation.postgres, "bench_edge")

    @cached_property
    def cycle(self) -> Books:
        """For payments that are settled."""
        return Books(self.installation.postgres, "bench_cycle")

    def fail(self, what: str, error: Exception) -> None:
        """The report says what could not be measured, and the run does not count as a success."""
        self.succeeded = False
        self.figures.absent[what] = f"failed: {type(error).__name__}: {error}"
        self.say(f"  {what} {self.figures.absent[what]}")

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)

    def pay(self, process: Process, connections: int, *, tenants: int = 20, seconds: float | None = None) -> WrkResult:
        """Creates and confirms by wrk."""
        process.fail_if_ended()
        callers = self.edge.callers[:tenants]
        seconds = seconds or self.plan.http_seconds
        return wrk(process.base_url, callers, self.installation.folder, connections=connections, seconds=seconds)

    @contextmanager
    def settling_worker(self, api: Process, **settings: str) -> Iterator[Process]:
        """A worker that has settled a payment: it has started, and so has all that it needs."""
        url, headers = self.authorized_payment(api)
        deadline = time.perf_counter() + START_SECONDS_MAX
        with self.installation.worker(self.cycle, **settings) as worker:
            while httpx.get(url, headers=headers).json()["status"] != "SETTLED":
                worker.fail_if_ended()
                if time.perf_counter() > deadline:
                    raise RuntimeError(f"the worker settles nothing:\n{worker.log.read_text()[-4000:]}")
                time.sleep(0.01)
            yield worker

    def authorized_payment(self, api: Process) -> tuple[str, dict[str, str]]:
        """The address of a payment that waits for a worker, and the headers to ask for it."""
        headers = {**self.cycle.callers[0].headers, "Idempotency-Key": uuid4().hex}
        body = {"amount": "100.00", "currency": "BRL", "customer_ref": "CUST-001"}
        created = httpx.post(api.base_url + CREATE_PATH, json=body, headers=headers).raise_for_status()
        url = f"{api.base_url}{CREATE_PATH}/{created.json()['id']}"
        httpx.post(f"{url}/confirm", headers=headers).raise_for_status()
        return url, headers

    def record(self, key: str, title: str, unit: str, value: float) -> None:
        self.figures.add(key, title, unit, value)
        self.say(f"  {title}: {value:,.1f} {unit}")


def http(bench: Bench) -> None:
    """Create and confirm with 1 to 256 connections, beside the reference application; one hot tenant; replays."""
    figures, plan = bench.figures, bench.plan
    with bench.installation.reference() as reference, bench.installation.api(bench.edge) as api:
        for process in (reference, api):
            bench.pay(process, CONNECTIONS, seconds=WARM_SECONDS)
        meter = Meter(bench.installation, {"api": api})
        for _ in range(plan.http_rounds):
            for connections in plan.connections:
                name = _counted(connections)
                used: dict[str, float] = {}
                try:
                    limit = bench.pay(reference, connections)
                    with meter.measure(used):
                        result = bench.pay(api, connections)
                except LoadFailed as error:
                    # Too much for it; what it does under less load is worth knowing all the same.
                    bench.fail(f"create and confirm, {name}", error)
                    continue
                bench.record(
                    f"http.limit.{connections}",
                    f"limit (a), create and confirm without I/O, {name}",
                    "payments/s",
                    limit.payments_a_second,
                )
                bench.record(
                    f"http.engine.{connections}", f"create and confirm, {name}", "payments/s", result.payments_a_second
                )
                for percent, value in ((50, result.p50_ms), (90, result.p90_ms), (99, result.p99_ms)):
                    figures.add(
                        f"http.p{percent}.{connections}", f"a request's p{percent} at full load, {name}", "ms", value
                    )
                if connections == CONNECTIONS:
                    _record_processor_time(bench, "http", used, result.payments)
                    hot = bench.pay(api, connections, tenants=1)
                    bench.record(
                        "http.hot", f"create and confirm, {name}, one hot tenant", "payments/s", hot.payments_a_second
                    )
            _replay(bench, api)


def _replay(bench: Bench, api: Process) -> None:
    caller, nonce = bench.edge.callers[0], uuid4().hex
    body = '{"amount": 100.00, "currency": "BRL", "customer_ref": "CUST-001"}'
    headers = {**caller.headers, "Idempotency-Key": nonce, "Content-Type": "application/json"}
    httpx.post(api.base_url + CREATE_PATH, content=body, headers=headers).raise_for_status()
    result = wrk(
        api.base_url,
        [caller],
        bench.installation.folder,
        mode="replay",
        connections=CONNECTIONS,
        seconds=bench.plan.http_seconds,
        nonce=nonce,
    )
    bench.record("http.replay", "replays of one idempotency key", "requests/s", result.requests_a_second)
    if limit := bench.figures.by_key.get(f"http.limit.{CONNECTIONS}"):
        # A payment is two requests.
        bench.figures.add("http.limit_requests", "limit (a), requests", "requests/s", limit.values[-1] * 2)


def database(bench: Bench) -> None:
    """Limits (b) and (c): one transaction a step by pgbench, and batches of 50 through the use cases."""
    seconds = bench.plan.limit_seconds
    for _ in range(bench.plan.rounds):
        two = limits.pgbench(bench.installation, bench.edge, settle=False, seconds=seconds)
        bench.record("database.steps.2", "limit (b), create and confirm by pgbench", "payments/s", two)
        three = limits.pgbench(bench.installation, bench.edge, settle=True, seconds=seconds)
        bench.record("database.steps.3", "limit (b), create, confirm and settle by pgbench", "payments/s", three)
        batches = limits.set_based(bench.edge, seconds=seconds)
        bench.record("database.batches", "limit (c), all steps in batches of 50", "payments/s", batches)


def security(bench: Bench) -> None:
    """What row-level security costs: the same batches as the runtime role and as a superuser, turn by turn."""
    bound, unbound = limits.cost_of_row_security(bench.edge, batches=bench.plan.row_security_batches)
    portion = len(bound) // 4
    for begin in range(0, portion * 4, portion):
        part = slice(begin, begin + portion)
        cost = percentile(bound[part], 50) / percentile(unbound[part], 50) - 1
        bench.record("ratio.row_security", "cost of row-level security", "%", cost * 100)


def lifecycle(bench: Bench) -> None:
    """Create, confirm and settle, sustained: through RabbitMQ, and through the embedded bus."""
    plan = bench.plan
    settings_of: Mapping[str, Mapping[str, str]] = {"rabbitmq": {}, "embedded": {"RABBITMQ_URL": MEMORY_URL}}
    with bench.installation.reference() as reference, bench.installation.api(bench.cycle) as api:
        bench.pay(reference, CONNECTIONS, seconds=WARM_SECONDS)
        for _ in range(plan.lifecycle_rounds):
            for bus, title in BUSES.items():
                limit = bench.pay(reference, CONNECTIONS)
                bench.record(
                    f"lifecycle.limit.{bus}", "limit (a), 64 connections", "payments/s", limit.payments_a_second
                )
                with bench.settling_worker(api, **settings_of[bus]) as worker:
                    meter = Meter(bench.installation, {"api": api, "worker": worker})
                    before: dict[str, float] = {}
                    after: dict[str, float] = {}

                    def mark(moment: str) -> None:
                        (before if moment == "begin" else after).update(meter.seconds())  # noqa: B023

                    result = uvloop.run(
                        sustain(
                            api,
                            bench.cycle,
                            warm_seconds=plan.lifecycle_warm_seconds,
                            seconds=plan.lifecycle_seconds,
                            during=mark,
                        )
                    )
                    for name, process in (("api", api), ("worker", worker)):
                        bench.record(
                            f"memory.{name}.load.{bus}",
                            f"memory of the {name} after that load, {title}",
                            "MB",
                            resident_megabytes(process),
                        )
                bench.record(f"lifecycle.settled.{bus}", f"to SETTLED {title}", "payments/s", result.settled_a_second)
                bench.figures.add(
                    f"lifecycle.slices.{bus}",
                    f"to SETTLED {title}, by sixths of the window",
                    "payments/s",
                    *result.slices,
                )
                for moment, (unsettled, unpublished) in (
                    ("start", result.backlog_before),
                    ("end", result.backlog_after),
                ):
                    bench.record(
                        f"lifecycle.unsettled.{moment}.{bus}",
                        f"authorized and not settled at the {moment} of the window, {title}",
                        "payments",
                        unsettled,
                    )
                    bench.record(
                        f"lifecycle.unpublished.{moment}.{bus}",
                        f"events in the outbox at the {moment} of the window, {title}",
                        "events",
                        unpublished,
                    )
                used = {name: after[name] - before[name] for name in before}
                _record_processor_time(bench, f"lifecycle.{bus}", used, result.payments)


def latency(bench: Bench) -> None:
    """Latencies at loads that leave room: create at half of the most, and confirm to SETTLED at 50 payments/s."""
    plan = bench.plan
    with bench.installation.api(bench.edge) as api:
        most = bench.figures.median(f"http.engine.{CONNECTIONS}") or bench.pay(api, CONNECTIONS).payments_a_second
        for _ in range(plan.rounds):
            paced = uvloop.run(pace(api, bench.edge, rate=most / 2, seconds=plan.paced_seconds))
            _record_percentiles(bench, "latency.half", f"create at {most / 2:,.0f} payments/s", paced.create_ms)
    with bench.installation.api(bench.cycle) as api, bench.settling_worker(api):
        settled = bench.figures.median("lifecycle.settled.rabbitmq") or most / 2
        for _ in range(plan.rounds):
            followed = uvloop.run(follow(api, bench.cycle, rate=settled / 2, seconds=plan.paced_seconds))
            name = f"create at {settled / 2:,.0f} payments/s with everything settled"
            _record_percentiles(bench, "latency.half_settled", name, followed.client.create_ms)
        for _ in range(plan.rounds):
            followed = uvloop.run(follow(api, bench.cycle, rate=FOLLOWED_RATE, seconds=plan.followed_seconds))
            name = f"at {FOLLOWED_RATE} payments/s"
            _record_percentiles(bench, "latency.settled", f"confirm to SETTLED {name}", followed.to_settled_ms)
            _record_percentiles(
                bench, "latency.published", f"confirm to payment.settled published {name}", followed.to_published_ms
            )
            _record_percentiles(bench, "latency.create", f"create {name}", followed.client.create_ms)


def books(bench: Bench) -> None:
    """Balances and entries in books of 10 thousand, 100 thousand and 1 million payments of one tenant, over HTTP."""
    plan = bench.plan
    with ExitStack() as stack:
        served: dict[int, tuple[Process, Books, dict[str, str]]] = {}
        for size in plan.book_sizes:
            begin = time.perf_counter()
            filled = Books(bench.installation.postgres, f"bench_books_{size}", tenants=1)
            big_books.fill(filled, size)
            bench.say(f"  {size:,} payments written in {time.perf_counter() - begin:.0f} s")
            api = stack.enter_context(bench.installation.api(filled))
            served[size] = (api, filled, _query_paths(filled, size))
        for round_ in range(plan.rounds + 1):
            for name, query in QUERIES.items():
                for size, (api, filled, paths) in served.items():
                    # The first round only warms, and is not counted.
                    result = wrk(
                        api.base_url,
                        filled.callers,
                        bench.installation.folder,
                        mode="read",
                        connections=1,
                        seconds=plan.query_seconds if round_ else 1,
                        path=paths[name],
                    )
                    if round_:
                        title = f"{query} at {size:,} payments"
                        bench.record(f"books.{name}.p50.{size}", f"{title}, p50", "ms", result.p50_ms)
                        bench.figures.add(f"books.{name}.p99.{size}", f"{title}, p99", "ms", result.p99_ms)


def _query_paths(filled: Books, size: int) -> dict[str, str]:
    """Path and query of each of QUERIES; a deep page begins in the middle of the books."""
    tenant_id = filled.callers[0].tenant_id
    with filled.superuser() as conn:
        row = conn.execute(
            """
            SELECT posted_at, id FROM ledger_entries WHERE tenant_id = %s ORDER BY posted_at DESC, id DESC
            OFFSET (SELECT count(*) / 2 FROM ledger_entries) LIMIT 1
            """,
            [tenant_id],
        ).fetchone()
    assert row is not None
    cursor = CursorSigner(SECRET).write(f"entries {tenant_id}", row[0], row[1])
    # The middle half of the books. It cuts through two days: the hard case, since the totals are kept by day.
    now, span = datetime.now(UTC), big_books.span_of(size)
    period = urlencode({"from": (now - span * 3 / 4).isoformat(), "to": (now - span / 4).isoformat()})
    then = urlencode({"as_of": (now - span / 2).isoformat()})
    known = urlencode({"known_at": (now - span / 4).isoformat()})
    queries = (
        "/v1/ledger/balances",
        f"/v1/ledger/balances?{period}",
        "/v1/ledger/entries",
        f"/v1/ledger/entries?cursor={cursor}",
        f"/v1/ledger/entries?{period}",
        f"/v1/ledger/accounts/CASH/balances?{then}",
        f"/v1/ledger/accounts/CASH/balances?{then}&{known}",
        f"/v1/ledger/accounts/CASH/statement?currency=BRL&{period}",
        f"/v1/ledger/accounts/CASH/statement?currency=BRL&by=recorded&{period}",
    )
    return dict(zip(QUERIES, queries, strict=True))


def lists(bench: Bench) -> None:
    """Lists of payments by filters in the smallest and the largest books, over HTTP; refunds of many and of one."""
    plan, folder = bench.plan, bench.installation.folder
    sizes = (plan.book_sizes[0], plan.book_sizes[-1])
    with ExitStack() as stack:
        served: dict[int, tuple[Process, Books, dict[str, str]]] = {}
        for size in sizes:
            filled = Books(bench.installation.postgres, f"bench_lists_{size}", tenants=1)
            big_books.fill_lists(filled, size)
            served[size] = (stack.enter_context(bench.installation.api(filled)), filled, payment_lists.paths(size))
        for round_ in range(plan.rounds + 1):
            for name, title in payment_lists.TITLES.items():
                for size, (api, filled, paths) in served.items():
                    # The first round only warms, and is not counted.
                    seconds = plan.query_seconds if round_ else 1
                    result = wrk(
                        api.base_url, filled.callers, folder, mode="read", connections=1, seconds=seconds,
                        path=paths[name],
                    )  # fmt: skip
                    if round_:
                        bench.record(f"lists.{name}.p50.{size}", f"{title}, at {size:,}, p50", "ms", result.p50_ms)
                        bench.record(f"lists.{name}.p99.{size}", f"{title}, at {size:,}, p99", "ms", result.p99_ms)
        api, filled, _ = served[sizes[0]]
        payments = payment_lists.refundable(filled)
        for _ in range(plan.rounds):
            for key, title, ids in (
                ("lists.refunds.many", f"refunds of {len(payments):,} payments, 64 connections", payments),
                ("lists.refunds.one", "refunds of one payment, 64 connections", payments[:1]),
            ):
                result = wrk(
                    api.base_url, filled.callers, folder, mode="refund", connections=CONNECTIONS,
                    seconds=plan.query_seconds, body="\n".join(ids),
                )  # fmt: skip
                bench.record(key, title, "refunds/s", result.requests_a_second)


def bulk(bench: Bench) -> None:
    """POST /v1/payment-intents/batch with 1,000 payments each."""
    item = {"amount": "100.00", "currency": "BRL", "customer_ref": "CUST-001"}
    body = json.dumps({"payment_intents": [item] * BULK_SIZE})
    with bench.installation.api(bench.edge) as api:
        headers = {**bench.edge.callers[0].headers, "Idempotency-Key": uuid4().hex, "Content-Type": "application/json"}
        probe = httpx.post(f"{api.base_url}{CREATE_PATH}/batch", content=body, headers=headers, timeout=30)
        if probe.status_code in (404, 405):
            bench.figures.absent["bulk"] = f"not there: POST {CREATE_PATH}/batch answers {probe.status_code}"
            bench.say(f"  {bench.figures.absent['bulk']}")
            return
        for _ in range(bench.plan.rounds):
            result = wrk(
                api.base_url,
                bench.edge.callers,
                bench.installation.folder,
                mode="bulk",
                connections=4,
                seconds=bench.plan.http_seconds,
                path=f"{CREATE_PATH}/batch",
                body=body,
            )
            rate = result.requests_a_second * BULK_SIZE
            bench.record("bulk", "bulk create, 4 connections, 1,000 payments each", "payments/s", rate)
            bench.figures.add("bulk.p99", "a bulk request's p99", "ms", result.p99_ms)


def ledger(bench: Bench) -> None:
    """Transfers, one HTTP request each: one hot pair of accounts, 1,000 pairs, 1,000 limited ones; batches of 1,000."""
    plan = bench.plan
    books = Books(bench.installation.postgres, "bench_ledger", tenants=1)
    _add_transfer_accounts(books)
    items = [
        {"postings": [{"debit": f"FREE.A{n}", "credit": f"TARGET.A{n}", "amount": "0.01", "currency": "BRL"}]}
        for n in range(1, BULK_SIZE + 1)
    ]
    body = json.dumps({"mode": "atomic", "transactions": items})
    with bench.installation.api(books) as api:

        def load(mode: Mode, path: str, *, connections: int = CONNECTIONS, body: str = "") -> WrkResult:
            return wrk(
                api.base_url,
                books.callers,
                bench.installation.folder,
                mode=mode,
                connections=connections,
                seconds=plan.http_seconds,
                path=path,
                body=body,
            )

        load("transfer", "FREE.A 1")
        for _ in range(plan.rounds):
            for key, (source, title) in TRANSFERS.items():
                result = load("transfer", source)
                name = f"{title}, {_counted(CONNECTIONS)}"
                bench.record(f"ledger.{key}", name, "transactions/s", result.requests_a_second)
                bench.figures.add(f"ledger.{key}.p99", f"{title}, a request's p99", "ms", result.p99_ms)
            result = load("bulk", "/v1/ledger/transactions/batch", connections=4, body=body)
            rate = result.requests_a_second * BULK_SIZE
            bench.record("ledger.batch", "atomic batches of 1,000 transfers, 4 connections", "postings/s", rate)
            bench.figures.add("ledger.batch.p99", "such a batch's p99", "ms", result.p99_ms)


def _add_transfer_accounts(books: Books) -> None:
    """Sources without limits (FREE), sources with a minimum that nobody reaches (LIMITED), and targets."""
    with books.superuser() as conn:
        conn.execute(
            """
            INSERT INTO accounts (tenant_id, code, name, type)
            SELECT %s, part || '.A' || place, 'An account of the benchmark', 'liability'
            FROM unnest('{FREE,LIMITED,TARGET}'::text[]) AS part, generate_series(1, %s) AS place
            """,
            [books.callers[0].tenant_id, BULK_SIZE],
        )
        conn.execute(
            """
            INSERT INTO account_balances (tenant_id, account, currency, normal_side, debits, credits, pending_debits,
                                          pending_credits, balance_min, version)
            SELECT tenant_id, code, 'BRL', 'credit', 0, 0, 0, 0, -1000000000000, 0
            FROM accounts WHERE starts_with(code, 'LIMITED.')
            """
        )
    books.settle_down()


def processes(bench: Bench) -> None:
    """Two API processes behind one port, turn by turn with one and with limit (a)."""
    with (
        bench.installation.reference() as reference,
        bench.installation.api(bench.edge) as one,
        bench.installation.api(bench.edge, workers=2) as two,
    ):
        for process in (reference, one, two):
            bench.pay(process, CONNECTIONS, seconds=WARM_SECONDS)
        for _ in range(bench.plan.rounds):
            for key, process, title in (
                ("processes.limit", reference, "limit (a), 64 connections"),
                ("processes.1", one, "create and confirm, one API process"),
                ("processes.2", two, "create and confirm, two API processes"),
            ):
                bench.record(key, title, "payments/s", bench.pay(process, CONNECTIONS).payments_a_second)


def start(bench: Bench) -> None:
    """Cold starts, and memory at rest."""
    for _ in range(bench.plan.rounds):
        begin = time.perf_counter()
        with bench.installation.api(bench.cycle) as api:
            bench.record("start.api", "start of the API until it is ready", "s", time.perf_counter() - begin)
            begin = time.perf_counter()
            with bench.settling_worker(api) as worker:
                taken = time.perf_counter() - begin
                bench.record("start.worker", "start of the worker until it has settled a payment", "s", taken)
                # What a start leaves behind is done by then.
                time.sleep(1)
                for name, process in (("api", api), ("worker", worker)):
                    bench.record(
                        f"memory.{name}.rest", f"memory of the {name} at rest", "MB", resident_megabytes(process)
                    )


def verify(bench: Bench) -> None:
    """`payments-ledger verify` over what was settled before: figures of books that do not balance are worth nothing."""
    with bench.cycle.superuser() as conn:
        [payments] = conn.execute("SELECT count(*) FROM payment_intents").fetchone() or [0]
    begin = time.perf_counter()
    found = bench.installation.run_command("verify", bench.cycle)
    bench.record("verify", f"payments-ledger verify over {payments:,} payments", "s", time.perf_counter() - begin)
    if found.returncode:
        raise RuntimeError(f"payments-ledger verify: {found.stdout}{found.stderr}")


def _counted(connections: int) -> str:
    return f"{connections} connections" if connections > 1 else "1 connection"


def _record_percentiles(bench: Bench, key: str, title: str, milliseconds: list[float]) -> None:
    for percent in (50, 99):
        bench.record(f"{key}.p{percent}", f"{title}, p{percent}", "ms", percentile(milliseconds, percent))


def _record_processor_time(bench: Bench, key: str, used: Mapping[str, float], payments: float) -> None:
    for name, seconds in used.items():
        cost = seconds / payments * 1e6
        bench.figures.add(f"{key}.cpu.{name}", f"processor time of {name} for a payment", "µs", cost)


type Scenario = Callable[[Bench], None]

# In this order: what comes first leaves the fewest traces in the others.
SCENARIOS: Mapping[str, Scenario] = {
    "start": start,
    "books": books,
    "lists": lists,
    "http": http,
    "processes": processes,
    "bulk": bulk,
    "ledger": ledger,
    "database": database,
    "security": security,
    "lifecycle": lifecycle,
    "latency": latency,
    "verify": verify,
}


def run(bench: Bench, names: Iterable[str]) -> None:
    """Runs the scenarios named, in the order above. One that fails leaves the others their time."""
    for name, scenario in SCENARIOS.items():
        if name in names:
            begin = time.perf_counter()
            bench.say(f"{name}: {(scenario.__doc__ or '').strip()}")
            try:
                scenario(bench)
            except Exception as error:
                bench.fail(name, error)
            bench.say(f"  ({time.perf_counter() - begin:.0f} s)")
    _add_ratios(bench.figures, bench.plan)


def _add_ratios(figures: Figures, plan: Plan) -> None:
    for connections in plan.connections:
        figures.add_ratio(
            f"ratio.http.{connections}",
            f"create and confirm against limit (a), {_counted(connections)}",
            f"http.engine.{connections}",
            f"http.limit.{connections}",
        )
    figures.add_ratio("ratio.hot", "one hot tenant against 20 tenants", "http.hot", f"http.engine.{CONNECTIONS}")
    figures.add_ratio("ratio.replay", "replays against limit (a), requests", "http.replay", "http.limit_requests")
    figures.add_ratio("ratio.processes", "two API processes against one", "processes.2", "processes.1")
    for bus, title in BUSES.items():
        figures.add_ratio(
            f"ratio.lifecycle.{bus}",
            f"to SETTLED {title} against limit (a)",
            f"lifecycle.settled.{bus}",
            f"lifecycle.limit.{bus}",
        )
    smallest, *larger = plan.book_sizes
    for size in larger:
        for key, title in QUERIES.items():
            figures.add_ratio(
                f"ratio.books.{key}.{size}",
                f"{title}, p50 at {size:,} payments against {smallest:,}",
                f"books.{key}.p50.{size}",
                f"books.{key}.p50.{smallest}",
            )
