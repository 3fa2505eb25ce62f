#!/usr/bin/env bash
# Writes the OpenAPI document of the routes as they are to docs/openapi.json. A test fails when the two differ.

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

environment dev
.venv/bin/payments-ledger openapi > docs/openapi.json
echo "docs/openapi.json is up to date."
