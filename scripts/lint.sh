#!/usr/bin/env bash
# Checks style, types and the direction of dependencies: ruff, mypy, import-linter. Runs all, fails if one does.

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

environment dev
status=0
.venv/bin/ruff check . || status=1
.venv/bin/ruff format --check . || status=1
.venv/bin/mypy || status=1
.venv/bin/lint-imports || status=1
exit "$status"
