-- What wrk sends: payments that are created and then confirmed, transfers, or one request again and again.
--
-- Read from the environment:
--   BENCH_MODE     pay | replay | read | bulk | refund | transfer
--   BENCH_CALLERS  a file with a line for each tenant: its id, a tab, a bearer token
--   BENCH_NONCE    begins every idempotency key of this run
--   BENCH_PATH     read: the path and query; bulk: the path; transfer: the source accounts' beginning, how many
--   BENCH_BODY     bulk: a file with the body; refund: a file with the id of a payment in each line
--
-- The last line of the output is one JSON object. Whatever is not the expected answer is counted in it.

local mode = os.getenv("BENCH_MODE")
local nonce = os.getenv("BENCH_NONCE")
local path = os.getenv("BENCH_PATH")
local payments_path = "/v1/payment-intents"
local create_body = '{"amount": 100.00, "currency": "BRL", "customer_ref": "CUST-001"}'

local callers = {}
for line in io.lines(os.getenv("BENCH_CALLERS")) do
    local tenant, token = line:match("^([^\t]+)\t(.+)$")
    callers[#callers + 1] = "Host: bench\r\nAuthorization: Bearer " .. token .. "\r\nX-Tenant-Id: " .. tenant .. "\r\n"
end

-- The main state collects from the threads' states, which see only globals.
local threads = {}
function setup(thread)
    threads[#threads + 1] = thread
    thread:set("thread_number", #threads)
end

created, confirmed, other, unexpected, example = 0, 0, 0, 0, ""

-- Created payments that no request has confirmed yet: each a caller's headers and an id.
local waiting_head, waiting_tail, waiting = 1, 0, {}
local number = 0

local function post(path, caller, key, body)
    return "POST " .. path .. " HTTP/1.1\r\n" .. caller .. "Idempotency-Key: " .. key .. "\r\n"
        .. "Content-Type: application/json\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
end

local function next_key()
    number = number + 1
    return nonce .. "-" .. thread_number .. "-" .. number
end

local function pay()
    if waiting_head <= waiting_tail then
        local payment = waiting[waiting_head]
        waiting[waiting_head] = nil
        waiting_head = waiting_head + 1
        return post(payments_path .. "/" .. payment.id .. "/confirm", callers[payment.caller], next_key(), "")
    end
    local key = next_key()
    local caller = number % #callers + 1
    -- The answer repeats customer_ref, and so tells whose payment it is.
    local body = '{"amount": 100.00, "currency": "BRL", "customer_ref": "CUST-' .. caller .. '"}'
    return post(payments_path, callers[caller], key, body)
end

local function pay_answered(status, body)
    if status == 201 then
        created = created + 1
        local id = body:match('"id":"([^"]+)"')
        local caller = tonumber(body:match('"customer_ref":"CUST%-(%d+)"'))
        waiting_tail = waiting_tail + 1
        waiting[waiting_tail] = { id = id, caller = caller }
        return id ~= nil and caller ~= nil
    end
    confirmed = confirmed + 1
    return status == 200 and body:find('"AUTHORIZED"', 1, true) ~= nil
end

-- From each source in turn to the target of the same number.
local source, accounts = "", 0
local function transfer()
    local key = next_key()
    local place = number % accounts + 1
    local body = '{"postings": [{"debit": "' .. source .. place .. '", "credit": "TARGET.A' .. place
        .. '", "amount": "0.01", "currency": "BRL"}]}'
    return post("/v1/ledger/transactions", callers[1], key, body)
end

local fixed
local settled = {}
function init(_)
    if mode == "replay" then
        fixed = post(payments_path, callers[1], nonce, create_body)
    elseif mode == "read" then
        fixed = "GET " .. path .. " HTTP/1.1\r\n" .. callers[1] .. "\r\n"
    elseif mode == "transfer" then
        source, accounts = path:match("^(%S+) (%d+)$")
        accounts = tonumber(accounts)
    elseif mode == "bulk" then
        local file = assert(io.open(os.getenv("BENCH_BODY")))
        fixed = file:read("*a")
        file:close()
    elseif mode == "refund" then
        for id in io.lines(os.getenv("BENCH_BODY")) do settled[#settled + 1] = id end
    end
end

function request()
    if mode == "pay" then return pay() end
    if mode == "transfer" then return transfer() end
    if mode == "bulk" then
        local key = next_key()
        return post(path, callers[number % #callers + 1], key, fixed)
    end
    if mode == "refund" then
        local key = next_key()
        local path = payments_path .. "/" .. settled[number % #settled + 1] .. "/refunds"
        return post(path, callers[1], key, '{"amount": "0.01"}')
    end
    return fixed
end

function response(status, headers, body)
    local expected
    if mode == "pay" then
        expected = pay_answered(status, body)
    else
        other = other + 1
        expected = status >= 200 and status < 300
        if mode == "replay" then
            expected = expected and (headers["idempotent-replayed"] or headers["Idempotent-Replayed"]) == "true"
        end
    end
    if not expected then
        unexpected = unexpected + 1
        if example == "" then example = status .. " " .. body:sub(1, 300) end
    end
end

function done(summary, latency, _)
    local sum = { created = 0, confirmed = 0, other = 0, unexpected = 0 }
    local text = ""
    for _, thread in ipairs(threads) do
        for name in pairs(sum) do sum[name] = sum[name] + thread:get(name) end
        if text == "" then text = thread:get("example") end
    end
    local errors = summary.errors
    local escaped = text:gsub('[%c"\\]', function(c) return string.format("\\u%04x", c:byte()) end)
    io.write(string.format(
        '{"seconds": %f, "created": %d, "confirmed": %d, "other": %d, "unexpected": %d, "example": "%s", '
            .. '"connect_errors": %d, "read_errors": %d, "write_errors": %d, "timeouts": %d, '
            .. '"p50_ms": %f, "p90_ms": %f, "p99_ms": %f, "max_ms": %f}\n',
        summary.duration / 1e6, sum.created, sum.confirmed, sum.other, sum.unexpected, escaped,
        errors.connect, errors.read, errors.write, errors.timeout,
        latency:percentile(50) / 1e3, latency:percentile(90) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
