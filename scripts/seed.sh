#!/usr/bin/env bash
# Adds the demo tenants and users to the Compose database. For another database: payments-ledger seed.

source "$(dirname "${BASH_SOURCE[0]}")/compose.sh"

docker compose run --build --rm seed
