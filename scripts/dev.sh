#!/usr/bin/env bash
# Runs the whole engine on an embedded PostgreSQL and walks one payment through it. Arguments: see dev.sh --help.

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

environment embedded
exec .venv/bin/payments-ledger dev "$@"
