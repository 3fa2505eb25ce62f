"""What an operator sees: the metrics of API and worker as they run, and what Prometheus makes of them.

Long because one installation is looked at from all sides.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aio_pika
import httpx
import psycopg
import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from payments_ledger.postgres.database import driver_url
from payments_ledger.rabbitmq.connection import connected
from tests.acceptance.conftest import Engine, eventually, free_port
from tests.services import PostgresServer, PrometheusServer, RabbitmqServer, program

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
    eventually(lambda: httpx.get(f"{engine.base_url}/readyz").is_success, seconds=START_TWO_SECONDS_MAX)
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

    def pools_of_two() -> bool:
        return samples(engine.base_url, "ledger_pool_connections_max", pool="requests") == [2 * 4]

    with engine.process("api", "--port", str(engine.port), "--workers", "2"):
        before = eventually(lambda: pids if len(pids := running()) == 2 else None, seconds=START_TWO_SECONDS_MAX)
        ask(40)
        assert answered() == {40}
        eventually(pools_of_two)
        killed = min(before)
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: len(now := running()) == 2 and killed not in now, seconds=START_TWO_SECONDS_MAX)
        ask(2)
        assert answered() == {42}
        eventually(pools_of_two)


# ---------------------------------------------------------------------------------------------------------------------
# Prometheus, as deploy/ configures it, on the live engine. Its rules are those of deploy/, in a hurry.

ROOT = Path(__file__).parents[2]
CONFIGURATION = ROOT / "deploy/prometheus/prometheus.yaml"
RULES = ROOT / "deploy/prometheus/rules.yaml"
DASHBOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}
RUNBOOKS = sorted((ROOT / "docs/runbooks").glob("*.md"))
# Minutes become seconds. The bounds that are passed by waiting shrink with them.
IN_A_HURRY = (
    (r"\[5m\]", "[10s]"),
    (r"\[(15m|30m|1h)\]", "[15s]"),
    (r"\[6h\]", "[20s]"),
    (r"for: \d+m", "for: 1s"),
    (r"> (60|120)$", "> 4"),
)
METRIC = re.compile(r"\b(ledger[_:][a-z0-9_:]+|process_[a-z_]+|python_[a-z_]+|up)\b")


@dataclass
class Monitored:
    """The engine as it runs, who asks it, and the Prometheus that looks at it."""

    engine: Engine
    client: httpx.Client
    admin: httpx.Client
    prometheus: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query, without those whose value is not a number; fails if it cannot be read."""
        answer = httpx.get(f"{self.prometheus}/api/v1/query", params={"query": expression}, timeout=10)
        assert answer.is_success, f"{expression}: {answer.text}"
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return [series for series in found if series["value"][1] != "NaN"]

    def firing(self) -> set[str]:
        return {series["metric"]["alertname"] for series in self.query('ALERTS{alertstate="firing"}')}

    def pay(self) -> None:
        """Some of everything that leaves its mark in the metrics."""
        settle(self.engine, self.client)
        create(self.client, key="monitored")
        create(self.client, key="monitored")
        self.client.get("/v1/ledger/balances")
        self.client.get("/v1/ledger/entries", headers={"X-Tenant-Id": "another"})
        self.client.get("/nowhere")


def in_a_hurry(rules: str) -> str:
    for written, hurried in IN_A_HURRY:
        rules = re.sub(written, hurried, rules, flags=re.MULTILINE)
    return rules


@pytest.fixture(scope="module")
def monitored(
    engine: Engine, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Monitored]:
    """With a database of its own, since alerts are about everything that is in it."""
    folder = tmp_path_factory.mktemp("prometheus")
    variables = {
        "DATABASE_URL": postgres.create_database("monitored"),
        "CHAOS_ENABLED": "true",
        "VERIFY_SECONDS": "1",
        "WORKER_PORT": str(free_port()),
    }
    watched_engine = Engine(engine.environment | variables, free_port())
    watched_engine.install()
    configuration = yaml.safe_load(CONFIGURATION.read_text())
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    here = {"api:8000": watched_engine.base_url, "worker:9001": watched_engine.worker_url}
    for job in configuration["scrape_configs"]:
        for targets in job["static_configs"]:
            targets["targets"] = [here[target].removeprefix("http://") for target in targets["targets"]]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
    (folder / "rules.yaml").write_text(in_a_hurry(RULES.read_text()))
    server = PrometheusServer(folder)
    with (
        watched_engine.api(),
        watched_engine.worker(),
        client_of(watched_engine) as client,
        client_of(watched_engine, "admin@local", "admin123") as admin,
    ):
        server.start()
        try:
            yield Monitored(watched_engine, client, admin, server.url)
        finally:
            server.remove()


def expressions_of_dashboards() -> dict[str, str]:
    """Each expression of each panel and annotation, and where it stands."""
    found = {}
    for file in DASHBOARDS:
        dashboard = json.loads(file.read_text())
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                found[target["expr"]] = f"{dashboard['title']}: {panel['title']}"
    return found


