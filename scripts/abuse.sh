#!/usr/bin/env bash
# Measures what one stranger, and one user at the default limits, can cost a process at most: processor time, memory, and
# how long others wait. Exit status 1 beyond the limits. abuse.sh --seconds 5 --only trailer

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

environment dev
exec .venv/bin/python -m tests.abuse "$@"
