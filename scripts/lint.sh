#!/usr/bin/env bash
# Checks style, types, the direction of dependencies and the rules of the house: ruff, mypy, import-linter,
# scripts/check_house.py. Runs all, fails if one does.

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

environment dev
status=0
.venv/bin/ruff check . || status=1
.venv/bin/ruff format --check . || status=1
.venv/bin/mypy || status=1
.venv/bin/lint-imports || status=1
.venv/bin/python -m scripts.check_house complexity dead-code docstrings long-files shadowing-names slow-files || status=1
exit "$status"
