#!/usr/bin/env bash
# Drives one payment of 0.01 through a running engine and checks every response: scripts/smoke.sh [BASE_URL]
#
# The exit status is 0 only if every check was made and held; each line tells what was seen. Needs curl and python3, and
# the tenant and user that `payments-ledger seed` adds for it. Where there is no seed, name others: SMOKE_TENANT,
# SMOKE_EMAIL and SMOKE_PASSWORD, of a user with the role ops. SMOKE_SETTLE_SECONDS (10): how long a payment may take.

set -euo pipefail

base_url="${1:-${BASE_URL:-http://localhost:8000}}"
tenant="${SMOKE_TENANT:-tenant_smoke}"
email="${SMOKE_EMAIL:-smoke@demo}"
password="${SMOKE_PASSWORD:-smoke123}"
expected_checks=18
settle_seconds_max="${SMOKE_SETTLE_SECONDS:-10}"
checks=0
failures=0
answer="$(mktemp)"
headers="$(mktemp)"
trap 'rm -f "$answer" "$headers"' EXIT

# check NAME EXPECTED ACTUAL [ABOUT]: the line shows what was seen, and what it is about. Nothing is never as expected.
check() {
    checks=$((checks + 1))
    if [[ -n "$3" && "$2" == "$3" ]]; then
        printf 'ok    %s: %s%s\n' "$1" "$3" "${4:+ ($4)}"
    else
        failures=$((failures + 1))
        printf 'FAIL  %s: expected %s, got %s%s\n' "$1" "${2:-something}" "${3:-nothing}" "${4:+ ($4)}"
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

# code: the last answer's, if it is a problem.
code() {
    field 'a["code"]'
}

header() {
    tr -d '\r' < "$headers" | awk -F': ' -v name="$1" 'tolower($1) == tolower(name) { print $2 }'
}

key() {
    python3 -c 'import uuid; print(uuid.uuid4())'
}

json=(--header "Content-Type: application/json")

# create KEY AMOUNT
create() {
    call POST /v1/payment-intents "${json[@]}" --header "Idempotency-Key: $1" \
        --data "{\"amount\": $2, \"currency\": \"BRL\", \"customer_ref\": \"SMOKE\"}"
}

status="$(call GET /healthz)"
check "healthz answers" 200 "$status" "$base_url"
if [[ $failures -gt 0 ]]; then finish; fi
status="$(call GET /readyz)"
check "readyz answers" 200 "$status" "$(field 'a["status"]')"
dependencies="sorted(name for name, state in a['dependencies'].items() if state != 'ok') or 'none'"
check "unavailable dependencies" none "$(field "$dependencies")"

status="$(call GET /v1/ledger/balances)"
check "a request without a token is refused" 401 "$status" "$(code)"
status="$(call POST /v1/auth/token "${json[@]}" \
    --data "{\"email\": \"$email\", \"password\": \"$password\", \"tenantId\": \"$tenant\"}")"
check "a login succeeds" 200 "$status" "$email of $tenant"
token="$(field 'a["access_token"]')"
# Without a login nothing else can hold.
if [[ -z "$token" ]]; then finish; fi

# More digits than a float has. It is never confirmed, so the books do not fill up with it.
status="$(create "$(key)" 9007199254740993.01)"
check "an intent over a large amount is created" 201 "$status" "$(code)"
large="$(field 'a["id"]')"
call GET "/v1/payment-intents/$large" > /dev/null
check "its amount is exact" 9007199254740993.01 "$(field 'a["amount"]')" "${large:+payment $large}"

create_key="$(key)"
status="$(create "$create_key" 0.01)"
id="$(field 'a["id"]')"
check "an intent is created" 201 "$status" "${id:+payment $id}$(code)"
# Without an intent nothing else can hold.
if [[ -z "$id" ]]; then finish; fi
status="$(create "$create_key" 0.01)"
check "the same request again gets the same response" "201 $id" "$status $(field 'a["id"]')"
check "and it is marked as a replay" true "$(header Idempotent-Replayed)"
status="$(create "$create_key" 0.02)"
check "another request under its key is refused" 422 "$status" "$(code)"

status="$(call POST "/v1/payment-intents/$id/confirm")"
check "a confirm without a key is refused" 400 "$status" "$(code)"
status="$(call POST "/v1/payment-intents/$id/confirm" --header "Idempotency-Key: $(key)")"
check "it is confirmed" "200 AUTHORIZED" "$status $(field 'a["status"]')"

status=none
deadline=$((SECONDS + settle_seconds_max))
while [[ "$status" != SETTLED && $SECONDS -lt $deadline ]]; do
    call GET "/v1/payment-intents/$id" > /dev/null
    status="$(field 'a["status"]')"
    # Well within a user's limit of reads.
    sleep 0.2
done
check "it settles" SETTLED "$status"

status="$(call GET /v1/ledger/entries)"
check "the entries are listed" 200 "$status" "$(field 'len(a)') on the first page"
lines="[(l['side'], l['account'], l['amount']) for e in a if e['payment_intent_id'] == '$id' for l in e['lines']]"
check "its entry debits CASH and credits REVENUE" \
    "[('DEBIT', 'CASH', '0.01'), ('CREDIT', 'REVENUE', '0.01')]" "$(field "$lines")"

status="$(call GET /v1/ledger/balances)"
check "the balances are listed" 200 "$status" "$(field "', '.join(b['account'] + ' ' + b['balance'] for b in a)")"
net="sum(__import__('decimal').Decimal(b['debits_total']) - __import__('decimal').Decimal(b['credits_total']) for b in a if b['currency'] == 'BRL')"
check "debits less credits" 0.00 "$(field "$net")"

finish
