# Sourced by the other scripts: goes to the repository's folder and keeps the Python environment in .venv up to date.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." > /dev/null

# environment LOCK: makes .venv hold what LOCK pins (embedded or dev), and this project.
environment() {
    # One script at a time, where there is flock: two terminals may both be the first.
    (
        if command -v flock > /dev/null; then flock 9; fi
        if ! up_to_date "$1" && { [[ $1 == dev ]] || ! up_to_date dev; }; then
            install_environment "$1"
        fi
    ) 9< pyproject.toml
}

# What an installation depends on. A virtual environment cannot be moved, so its path belongs to it.
fingerprint() {
    echo "$1 $(cat "requirements-$1.lock" pyproject.toml | cksum) $PWD"
}

up_to_date() {
    [[ -x .venv/bin/python && "$(cat .venv/installed 2> /dev/null)" == "$(fingerprint "$1")" ]]
}

install_environment() {
    # Whatever is not known to be complete and in its own place is made anew.
    if [[ "$(cat .venv/installed 2> /dev/null)" != *" $PWD" ]] || ! .venv/bin/python -c '' 2> /dev/null; then
        local python
        python="$(find_python)"
        echo "Making .venv with $("$python" --version) …" >&2
        "$python" -m venv --clear .venv
    fi
    rm -f .venv/installed
    echo "Installing requirements-$1.lock into .venv …" >&2
    # The lock is complete, the build backend included: nothing is searched for, and nothing comes without its hash.
    local install=(.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps)
    "${install[@]}" --require-hashes -r "requirements-$1.lock"
    "${install[@]}" --no-build-isolation -e .
    fingerprint "$1" > .venv/installed
}

find_python() {
    local candidate candidates=(python3.12 python3.13 python3.14 python3)
    if [[ -n "${PYTHON:-}" ]]; then candidates=("$PYTHON"); fi
    for candidate in "${candidates[@]}"; do
        # A version manager may have the name of a Python that it then does not find.
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2> /dev/null; then
            if "$candidate" -c 'import ensurepip, venv' 2> /dev/null; then
                echo "$candidate"
                return
            fi
            echo "$candidate cannot make virtual environments (Debian, Ubuntu: apt-get install python3-venv)." >&2
        fi
    done
    echo "Python 3.12 or newer is needed. Install it, or name it: PYTHON=/path/to/python3.12 $0" >&2
    return 1
}
