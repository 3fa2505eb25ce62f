#!/usr/bin/env bash
# Builds the documentation site into .docs/site, without a network, and checks its links. Exit status 1 if one is broken.
#
#   docs.sh          build and check
#   docs.sh write    write the pages of docs/reference/ that are made from the code
#   docs.sh serve    build, then show the site at http://localhost:8100 (another port: docs.sh serve 8200)

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

environment dev
case "${1:-build}" in
    build)
        exec .venv/bin/python -m scripts.documentation
        ;;
    write)
        for page in errors settings; do
            .venv/bin/python -m scripts.reference "$page" > "docs/reference/$page.md.new"
            mv "docs/reference/$page.md.new" "docs/reference/$page.md"
        done
        echo "docs/reference/ is up to date."
        ;;
    serve)
        .venv/bin/python -m scripts.documentation
        exec .venv/bin/python -m http.server --bind 127.0.0.1 --directory .docs/site "${2:-8100}"
        ;;
    *)
        sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
        exit 2
        ;;
esac
