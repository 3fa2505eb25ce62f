#!/usr/bin/env bash
# Runs every check and every test, after installing what they need. With arguments: only pytest, which gets them
# (scripts/test.sh tests/unit -k money), in one process unless they say otherwise (-n 3 --dist loadfile).

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
source scripts/servers.sh

# The programs of the tests besides PostgreSQL, which is in the Python environment. Their packages have the same names.
# docker-compose reads compose.yaml, for which it needs no engine; faketime sets a process's clock, hledger reads exports.
servers=(docker-compose redis-server rabbitmq-server prometheus faketime hledger)

ensure_servers() {
    if try_to_install "${servers[@]}"; then return; fi
    local missing
    missing="$(missing_servers "${servers[@]}" | paste -s -d ' ' -)"
    if docker info > /dev/null 2>&1; then
        echo "The tests run $missing in Docker." >&2
        export TEST_SERVICES=docker
        return
    fi
    echo "Missing for the tests: $missing. Install them (apt-get install $missing), or start Docker." >&2
    return 1
}

# Percent of the package's lines. Unit and integration tests alone reach 87.
coverage_min=85

environment dev
ensure_servers
if [[ $# -gt 0 ]]; then
    exec .venv/bin/python -m pytest "$@"
fi
status=0
scripts/lint.sh || status=1
# One process more than the two cores of the smallest machine: many tests wait for an outage to pass. Each process has
# servers of its own, so a test may stop them; a file stays together, because its tests share a database.
# Coverage is that of the tests' own processes, without those that they start; Python's monitoring makes it cheap.
COVERAGE_CORE=sysmon .venv/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=20 \
    --cov=payments_ledger --cov-report= --cov-fail-under="$coverage_min" || status=1
exit "$status"
