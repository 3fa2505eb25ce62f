-- Who may give money back and write the ledger: administrators, and a role finance that every tenant has.

ALTER TABLE tenants NO FORCE ROW LEVEL SECURITY;
ALTER TABLE roles NO FORCE ROW LEVEL SECURITY;

-- Whoever may do everything so far goes on to. A role of the tenant's own that is called finance stays what it is.
UPDATE roles
SET permissions = (SELECT array_agg(DISTINCT permission ORDER BY permission)
                   FROM unnest(permissions || '{ledger:write,payments:refund}') AS permission)
WHERE 'admin' = ANY (permissions);
INSERT INTO roles (tenant_id, name, permissions)
SELECT tenant_id, 'finance', '{ledger:read,ledger:write,payments:read,payments:refund}' FROM tenants
ON CONFLICT DO NOTHING;

ALTER TABLE tenants FORCE ROW LEVEL SECURITY;
ALTER TABLE roles FORCE ROW LEVEL SECURITY;

-- An amount can be a condition of whatever moves one.
ALTER TABLE policies
    DROP CONSTRAINT only_writes_have_amounts,
    ADD CONSTRAINT only_what_moves_money_has_amounts CHECK (
        currency IS NULL
        OR cardinality(actions) > 0 AND actions <@ '{payments:write,payments:refund,ledger:write}');