def test_promtool_accepts_the_configuration_and_each_alert_fires_for_its_cause_alone() -> None:
    promtool = program("promtool")
    for arguments in (("check", "config", CONFIGURATION), ("test", "rules", ROOT / "tests/acceptance/alerts.yaml")):
        done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_severity_a_summary_a_runbook_and_a_test() -> None:
    tested = set(re.findall(r'alertname="(\w+)"', (ROOT / "tests/acceptance/alerts.yaml").read_text()))
    assert tested == ALERTS.keys()
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook"] == f"docs/runbooks/{name}.md"
        assert (ROOT / rule["annotations"]["runbook"]).read_text().startswith(f"# {name}\n")
    assert {runbook.stem for runbook in RUNBOOKS} == ALERTS.keys()


def test_the_dashboards_are_found_and_begin_with_the_data_source_that_is_provisioned() -> None:
    provisioning = ROOT / "deploy/grafana/provisioning"
    [source] = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())["datasources"]
    [provider] = yaml.safe_load((provisioning / "dashboards/dashboards.yaml").read_text())["providers"]
    grafana = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["grafana"]
    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in grafana["volumes"]
    assert len({json.loads(file.read_text())["uid"] for file in DASHBOARDS}) == len(DASHBOARDS) == 5
    for file in DASHBOARDS:
        variables = {variable["name"]: variable for variable in json.loads(file.read_text())["templating"]["list"]}
        assert variables.keys() == {"datasource", "instance"}
        assert variables["datasource"]["current"]["value"] == source["uid"]
        assert variables["instance"]["allValue"] == ".*"


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_every_panel_is_explained_and_follows_the_variables(file: Path) -> None:
    dashboard = json.loads(file.read_text())
    assert dashboard["title"].startswith("ledger / ")
    for panel in dashboard["panels"]:
        assert panel["description"].endswith("."), panel["title"]
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            # What Prometheus recorded itself is of all instances.
            of_instances = re.findall(r"\b(?:ledger_|process_|python_|up\b)[a-z_]*(?=\{|\[)", target["expr"])
            assert target["expr"].count('instance=~"$instance"') == len(of_instances), target["expr"]


def test_what_happens_in_a_second_has_a_unit_that_says_what() -> None:
    for file in DASHBOARDS:
        for panel in json.loads(file.read_text())["panels"]:
            unit = panel["fieldConfig"]["defaults"]["unit"]
            expressions = [target["expr"] for target in panel["targets"]]
            if any("ledger_http_requests_total" in expression for expression in expressions) and unit != "percentunit":
                assert unit == "reqps", panel["title"]
            elif panel["title"].startswith("Payments") and "second" in panel["title"]:
                assert unit == "suffix: payments/s"
            elif "a second" in panel["title"]:
                assert unit == "ops", panel["title"]


def test_the_worker_shows_health_and_what_it_watches(monitored: Monitored) -> None:
    engine = monitored.engine
    eventually(lambda: httpx.get(f"{engine.worker_url}/healthz").is_success)
    ready = eventually(lambda: httpx.get(f"{engine.worker_url}/readyz"))
    assert ready.json()["dependencies"] == {"postgresql": "ok", "redis": "ok", "rabbitmq": "ok"}
    settle(engine, monitored.client)
    eventually(lambda: payments_shown(engine) == payments_there(engine))
    assert payments_shown(engine)["SETTLED"] >= 1
    eventually(lambda: watched(engine, "ledger_payments_oldest_authorized_seconds") == 0)
    eventually(lambda: watched(engine, "ledger_outbox_pending") == watched(engine, "ledger_outbox_oldest_seconds") == 0)
    assert watched(engine, "ledger_settlement_seconds_count") >= 1
    assert watched(engine, "ledger_queue_messages", queue="payments.events", kind="work") >= 0
    eventually(lambda: watched(engine, "ledger_queue_consumers", queue="payments.events", kind="work") >= 1)
    assert samples(engine.worker_url, "ledger_queue_messages", queue="payments.dlq", kind="dead_letters")
    assert samples(engine.worker_url, "ledger_pool_connections", pool="outbox")


def payments_shown(engine: Engine) -> dict[str, float]:
    found = {
        sample.labels["status"]: sample.value
        for sample in scrape(engine.worker_url)
        if sample.name == "ledger_payments"
    }
    return {status: number for status, number in found.items() if number}


def payments_there(engine: Engine) -> dict[str, float]:
    """Counted one by one."""
    with psycopg.connect(driver_url(engine.environment["DATABASE_URL"])) as conn:
        conn.execute("SELECT set_config('role', current_database() || '_auditor', true)")
        return dict(conn.execute("SELECT status, count(*) FROM payment_intents GROUP BY status").fetchall())


