"""The metrics of HTTP requests, and the page that Prometheus reads. Each module defines its own where it counts."""

import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    Metric,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

# From the few milliseconds of a healthy response to the five seconds within which every request has one.
LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

HTTP_REQUESTS = Counter("ledger_http_requests_total", "Requests answered", ["method", "route", "status"])
HTTP_SECONDS = Histogram(
    "ledger_http_request_seconds", "Time to answer a request", ["method", "route"], buckets=LATENCY_BUCKETS
)

# Where the processes of one server keep their values in common; prometheus_client reads it when it is imported.
SHARED_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def metrics_page() -> bytes:
    """The server's metrics, of all its processes, in the Prometheus text format (CONTENT_TYPE)."""
    folder = os.environ.get(SHARED_FOLDER_VARIABLE)
    return generate_latest(_of_all_processes(Path(folder))) if folder else generate_latest()


def count_answer(method: str, route: str, status: int, seconds: float) -> None:
    """Counts a request. All three must be from bounded sets."""
    _requests(method, route, status).inc()
    _seconds(method, route).observe(seconds)


# `labels` finds a child under a lock and by texts that it makes anew, at every request.
@cache
def _requests(method: str, route: str, status: int) -> Counter:
    return HTTP_REQUESTS.labels(method, route, str(status))


@cache
def _seconds(method: str, route: str) -> Histogram:
    return HTTP_SECONDS.labels(method, route)


@contextmanager
def shared_by_processes() -> Iterator[None]:
    """The processes that are started in this block count together, and each of them shows the metrics of all."""
    with tempfile.TemporaryDirectory(prefix="payments-ledger-metrics-") as folder:
        os.environ[SHARED_FOLDER_VARIABLE] = folder
        try:
            yield
        finally:
            del os.environ[SHARED_FOLDER_VARIABLE]


def _of_all_processes(folder: Path) -> CollectorRegistry:
    registry = CollectorRegistry()
    running = []
    for pid in {int(found[1]) for file in folder.iterdir() if (found := re.search(r"_(\d+)\.db$", file.name))}:
        if _is_running(pid):
            running.append(pid)
        else:
            # What it counted stays counted; its gauges describe a process that has ended.
            mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    registry.register(_Processes(running))
    return registry


class _Processes(Collector):
    """Processor time, memory and files of several processes, distinguished by `pid`."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = sorted(pids)

    def collect(self) -> Iterable[Metric]:
        metrics: dict[str, Metric] = {}
        for pid in self._pids:
            for found in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                metric = metrics.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                metric.samples += [sample._replace(labels={"pid": str(pid)}) for sample in found.samples]
        return metrics.values()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
