-- Policies over attributes of caller, tenant and request; suspended tenants; what an administrator may change.

-- An empty array and a NULL are no condition. Amounts are whole minor units of the currency, both bounds inclusive.
CREATE TABLE policies (
    tenant_id      text   NOT NULL REFERENCES tenants,
    name           text   NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9_-]{0,63}$'),
    effect         text   NOT NULL CHECK (effect IN ('allow', 'deny')),
    actions        text[] NOT NULL DEFAULT '{}',
    roles          text[] NOT NULL DEFAULT '{}',
    subjects       text[] NOT NULL DEFAULT '{}',
    plans          text[] NOT NULL DEFAULT '{}',
    regions        text[] NOT NULL DEFAULT '{}',
    currency       text   CHECK (currency ~ '^[A-Z]{3}$'),
    amount_minimum bigint CHECK (amount_minimum >= 0),
    amount_maximum bigint CHECK (amount_maximum >= amount_minimum OR amount_minimum IS NULL AND amount_maximum >= 0),
    hours_start    time,
    hours_end      time   CHECK (hours_end <> hours_start),
    hours_zone     text,
    PRIMARY KEY (tenant_id, name),
    CONSTRAINT amounts_have_a_currency CHECK ((currency IS NULL) = (amount_minimum IS NULL AND amount_maximum IS NULL)),
    CONSTRAINT only_writes_have_amounts CHECK (currency IS NULL OR actions = '{payments:write}'),
    CONSTRAINT hours_are_complete CHECK (num_nulls(hours_start, hours_end, hours_zone) IN (0, 3))
);

-- The tenants that exist go on as before: their roles permit what they permitted. The owner is bound by row-level
-- security too, except while it is not forced; this transaction alone sees that.
ALTER TABLE tenants NO FORCE ROW LEVEL SECURITY;
-- Refusals that belong to no tenant are put down to this one, so it exists whether or not the demo was added.
INSERT INTO tenants (tenant_id, name, plan, region) VALUES ('*', 'Global administration', 'pro', 'region-a')
ON CONFLICT DO NOTHING;
INSERT INTO policies (tenant_id, name, effect) SELECT tenant_id, 'what-roles-permit', 'allow' FROM tenants;
ALTER TABLE tenants FORCE ROW LEVEL SECURITY;

ALTER TABLE policies ENABLE ROW LEVEL SECURITY;
ALTER TABLE policies FORCE ROW LEVEL SECURITY;
CREATE POLICY named_tenants ON policies USING (tenant_id = ANY ((SELECT visible_tenants())::text[]));

-- The audit log is read by time, newest first, or as the history of one target.
CREATE INDEX audit_log_by_time ON audit_log (tenant_id, at, id);
CREATE INDEX audit_log_by_target ON audit_log (tenant_id, target, at, id);

GRANT SELECT, INSERT, UPDATE, DELETE ON policies TO :runtime_role;
GRANT UPDATE (disabled_at) ON users TO :runtime_role;
GRANT INSERT, DELETE ON user_roles TO :runtime_role;
