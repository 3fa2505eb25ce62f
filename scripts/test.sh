#!/usr/bin/env bash
# Runs every check and every test, after installing what they need. With arguments: only pytest, which gets them
# (scripts/test.sh tests/unit -k money).

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

# The servers of the tests besides PostgreSQL, which is in the Python environment, and what sets a process's clock.
# Their packages have the same names.
servers=(redis-server rabbitmq-server faketime)

# Where tests/services.py looks, too: Debian leaves /usr/sbin out of most users' PATH.
missing_servers() {
    local server
    for server in "${servers[@]}"; do
        PATH="/usr/lib/rabbitmq/bin:$PATH:/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin" \
            command -v "$server" > /dev/null || echo "$server"
    done
}

# install_servers SERVER…: from the distribution, for tests only, so none of them is left running.
install_servers() (
    # Debian's packages start their services unless this program forbids it.
    policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' > "$policy"
        chmod +x "$policy"
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq -o DPkg::Lock::Timeout=120 update || true # older lists may do
    apt-get -qq -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@"
)

ensure_servers() {
    local missing
    missing="$(missing_servers)"
    missing="${missing//$'\n'/ }"
    if [[ -z $missing ]]; then return; fi
    if [[ $EUID == 0 ]] && command -v apt-get > /dev/null; then
        echo "Installing $missing …" >&2
        # shellcheck disable=SC2086  # a list of names
        if install_servers $missing >&2 && [[ -z "$(missing_servers)" ]]; then return; fi
    fi
    if docker info > /dev/null 2>&1; then
        echo "The tests run $missing in Docker." >&2
        export TEST_SERVICES=docker
        return
    fi
    echo "Missing for the tests: $missing. Install them (apt-get install $missing), or start Docker." >&2
    return 1
}

environment dev
ensure_servers
if [[ $# -gt 0 ]]; then
    exec .venv/bin/python -m pytest "$@"
fi
status=0
scripts/lint.sh || status=1
.venv/bin/python -m pytest || status=1
exit "$status"
