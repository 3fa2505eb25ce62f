#!/usr/bin/env bash
# Drives one payment through a running engine and checks every answer: scripts/smoke.sh [BASE_URL]
#
# The exit status is 0 only if every check was made and held. Needs curl and python3, and the demo users.

set -euo pipefail

base_url="${1:-${BASE_URL:-http://localhost:8000}}"
tenant=tenant_demo
expected_checks=17
settle_seconds_max=10
checks=0
failures=0
answer="$(mktemp)"
headers="$(mktemp)"
trap 'rm -f "$answer" "$headers"' EXIT

# check NAME EXPECTED ACTUAL
check() {
    checks=$((checks + 1))
    if [[ "$2" == "$3" ]]; then
        printf 'ok    %s\n' "$1"
    else
        failures=$((failures + 1))
        printf 'FAIL  %s: expected %s, got %s\n' "$1" "$2" "$3"
    fi
}

# finish: the verdict; green only if each check was made and held.
finish() {
    if [[ $checks -ne $expected_checks ]]; then
        echo "Only $checks of $expected_checks checks were made; $((checks - failures)) held."
        exit 1
    fi
    echo "$((checks - failures)) of $checks checks held."
    exit "$((failures > 0))"
}

# call METHOD PATH [CURL OPTION…]: prints the status, keeps headers and body.
call() {
    local method="$1" path="$2"
    shift 2
    : > "$answer"
    : > "$headers"
    curl --silent --max-time 10 --request "$method" --dump-header "$headers" --output "$answer" \
        --write-out '%{http_code}' --header "X-Tenant-Id: $tenant" --header "Authorization: Bearer ${token:-}" \
        "$@" "$base_url$path" || true
}

# field EXPRESSION: a Python expression over the last answer's JSON, as `a`; nothing when there is none.
field() {
    python3 -c 'import json, sys; a = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$answer" "$1" 2> /dev/null || true
}

header() {
    tr -d '\r' < "$headers" | awk -F': ' -v name="$1" 'tolower($1) == tolower(name) { print $2 }'
}

key() {
    python3 -c 'import uuid; print(uuid.uuid4())'
}

json=(--header "Content-Type: application/json")

check "healthz answers" 200 "$(call GET /healthz)"
if [[ $failures -gt 0 ]]; then finish; fi
check "readyz answers" 200 "$(call GET /readyz)"
dependencies="sorted(name for name, state in a['dependencies'].items() if state != 'ok') or 'none'"
check "of the dependencies away" none "$(field "$dependencies")"

check "a request without a token is refused" 401 "$(call GET /v1/ledger/balances)"
check "a login succeeds" 200 "$(call POST /v1/auth/token "${json[@]}" \
    --data "{\"email\": \"ops@demo\", \"password\": \"ops123\", \"tenantId\": \"$tenant\"}")"
token="$(field 'a["access_token"]')"
# Without a login nothing else can hold.
if [[ -z "$token" ]]; then finish; fi

create_key="$(key)"
intent='{"amount": 9007199254740993.01, "currency": "BRL", "customer_ref": "SMOKE"}'
create() {
    call POST /v1/payment-intents "${json[@]}" --header "Idempotency-Key: $create_key" --data "$1"
}
check "an intent is created" 201 "$(create "$intent")"
id="$(field 'a["id"]')"
check "its amount is exact" 9007199254740993.01 "$(field 'a["amount"]')"
check "the same request again is answered" 201 "$(create "$intent")"
check "with the same intent" "$id" "$(field 'a["id"]')"
check "and marked as a replay" true "$(header Idempotent-Replayed)"
check "another request under its key is refused" 422 "$(create '{"amount": 1, "currency": "BRL", "customer_ref": "SMOKE"}')"

check "a confirm without a key is refused" 400 "$(call POST "/v1/payment-intents/$id/confirm")"
check "it is confirmed" 200 "$(call POST "/v1/payment-intents/$id/confirm" --header "Idempotency-Key: $(key)")"

status=none
deadline=$((SECONDS + settle_seconds_max))
while [[ -n "$id" && "$status" != SETTLED && $SECONDS -lt $deadline ]]; do
    call GET "/v1/payment-intents/$id" > /dev/null
    status="$(field 'a["status"]')"
done
check "it settles" SETTLED "$status"

check "the entries are listed" 200 "$(call GET /v1/ledger/entries)"
lines="[(l['side'], l['account'], l['amount']) for e in a if e['payment_intent_id'] == '$id' for l in e['lines']]"
check "its entry debits CASH and credits REVENUE" \
    "[('DEBIT', 'CASH', '9007199254740993.01'), ('CREDIT', 'REVENUE', '9007199254740993.01')]" "$(field "$lines")"

call GET /v1/ledger/balances > /dev/null
net="sum(__import__('decimal').Decimal(b['debits_total']) - __import__('decimal').Decimal(b['credits_total']) for b in a if b['currency'] == 'BRL')"
check "the books balance" 0.00 "$(field "$net")"

finish
