#!/usr/bin/env bash
# Adds the demo tenants and users to the Compose database. For another database: payments-ledger seed.

source "$(dirname "${BASH_SOURCE[0]}")/compose.sh"
source scripts/secrets.sh

make_missing_secrets
docker compose run --build --rm seed
