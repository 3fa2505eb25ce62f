#!/usr/bin/env bash
# Brings the schema of the Compose database up to date. For another database: payments-ledger migrate.

source "$(dirname "${BASH_SOURCE[0]}")/compose.sh"
source scripts/secrets.sh

make_missing_secrets
docker compose run --build --rm migrate
