-- The operator's commands read as the auditor, who may see which tenants there are, too.
CREATE POLICY auditor_reads_all ON tenants FOR SELECT TO :auditor_role USING (true);
GRANT SELECT ON tenants TO :auditor_role;
