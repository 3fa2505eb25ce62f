#!/usr/bin/env bash
# Writes the locks anew from pyproject.toml, keeping the versions they pin as far as it allows.
# Arguments go to uv: --upgrade for new versions of everything, --upgrade-package NAME of one package.

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

uv="$(command -v uv || echo "$PWD/.venv/bin/uv")"
if [[ ! -x "$uv" ]]; then
    echo "uv is needed. scripts/lint.sh installs one into .venv." >&2
    exit 1
fi

# compile LOCK SOURCE… OPTION…: pins what the sources ask for, on every platform.
compile() {
    "$uv" pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.12 \
        --output-file "$@"
}

# The build backend, and what it needs for an editable installation (its get_requires_for_build_editable).
build_backend="$(sed -n 's/^requires = \["\(.*\)"\]$/\1/p' pyproject.toml)
editables~=0.3"

# The lock for development pins; the others are parts of it, so that one .venv serves every script.
compile requirements-dev.lock pyproject.toml --extra dev - "$@" <<< "$build_backend"
compile requirements-embedded.lock pyproject.toml --extra embedded --constraints requirements-dev.lock - <<< "$build_backend"
compile requirements.lock pyproject.toml --extra tracing --constraints requirements-dev.lock
# For an image and other installations that are not editable.
compile requirements-build.lock --constraints requirements-dev.lock - <<< "$build_backend"
