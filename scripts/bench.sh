#!/usr/bin/env bash
# Measures the engine on real services, beside its limits on this machine. Options: scripts/bench.sh --help.

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
source scripts/servers.sh

environment dev
servers=(redis-server rabbitmq-server wrk)
if ! try_to_install "${servers[@]}"; then
    missing="$(missing_servers "${servers[@]}" | paste -s -d ' ' -)"
    echo "Missing for the benchmark: $missing. Install them (apt-get install $missing)." >&2
    exit 1
fi
exec .venv/bin/python -m bench "$@"
