#!/usr/bin/env bash
# Brings the schema of the Compose database up to date. For another database: payments-ledger migrate.

source "$(dirname "${BASH_SOURCE[0]}")/compose.sh"

docker compose run --build --rm migrate