def watched(engine: Engine, name: str, **labels: str) -> float:
    [value] = eventually(lambda: samples(engine.worker_url, name, **labels))
    return value


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


def test_labels_have_values_from_bounded_sets_whatever_is_asked(monitored: Monitored) -> None:
    engine, client = monitored.engine, monitored.client
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
    assert replayed >= 1
    assert conflict >= 1
    assert samples(engine.base_url, "ledger_rate_limits_total", limit="write", outcome="admitted")


def test_each_expression_of_the_dashboards_returns_data_on_the_live_engine(monitored: Monitored) -> None:
    missing = expressions_of_dashboards()
    assert len(missing) > 60

    def all_found() -> bool:
        monitored.pay()
        for expression in list(missing):
            if monitored.query(expression.replace("$__rate_interval", "1m").replace("$instance", ".*")):
                del missing[expression]
        return not missing

    with suppress(AssertionError):
        eventually(all_found, seconds=60)
    assert missing == {}


@pytest.mark.parametrize("runbook", RUNBOOKS, ids=lambda runbook: runbook.stem)
def test_the_sql_of_a_runbook_can_be_run(engine: Engine, runbook: Path) -> None:
    text = runbook.read_text()
    for statements in re.findall(r"```sql\n(.*?)```", text, re.DOTALL) + re.findall(r"`(SELECT [^`]*;)`", text):
        with psycopg.connect(driver_url(engine.environment["DATABASE_URL"]), autocommit=True) as conn:
            # One session of its own is what an operator could end.
            conn.execute(re.sub(r"\bpg_terminate_backend\(pid\)", "pg_backend_pid()", statements))


def test_the_metrics_of_each_alert_are_there_and_none_fires_while_all_is_well(monitored: Monitored) -> None:
    texts = [rule["expr"] for rule in ALERTS.values()] + [runbook.read_text() for runbook in RUNBOOKS]
    metrics = {metric for text in texts for metric in METRIC.findall(text)}
    assert len(metrics) > 10
    eventually(lambda: all(monitored.query(f'count({{__name__=~"{metric}(_count)?"}})') for metric in metrics))
    for rule in ALERTS.values():
        monitored.query(rule["expr"])
    eventually(lambda: not monitored.firing())


def test_alerts_fire_when_their_cause_is_injected_and_end_with_it(
    monitored: Monitored, rabbitmq_server: RabbitmqServer
) -> None:
    engine, client = monitored.engine, monitored.client
    eventually(lambda: not monitored.firing())

    # Answers fail.
    set_faults(monitored, {"enabled": True, "fail_percent": 100, "latency_ms": 0})
    eventually(lambda: [create(client) for _ in range(5)] and "ErrorBudgetBurn" in monitored.firing())
    set_faults(monitored, {"enabled": False, "fail_percent": 0, "latency_ms": 0})

    # A total is changed by hand.
    with changed_total(engine):
        eventually(lambda: "InvariantBroken" in monitored.firing())

    # The broker hangs: an event stays in the outbox, and its payment AUTHORIZED.
    rabbitmq_server.pause()
    try:
        payment_id = create(client).raise_for_status().json()["id"]
        path = f"/v1/payment-intents/{payment_id}"
        client.post(f"{path}/confirm", headers={"Idempotency-Key": payment_id}).raise_for_status()
        eventually(lambda: monitored.firing() >= {"OutboxStuck", "SettleLag", "GaugesStale"}, seconds=60)
    finally:
        rabbitmq_server.resume()
    eventually(lambda: client.get(path).json()["status"] == "SETTLED")

    # A message comes that nobody can read.
    asyncio.run(send_nonsense(rabbitmq_server.url))
    eventually(lambda: "DeadLettersGrowing" in monitored.firing())
    eventually(lambda: not monitored.firing(), seconds=60)


def set_faults(monitored: Monitored, faults: dict[str, Any]) -> None:
    monitored.admin.put("/v1/admin/chaos", json=faults).raise_for_status()


@contextmanager
def changed_total(engine: Engine) -> Iterator[None]:
    def change(by: int) -> None:
        with psycopg.connect(driver_url(engine.environment["DATABASE_URL"])) as conn:
            conn.execute("SELECT set_config('payments_ledger.tenant_ids', %s, true)", [TENANT])
            changed = conn.execute(
                """
                UPDATE account_totals SET debits = debits + %s
                WHERE account = 'CASH' AND currency = 'BRL' AND day = (SELECT max(day) FROM account_totals)
                """,
                [by],
            )
            assert changed.rowcount == 1

    change(by=1)
    try:
        yield
    finally:
        change(by=-1)


async def send_nonsense(url: str) -> None:
    async with connected(url) as connection:
        exchange = await (await connection.channel()).get_exchange("payments.x")
        await exchange.publish(aio_pika.Message(b"nonsense"), "payment.authorized")
