-- The auditor finds what was written lately tenant by tenant, since every index begins with the tenant.

CREATE POLICY auditor_knows_all ON tenants FOR SELECT TO :auditor_role USING (true);
GRANT SELECT (tenant_id) ON tenants TO :auditor_role;
