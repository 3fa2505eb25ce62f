"""Measures what one stranger and one user can cost a process at most, as a table. Exit status 1 beyond the limits.

scripts/abuse.sh --seconds 5
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx

from tests.abuse import attacks
from tests.abuse.attacks import Headers
from tests.abuse.cost import Cost, measure
from tests.big_book import fill
from tests.services import PostgresServer, free_port

PROGRAM = Path(sys.executable).with_name("payments-ledger")
START_SECONDS_MAX = 60.0
# Enough for lists that are as long as they may be.
BOOK_PAYMENTS = 5000

# What is held, by the name of the attack: memory in MiB, and others' 99th percentile in ms.
GROWTH_MIB_MAX = {"flood of trailers": 10.0, "endless trailer": 10.0}
P99_MS_MAX = {"ten worst batches": 250.0}

TABLE_HEAD = (
    "| who | what | seconds | CPU seconds | memory, MiB | others' p99, ms | others unserved | outcomes |\n"
    "|---|---|---|---|---|---|---|---|\n"
)


class Api:
    """An API process with the default limits, which count in its own memory."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.port = free_port()
        environment = os.environ | {
            "DATABASE_URL": database_url,
            "REDIS_URL": "memory://",
            "RABBITMQ_URL": "memory://",
            "JWT_SECRET": "a secret of more than thirty-two bytes",
            "LOG_LEVEL": "WARNING",
        }
        for command in ("migrate", "seed"):
            subprocess.run([PROGRAM, command], env=environment, check=True, capture_output=True, timeout=180)
        with (folder / "api.log").open("wb") as log:
            self.process = subprocess.Popen(
                [PROGRAM, "api", "--port", str(self.port)], env=environment, stdout=log, stderr=log
            )
        self._base_url = f"http://127.0.0.1:{self.port}"

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{self._base_url}/readyz").is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
        raise TimeoutError("the API does not start")

    def log_in(self, email: str, password: str, tenant_id: str) -> dict[str, str]:
        """The headers of somebody who acts for the tenant."""
        answer = httpx.post(f"{self._base_url}/v1/auth/token", json={"email": email, "password": password})
        token = answer.raise_for_status().json()["access_token"]
        return {"Authorization": f"Bearer {token}", "X-Tenant-Id": tenant_id}

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@contextmanager
def serving() -> Iterator[tuple[Api, Headers, Headers]]:
    """An API, somebody who pays, and somebody who reads a long book."""
    with tempfile.TemporaryDirectory(prefix="ledger-abuse-") as folder:
        postgres = PostgresServer(Path(folder))
        postgres.start()
        try:
            database_url = postgres.create_database("abuse")
            api = Api(Path(folder), database_url)
            try:
                api.wait_until_ready()
                book = fill(database_url, payments=BOOK_PAYMENTS, tenants=1)
                payer = api.log_in("ops@demo", "ops123", "tenant_demo")
                yield api, payer, api.log_in("admin@local", "admin123", book.tenants[0])
            finally:
                api.stop()
        finally:
            postgres.stop()


def attacks_on(
    api: Api, seconds: float, payer: Headers, reader: Headers
) -> dict[str, tuple[str, Callable[[], Counter[str]]]]:
    """By name: who does it, and what it is. Logins come last, since their limit is that of the address."""
    port = api.port
    return {
        "nothing": ("nobody", partial(attacks.nothing, port, seconds)),
        "flood of trailers": ("stranger", partial(attacks.flood_of_trailers, port, seconds)),
        "endless trailer": ("stranger", partial(attacks.endless_trailer, port, seconds)),
        "huge heads": ("stranger", partial(attacks.huge_heads, port, seconds)),
        f"{attacks.SLOW_CONNECTIONS} slow heads": ("stranger", partial(attacks.slow_heads, port, seconds)),
        "endless pipeline": ("stranger", partial(attacks.endless_pipeline, port, seconds)),
        "ten worst batches": ("user", partial(attacks.worst_batches, port, seconds, payer)),
        "longest lists": ("user", partial(attacks.longest_lists, port, seconds, reader)),
        "deep JSON": ("user", partial(attacks.deep_json, port, seconds, payer)),
        "long numbers": ("user", partial(attacks.long_numbers, port, seconds, reader)),
        "login guesses": ("stranger", partial(attacks.login_guesses, port, seconds)),
        "bodies up to the limit": ("stranger", partial(attacks.large_bodies, port, seconds)),
    }


def row(who: str, what: str, cost: Cost) -> str:
    outcomes = ", ".join(f"{number} x {outcome}" for outcome, number in sorted(cost.outcomes.items()))
    return (
        f"| {who} | {what} | {cost.seconds:.1f} | {cost.cpu_seconds:.2f} | {cost.growth_mib:.1f} | {cost.p99_ms:.0f} "
        f"| {cost.failed} of {cost.asked} | {outcomes or '-'} |\n"
    )


def excess(what: str, cost: Cost) -> str | None:
    """What is beyond its limit, if anything."""
    growth_max, p99_max = GROWTH_MIB_MAX.get(what), P99_MS_MAX.get(what)
    if growth_max is not None and cost.growth_mib >= growth_max:
        return f"{what}: the memory grew by {cost.growth_mib:.1f} MiB; the limit is {growth_max:.0f} MiB"
    if p99_max is not None and cost.p99_ms >= p99_max:
        return f"{what}: others waited for {cost.p99_ms:.0f} ms (p99); the limit is {p99_max:.0f} ms"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--seconds", type=float, default=5, help="how long an attack that does not end by itself goes on"
    )
    parser.add_argument("--only", help="only attacks whose names hold this text")
    arguments = parser.parse_args()
    beyond: list[str] = []
    with serving() as (api, payer, reader):
        sys.stdout.write(TABLE_HEAD)
        for what, (who, attack) in attacks_on(api, arguments.seconds, payer, reader).items():
            if arguments.only and arguments.only not in what:
                continue
            cost = measure(api.process.pid, api.port, attack)
            sys.stdout.write(row(who, what, cost))
            sys.stdout.flush()
            if found := excess(what, cost):
                beyond.append(found)
    for found in beyond:
        sys.stderr.write(f"{found}\n")
    return 1 if beyond else 0


if __name__ == "__main__":
    raise SystemExit(main())
