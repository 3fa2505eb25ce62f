#!/usr/bin/env bash
# The long forms of what the other scripts check briefly. Runs all, fails if one does. SOAK_MINUTES: 30 by default.

set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." > /dev/null || exit 1

failed=()
step() {
    printf '\n== %s\n' "$*"
    "$@" || failed+=("$*")
}

# First, because it installs the servers that the others need. Numbers of payments, orders and seconds (tests/profiles.py),
# and how long sessions of PostgreSQL are ended one after the other.
export TEST_NIGHTLY=1 FAULTS_TERMINATING_SECONDS=60
step scripts/test.sh -n 3 --dist loadfile --no-loadscope-reorder tests/acceptance tests/faults
step scripts/test.sh --hypothesis-profile=nightly tests/unit/web/test_http_edge_generated.py tests/integration/rabbitmq
step scripts/test.sh --hypothesis-profile=long tests/models
step scripts/soak.sh --minutes "${SOAK_MINUTES:-30}"
unset TEST_NIGHTLY FAULTS_TERMINATING_SECONDS
step scripts/mutation.sh
step scripts/bench.sh --quick --check
step scripts/abuse.sh

if [[ ${#failed[@]} -gt 0 ]]; then
    printf '\nFailed:\n'
    printf '  %s\n' "${failed[@]}"
    exit 1
fi
printf '\nAll passed.\n'
