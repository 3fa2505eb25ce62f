"""What an operator sees: the metrics of API and worker as they run, and what Prometheus makes of them."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.acceptance.conftest import Engine, eventually

TENANT = "tenant_demo"
# Two processes and the one that keeps them, on a machine that may have one core for all.
START_TWO_SECONDS_MAX = 90.0


def scrape(url: str) -> list[Sample]:
    page = httpx.get(f"{url}/metrics").raise_for_status().text
    return [sample for family in text_string_to_metric_families(page) for sample in family.samples]


def samples(url: str, name: str, **labels: str) -> list[float]:
    """The values of a metric that have at least these labels, of one scrape."""
    return [sample.value for sample in scrape(url) if sample.name == name and labels.items() <= sample.labels.items()]


def labels_of(url: str, name: str) -> list[dict[str, str]]:
    return [sample.labels for sample in scrape(url) if sample.name == name]


@contextmanager
def client_of(engine: Engine, email: str = "ops@demo", password: str = "ops123") -> Iterator[httpx.Client]:
    engine.wait_until_ready()
    with httpx.Client(base_url=engine.base_url, timeout=10) as client:
        token = client.post("/v1/auth/token", json={"email": email, "password": password}).raise_for_status().json()
        client.headers.update({"Authorization": f"Bearer {token['access_token']}", "X-Tenant-Id": TENANT})
        yield client


def create(client: httpx.Client, key: str | None = None, amount: str = "1.00") -> httpx.Response:
    body = {"amount": amount, "currency": "BRL", "customer_ref": "CUST-001"}
    return client.post("/v1/payment-intents", json=body, headers={"Idempotency-Key": key} if key else {})


def settle(engine: Engine, client: httpx.Client) -> str:
    payment_id: str = create(client).raise_for_status().json()["id"]
    path = f"/v1/payment-intents/{payment_id}"
    client.post(f"{path}/confirm", headers={"Idempotency-Key": payment_id}).raise_for_status()
    eventually(lambda: client.get(path).json()["status"] == "SETTLED")
    return payment_id


def test_several_api_processes_count_together_and_keep_what_one_counted_that_is_gone(engine: Engine) -> None:
    def answered() -> set[float]:
        """As several connections see it, which meet different processes."""
        metric = "ledger_http_requests_total"
        return {sum(samples(engine.base_url, metric, route="/healthz", status="200")) for _ in range(8)}

    def ask(number: int) -> None:
        for _ in range(number):
            httpx.get(f"{engine.base_url}/healthz").raise_for_status()

    def running() -> set[int]:
        found = labels_of(engine.base_url, "process_resident_memory_bytes")
        return {int(labels["pid"]) for labels in found}

    with engine.process("api", "--port", str(engine.port), "--workers", "2"):
        before = eventually(lambda: pids if len(pids := running()) == 2 else None, seconds=START_TWO_SECONDS_MAX)
        ask(40)
        assert answered() == {40}
        assert samples(engine.base_url, "ledger_pool_connections_max", pool="requests") == [2 * 4]
        killed = min(before)
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: len(now := running()) == 2 and killed not in now, seconds=START_TWO_SECONDS_MAX)
        ask(2)
        assert answered() == {42}
        assert samples(engine.base_url, "ledger_pool_connections_max", pool="requests") == [2 * 4]


def test_the_worker_shows_health_and_what_it_watches(engine: Engine) -> None:
    with engine.api(), engine.worker(), client_of(engine) as client:
        eventually(lambda: httpx.get(f"{engine.worker_url}/healthz").is_success)
        ready = eventually(lambda: httpx.get(f"{engine.worker_url}/readyz"))
        assert ready.json()["dependencies"] == {"postgresql": "ok", "redis": "ok", "rabbitmq": "ok"}
        before = watched(engine, "ledger_payments", status="SETTLED")
        settle(engine, client)
        eventually(lambda: watched(engine, "ledger_payments", status="SETTLED") == before + 1)
        assert watched(engine, "ledger_payments", status="AUTHORIZED") == 0
        assert watched(engine, "ledger_payments_oldest_authorized_seconds") == 0
        assert watched(engine, "ledger_outbox_oldest_seconds") < 60
        assert watched(engine, "ledger_settlement_seconds_count") == 1
        assert watched(engine, "ledger_queue_messages", queue="payments.events", kind="work") == 0
        assert watched(engine, "ledger_queue_consumers", queue="payments.events", kind="work") >= 1
        assert samples(engine.worker_url, "ledger_queue_messages", queue="payments.dlq", kind="dead_letters")
        assert samples(engine.worker_url, "ledger_pool_connections", pool="outbox")


def watched(engine: Engine, name: str, **labels: str) -> float:
    [value] = eventually(lambda: samples(engine.worker_url, name, **labels))
    return value


def test_a_worker_whose_port_is_taken_settles_all_the_same(engine: Engine) -> None:
    with engine.api(), client_of(engine) as client:
        other = Engine(engine.environment | {"WORKER_PORT": str(engine.port)}, engine.port)
        with other.worker():
            settle(engine, client)


# Every label there is, with what its values may be: a tenant, an id or an address would grow without end.
LABELS = {
    "method": "GET|POST|PUT|PATCH|DELETE|OTHER",
    "route": r"unmatched|/[a-z0-9/_{}.-]*",
    "status": r"\d{1,3}|[A-Z]+",
    "le": r"\+Inf|[\d.e-]+",
    "code": "[a-z_]+",
    "limit": "read|write|login",
    "outcome": "[a-z_ ,]+",
    "type": r"[a-z_.]+",
    "pool": "requests|commands|outbox",
    "state": "idle|used",
    "queue": r"[a-z.]+",
    "kind": "work|dead_letters|failure|latency",
    "of": "database|broker",
    "place": "request|handler|publish",
    "invariant": "[a-z_]+",
    "generation": "[012]",
    "implementation": ".+",
    "major": r"\d+",
    "minor": r"\d+",
    "patchlevel": r"\d+",
    "version": ".+",
}


def test_labels_have_values_from_bounded_sets_whatever_is_asked(engine: Engine) -> None:
    with engine.api(), engine.worker(), client_of(engine) as client:
        settle(engine, client)
        create(client, key="one key")
        create(client, key="one key")
        assert create(client, key="one key", amount="2.00").status_code == 422
        strange: list[Callable[[], httpx.Response]] = [
            lambda: client.get("/v1/payment-intents/00000000-0000-0000-0000-000000000000"),
            lambda: client.get("/v1/scanner/../../etc"),
            lambda: client.request("PATCH", "/v1/me"),
            lambda: client.get("/v1/ledger/entries", headers={"X-Tenant-Id": "another"}),
            lambda: client.get("/v1/ledger/entries", headers={"Authorization": "Bearer none"}),
        ]
        assert [ask().status_code for ask in strange] == [404, 404, 405, 403, 401]
        for url in (engine.base_url, engine.worker_url):
            for sample in scrape(url):
                for label, value in sample.labels.items():
                    assert re.fullmatch(LABELS[label], value), sample
        [replayed] = samples(engine.base_url, "ledger_idempotency_total", outcome="replayed")
        [conflict] = samples(engine.base_url, "ledger_idempotency_total", outcome="conflict")
        assert (replayed, conflict) == (1, 1)
        assert samples(engine.base_url, "ledger_rate_limits_total", limit="write", outcome="admitted")
