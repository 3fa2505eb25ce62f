#!/usr/bin/env bash
# Takes out one guard after the other in a copy of the repository, and prints which test fails without it. Exit status 1
# if a guard can go unnoticed. mutation.sh settles idempotency: only guards whose names hold one of these.

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

environment dev
exec .venv/bin/python -m tests.mutations "$@"
