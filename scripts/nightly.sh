#!/usr/bin/env bash
# The long forms of what the other scripts check briefly. Runs all, fails if one does. SOAK_MINUTES: 30 by default.

set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." > /dev/null || exit 1

failed=()
step() {
    printf '\n== %s\n' "$*"
    "$@" || failed+=("$*")
}

# First, because it installs the servers that the others need.
step scripts/test.sh tests/models tests/unit --hypothesis-profile=long
step scripts/soak.sh --minutes "${SOAK_MINUTES:-30}"
step scripts/mutation.sh
step scripts/bench.sh --quick --check

if [[ ${#failed[@]} -gt 0 ]]; then
    printf '\nFailed:\n'
    printf '  %s\n' "${failed[@]}"
    exit 1
fi
printf '\nAll passed.\n'
