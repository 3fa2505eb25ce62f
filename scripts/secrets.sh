# Sourced by scripts that start containers: makes the secrets that compose.yaml demands and that nobody has set.

secrets=(JWT_SECRET POSTGRES_PASSWORD POSTGRES_SUPERUSER_PASSWORD REDIS_PASSWORD RABBITMQ_PASSWORD GRAFANA_PASSWORD)

# make_missing_secrets: adds random ones to .env, which only its owner may then read. What is set there stays.
make_missing_secrets() {
    local name added="" missing=()
    for name in "${secrets[@]}"; do
        if [[ -n "${!name:-}" ]] || grep -qsE "^[[:space:]]*(export[[:space:]]+)?$name[[:space:]]*=[[:space:]]*[^[:space:]]" .env; then
            continue
        fi
        missing+=("$name")
        added+="$name=$(random_secret)"$'\n'
    done
    if [[ ${#missing[@]} == 0 ]]; then return; fi
    (umask 077 && touch .env)
    chmod 600 .env
    # The last line of a file made by hand may lack its end.
    if [[ -n "$(tail -c 1 .env)" ]]; then added=$'\n'"$added"; fi
    printf '%s' "$added" >> .env
    echo "Made in .env: ${missing[*]}." >&2
}

# 256 bits in hexadecimal digits, which need no quoting in a URL.
random_secret() {
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}
