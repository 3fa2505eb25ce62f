-- The operator's commands read as the auditor, who may see which tenants there are, too.
CREATE POLICY auditor_reads_all ON tenants FOR SELECT TO :auditor_role USING (true);
GRANT SELECT ON tenants TO :auditor_role;

-- Buried events are few and looked for by hand; without this each look would read the whole outbox.
CREATE INDEX outbox_events_buried ON outbox_events (buried_at) WHERE buried_at IS NOT NULL;
