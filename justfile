# The daily commands. `just` lists them; `just set-up` comes first. Without just: each recipe is one or two scripts.
# just itself is in .venv/bin after set-up (it is a development dependency), or comes from your package manager.

_list:
    @just --list --unsorted

# Make .venv from the lock and install the git hooks
set-up:
    bash -c 'source scripts/environment.sh && environment dev'
    .venv/bin/prek install

# Run the engine on an embedded PostgreSQL, with a demonstration payment (--once, --port N, --data FOLDER)
dev *OPTIONS:
    scripts/dev.sh {{OPTIONS}}

# The fast lane: style, then unit and integration tests
fast: lint
    scripts/test.sh -n 3 --dist loadfile --no-loadscope-reorder --durations=20 tests/unit tests/integration

# Everything, or only what is named: just test tests/unit -k money
test *ARGUMENTS:
    scripts/test.sh {{ARGUMENTS}}

# Style, types, import rules
lint:
    scripts/lint.sh

# The rules of the house: complexity, docstrings, dead code, long files, names, missing tests (all, or those named)
house *GUARDS:
    .venv/bin/python -m scripts.check_house {{GUARDS}}

# Let ruff mend what it can
format:
    .venv/bin/ruff check --fix .
    .venv/bin/ruff format .

# Build the documentation site and check its links
docs:
    scripts/docs.sh

# Show the documentation site at http://localhost:8100
docs-serve:
    scripts/docs.sh serve

# Write what is generated from the code: OpenAPI, reference pages
generate:
    scripts/api-export.sh
    scripts/docs.sh write

# Measure speed (--quick, --check, --scenario NAME)
bench *OPTIONS:
    scripts/bench.sh {{OPTIONS}}

# Inject every fault while clients pay (--minutes N, --seed N)
soak *OPTIONS:
    scripts/soak.sh {{OPTIONS}}

# What runs every night: long models, a long soak, mutations, the benchmark against its baseline
nightly:
    scripts/nightly.sh

# Resolve the locks again (--upgrade for new versions)
lock *OPTIONS:
    scripts/lock.sh {{OPTIONS}}

# Drive one payment through a running engine
smoke URL="http://localhost:8000":
    scripts/smoke.sh {{URL}}

# Start everything in Docker Compose
up:
    scripts/up.sh

# Stop it (--volumes deletes the data)
down *OPTIONS:
    scripts/down.sh {{OPTIONS}}
