
-- Follows create_and_confirm.sql in the same script: the third transaction of a payment.
BEGIN;
SELECT set_config('role', current_database() || '_runtime', true), set_config('payments_ledger.tenant_ids', :tenant_id, true);
SELECT * FROM payment_intents WHERE tenant_id = :tenant_id AND id = :payment_id::text::uuid FOR NO KEY UPDATE;
UPDATE payment_intents SET status = 'SETTLED', version = 3, updated_at = now() WHERE tenant_id = :tenant_id AND id = :payment_id::text::uuid;
INSERT INTO ledger_entries (tenant_id, posted_at, id, kind, source_id, correlation_id)
VALUES (:tenant_id, now(), :payment_id::text::uuid, 'settlement', :payment_id::text::uuid, 'f0fd655f-a48a-4186-ad6d-3af1fb44c51b');
INSERT INTO ledger_postings (tenant_id, posted_at, entry_id, position, debit_account, credit_account, currency, amount)
VALUES (:tenant_id, now(), :payment_id::text::uuid, 1, 'CASH', 'REVENUE', 'BRL', 10000);
INSERT INTO outbox_events (tenant_id, id, event_type, aggregate_id, sequence, payload, headers)
VALUES (:tenant_id, lpad(to_hex(nextval('bench_numbers')), 32, '0')::uuid, 'payment.settled', :payment_id::text::uuid, 3,
        '{"payment_intent_id": "01a20568-8a1a-72a7-9083-66e400122dd8","tenant_id": "tenant-01","status": "SETTLED","amount": "100.00","currency": "BRL","customer_ref": "CUST-001","order_id": null,"correlation_id": "f0fd655f-a48a-4186-ad6d-3af1fb44c51b","occurred_at": "2026-01-01T00-00-00.000000Z"}',
        '{"X-Correlation-Id": "f0fd655f-a48a-4186-ad6d-3af1fb44c51b", "X-Tenant-Id": "tenant-01"}');
INSERT INTO audit_log (tenant_id, id, principal, address, action, target, correlation_id, detail)
VALUES (:tenant_id, lpad(to_hex(nextval('bench_numbers')), 32, '0')::uuid, 'worker', NULL, 'payment.settle', :payment_id, 'f0fd655f-a48a-4186-ad6d-3af1fb44c51b',
        '{"before": {"status": "AUTHORIZED"}, "after": {"status": "SETTLED"}, "amount": "100.00 BRL"}');
-- Last of all, so that the rows that every payment of a tenant shares are locked for the shortest time.
INSERT INTO account_totals AS kept (tenant_id, account, currency, day, debits, credits)
VALUES (:tenant_id, 'CASH', 'BRL', (now() AT TIME ZONE 'UTC')::date, 10000, 0), (:tenant_id, 'REVENUE', 'BRL', (now() AT TIME ZONE 'UTC')::date, 0, 10000)
ON CONFLICT (tenant_id, account, currency, day) DO UPDATE SET debits = kept.debits + EXCLUDED.debits, credits = kept.credits + EXCLUDED.credits;
COMMIT;
