#!/usr/bin/env bash
# Stops everything that scripts/up.sh started. The data stay; `scripts/down.sh --volumes` deletes them.

source "$(dirname "${BASH_SOURCE[0]}")/compose.sh"

docker compose down "$@"
