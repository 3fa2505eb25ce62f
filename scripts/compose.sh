# Sourced by the scripts that need Docker: goes to the repository's folder and makes sure that Docker answers.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." > /dev/null

if ! command -v docker > /dev/null || ! docker compose version > /dev/null 2>&1; then
    echo "This needs Docker with Compose. Without it, ./scripts/dev.sh runs the engine on an embedded PostgreSQL." >&2
    exit 1
fi
if ! docker info > /dev/null 2>&1; then
    echo "Docker is installed but does not answer: start it. Or run ./scripts/dev.sh, which needs no Docker." >&2
    exit 1
fi
