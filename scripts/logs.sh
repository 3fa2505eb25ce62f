#!/usr/bin/env bash
# Follows the logs of the Compose services; with arguments only those (scripts/logs.sh api worker).

source "$(dirname "${BASH_SOURCE[0]}")/compose.sh"

docker compose logs --follow --tail 100 "$@"
