-- Two transactions, as a service would write them that commits once a request: the rows and the rights are the
-- engine's, a statement each. The sequence makes ids that grow with time, as UUIDv7 does.
\set tenant random(1, 20)
SELECT format('tenant-%s', lpad(:tenant::text, 2, '0')) AS tenant_id, lpad(to_hex(nextval('bench_numbers')), 32, '0') AS payment_id \gset

BEGIN;
SELECT set_config('role', current_database() || '_runtime', true), set_config('payments_ledger.tenant_ids', :tenant_id, true);
SELECT fingerprint, status, location, body FROM idempotency_keys
WHERE tenant_id = :tenant_id AND principal = 'pgbench' AND route = 'POST /v1/payment-intents' AND key = :payment_id AND expires_at > now();
INSERT INTO payment_intents (tenant_id, id, amount, currency, status, version, customer_ref, order_id, created_at, updated_at)
VALUES (:tenant_id, :payment_id::text::uuid, 10000, 'BRL', 'CREATED', 1, 'CUST-001', NULL, now(), now());
INSERT INTO outbox_events (tenant_id, id, event_type, aggregate_id, sequence, payload, headers)
VALUES (:tenant_id, lpad(to_hex(nextval('bench_numbers')), 32, '0')::uuid, 'payment.intent.created', :payment_id::text::uuid, 1,
        '{"payment_intent_id": "01a20568-8a1a-72a7-9083-66e400122dd8","tenant_id": "tenant-01","status": "CREATED","amount": "100.00","currency": "BRL","customer_ref": "CUST-001","order_id": null,"correlation_id": "f0fd655f-a48a-4186-ad6d-3af1fb44c51b","occurred_at": "2026-01-01T00-00-00.000000Z"}',
        '{"X-Correlation-Id": "f0fd655f-a48a-4186-ad6d-3af1fb44c51b", "X-Tenant-Id": "tenant-01"}');
INSERT INTO audit_log (tenant_id, id, principal, address, action, target, correlation_id, detail)
VALUES (:tenant_id, lpad(to_hex(nextval('bench_numbers')), 32, '0')::uuid, 'pgbench', '127.0.0.1', 'payment.create', :payment_id, 'f0fd655f-a48a-4186-ad6d-3af1fb44c51b',
        '{"before": null, "after": {"status": "CREATED"}, "amount": "100.00 BRL"}');
INSERT INTO idempotency_keys (tenant_id, principal, route, key, fingerprint, status, location, body, expires_at)
VALUES (:tenant_id, 'pgbench', 'POST /v1/payment-intents', :payment_id, sha256(:payment_id::text::bytea), 201, '/v1/payment-intents/01a20568-8a1a-72a7-9083-66e400122dd8',
        '{"id": "01a20568-8a1a-72a7-9083-66e400122dd8","amount": "100.00","currency": "BRL","status": "CREATED","customer_ref": "CUST-001","created_at": "2026-01-01T00-00-00.000000Z","updated_at": "2026-01-01T00-00-00.000000Z"}'::bytea,
        now() + interval '1 day')
ON CONFLICT DO NOTHING;
COMMIT;

BEGIN;
SELECT set_config('role', current_database() || '_runtime', true), set_config('payments_ledger.tenant_ids', :tenant_id, true);
SELECT fingerprint, status, location, body FROM idempotency_keys
WHERE tenant_id = :tenant_id AND principal = 'pgbench' AND route = '/v1/payment-intents/confirm' AND key = :payment_id AND expires_at > now();
SELECT * FROM payment_intents WHERE tenant_id = :tenant_id AND id = :payment_id::text::uuid FOR NO KEY UPDATE;
UPDATE payment_intents SET status = 'AUTHORIZED', version = 2, updated_at = now() WHERE tenant_id = :tenant_id AND id = :payment_id::text::uuid;
INSERT INTO outbox_events (tenant_id, id, event_type, aggregate_id, sequence, payload, headers)
VALUES (:tenant_id, lpad(to_hex(nextval('bench_numbers')), 32, '0')::uuid, 'payment.authorized', :payment_id::text::uuid, 2,
        '{"payment_intent_id": "01a20568-8a1a-72a7-9083-66e400122dd8","tenant_id": "tenant-01","status": "AUTHORIZED","amount": "100.00","currency": "BRL","customer_ref": "CUST-001","order_id": null,"correlation_id": "f0fd655f-a48a-4186-ad6d-3af1fb44c51b","occurred_at": "2026-01-01T00-00-00.000000Z"}',
        '{"X-Correlation-Id": "f0fd655f-a48a-4186-ad6d-3af1fb44c51b", "X-Tenant-Id": "tenant-01"}');
INSERT INTO audit_log (tenant_id, id, principal, address, action, target, correlation_id, detail)
VALUES (:tenant_id, lpad(to_hex(nextval('bench_numbers')), 32, '0')::uuid, 'pgbench', '127.0.0.1', 'payment.authorize', :payment_id, 'f0fd655f-a48a-4186-ad6d-3af1fb44c51b',
        '{"before": {"status": "CREATED"}, "after": {"status": "AUTHORIZED"}, "amount": "100.00 BRL"}');
INSERT INTO idempotency_keys (tenant_id, principal, route, key, fingerprint, status, location, body, expires_at)
VALUES (:tenant_id, 'pgbench', '/v1/payment-intents/confirm', :payment_id, sha256(:payment_id::text::bytea), 200, NULL,
        '{"id": "01a20568-8a1a-72a7-9083-66e400122dd8","amount": "100.00","currency": "BRL","status": "AUTHORIZED","customer_ref": "CUST-001","created_at": "2026-01-01T00-00-00.000000Z","updated_at": "2026-01-01T00-00-00.000000Z"}'::bytea,
        now() + interval '1 day')
ON CONFLICT DO NOTHING;
COMMIT;
