-- The auditor: reads the books of every tenant, and writes nothing. `payments-ledger verify` works as this role.

CREATE POLICY auditor_reads_all ON payment_intents FOR SELECT TO :auditor_role USING (true);
CREATE POLICY auditor_reads_all ON ledger_entries FOR SELECT TO :auditor_role USING (true);
CREATE POLICY auditor_reads_all ON ledger_postings FOR SELECT TO :auditor_role USING (true);
CREATE POLICY auditor_reads_all ON account_totals FOR SELECT TO :auditor_role USING (true);
CREATE POLICY auditor_reads_all ON outbox_events FOR SELECT TO :auditor_role USING (true);
CREATE POLICY auditor_reads_all ON idempotency_keys FOR SELECT TO :auditor_role USING (true);
CREATE POLICY auditor_reads_all ON audit_log FOR SELECT TO :auditor_role USING (true);

GRANT USAGE ON SCHEMA public TO :auditor_role;
GRANT SELECT ON payment_intents, ledger_entries, ledger_postings, account_totals,
    outbox_events, idempotency_keys, audit_log TO :auditor_role;
