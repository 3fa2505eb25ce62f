#!/usr/bin/env bash
# Injects every fault there is, in random order, while clients pay; then says what was lost, doubled or broken. Exit
# status 1 if anything was. soak.sh --minutes 10 --seed 1: the seed repeats the order of the faults.

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

environment dev
exec .venv/bin/python -m tests.faults.soak "$@"
