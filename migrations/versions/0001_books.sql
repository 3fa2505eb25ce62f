-- The first schema: tenants and their users, payment intents, the ledger, the outbox, idempotency keys and the audit log.
--
-- Three rules hold for every table:
--   * its primary key begins with tenant_id and its foreign keys carry it, so that no row can refer to another tenant's;
--   * row-level security is on and forced: a transaction sees the tenants that it named, and no others;
--   * what is a fact (an entry, a posting, an audit row) can be added, never changed or removed.
--
-- Amounts are whole minor units. :runtime_role and :relay_role are filled in by migrations/env.py; they own nothing.

-- ---------------------------------------------------------------------------------------------------------------------
-- Who may see what

-- The tenants that this transaction named with set_config('payments_ledger.tenant_ids', 'a,b', true); none if unset.
CREATE FUNCTION visible_tenants() RETURNS text[] LANGUAGE sql STABLE PARALLEL SAFE
    RETURN string_to_array(current_setting('payments_ledger.tenant_ids', true), ',');

-- Raises with the trigger's first argument as the message; the trigger's WHEN says when.
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'restrict_violation',
        MESSAGE = TG_ARGV[0],
        TABLE = TG_TABLE_NAME,
        CONSTRAINT = TG_NAME;
END
$$;

-- ---------------------------------------------------------------------------------------------------------------------
-- Tenants and users

CREATE TABLE tenants (
    tenant_id    text        PRIMARY KEY CHECK (tenant_id = '*' OR tenant_id ~ '^[A-Za-z0-9._:-]{1,64}$'),
    name         text        NOT NULL,
    plan         text        NOT NULL,
    region       text        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE tenants IS 'The tenant * is the home of global administrators; it holds no payments.';

CREATE TABLE users (
    tenant_id     text        NOT NULL REFERENCES tenants,
    id            uuid        NOT NULL,
    email         text        NOT NULL CHECK (char_length(email) BETWEEN 3 AND 254 AND email = lower(email)),
    password_hash text        NOT NULL,
    disabled_at   timestamptz,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, email)
);
CREATE INDEX users_by_email ON users (email);

CREATE TABLE roles (
    tenant_id   text   NOT NULL REFERENCES tenants,
    name        text   NOT NULL CHECK (name ~ '^[a-z][a-z0-9_-]{0,63}$'),
    permissions text[] NOT NULL,
    PRIMARY KEY (tenant_id, name)
);

CREATE TABLE user_roles (
    tenant_id text NOT NULL,
    user_id   uuid NOT NULL,
    role      text NOT NULL,
    PRIMARY KEY (tenant_id, user_id, role),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id),
    FOREIGN KEY (tenant_id, role) REFERENCES roles (tenant_id, name)
);

-- ---------------------------------------------------------------------------------------------------------------------
-- Payments

-- fillfactor leaves room for a payment's two moves on its own page, so that its index entries need not be rewritten.
CREATE TABLE payment_intents (
    tenant_id    text        NOT NULL REFERENCES tenants CHECK (tenant_id <> '*'),
    id           uuid        NOT NULL,
    amount       bigint      NOT NULL CHECK (amount > 0),
    currency     text        NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    status       text        NOT NULL CHECK (status IN ('CREATED', 'AUTHORIZED', 'SETTLED', 'FAILED', 'CANCELLED')),
    version      integer     NOT NULL CHECK (version >= 1),
    customer_ref text        NOT NULL CHECK (char_length(customer_ref) BETWEEN 1 AND 128),
    order_id     text        CHECK (char_length(order_id) BETWEEN 1 AND 128),
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL CHECK (updated_at >= created_at),
    PRIMARY KEY (tenant_id, id)
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX payment_intents_by_order ON payment_intents (tenant_id, order_id) WHERE order_id IS NOT NULL;
COMMENT ON COLUMN payment_intents.version IS 'Counts the moves from 1; it is the sequence of the event that tells of the move.';

CREATE TRIGGER payment_begins_created BEFORE INSERT ON payment_intents FOR EACH ROW
    WHEN (NEW.status <> 'CREATED' OR NEW.version <> 1)
    EXECUTE FUNCTION refuse('a payment begins as CREATED, version 1');

CREATE TRIGGER payment_terms_are_fixed BEFORE UPDATE ON payment_intents FOR EACH ROW
    WHEN ((OLD.tenant_id, OLD.id, OLD.amount, OLD.currency, OLD.customer_ref, OLD.order_id, OLD.created_at)
          IS DISTINCT FROM
          (NEW.tenant_id, NEW.id, NEW.amount, NEW.currency, NEW.customer_ref, NEW.order_id, NEW.created_at))
    EXECUTE FUNCTION refuse('a payment''s amount, currency and references never change');

CREATE TRIGGER payment_moves_as_listed BEFORE UPDATE ON payment_intents FOR EACH ROW
    WHEN (NEW.version <> OLD.version + 1
          OR (OLD.status, NEW.status) NOT IN (
              ('CREATED', 'AUTHORIZED'), ('CREATED', 'FAILED'), ('CREATED', 'CANCELLED'),
              ('AUTHORIZED', 'SETTLED'), ('AUTHORIZED', 'FAILED'), ('AUTHORIZED', 'CANCELLED')))
    EXECUTE FUNCTION refuse('this move of a payment''s status is not allowed');

CREATE TRIGGER payment_intents_stay BEFORE DELETE OR TRUNCATE ON payment_intents
    EXECUTE FUNCTION refuse('payments are never deleted');

-- ---------------------------------------------------------------------------------------------------------------------
-- The ledger

CREATE TABLE accounts (
    tenant_id text NOT NULL REFERENCES tenants,
    code      text NOT NULL CHECK (code ~ '^[A-Z][A-Z0-9_]{0,63}$'),
    name      text NOT NULL,
    type      text NOT NULL CHECK (type IN ('asset', 'liability', 'equity', 'revenue', 'expense')),
    PRIMARY KEY (tenant_id, code)
);

-- The time stands in the primary key because entries are read by time, newest first.
CREATE TABLE ledger_entries (
    tenant_id      text        NOT NULL REFERENCES tenants,
    posted_at      timestamptz NOT NULL,
    id             uuid        NOT NULL,
    kind           text        NOT NULL,
    source_id      uuid        NOT NULL,
    correlation_id text        NOT NULL,
    PRIMARY KEY (tenant_id, posted_at, id),
    UNIQUE (tenant_id, source_id, kind)
);
COMMENT ON COLUMN ledger_entries.source_id IS 'The business fact that caused the entry; a fact causes an entry of each kind at most once.';

-- One row debits and credits the same amount: an unbalanced entry cannot be written down.
CREATE TABLE ledger_postings (
    tenant_id      text        NOT NULL,
    posted_at      timestamptz NOT NULL,
    entry_id       uuid        NOT NULL,
    position       smallint    NOT NULL CHECK (position >= 1),
    debit_account  text        NOT NULL,
    credit_account text        NOT NULL,
    currency       text        NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    amount         bigint      NOT NULL CHECK (amount > 0),
    PRIMARY KEY (tenant_id, posted_at, entry_id, position),
    FOREIGN KEY (tenant_id, posted_at, entry_id) REFERENCES ledger_entries (tenant_id, posted_at, id),
    FOREIGN KEY (tenant_id, debit_account) REFERENCES accounts (tenant_id, code),
    FOREIGN KEY (tenant_id, credit_account) REFERENCES accounts (tenant_id, code),
    CHECK (debit_account <> credit_account)
);

-- The fold of the postings by account, currency and UTC day, kept in the transaction that posts.
CREATE TABLE account_totals (
    tenant_id text           NOT NULL,
    account   text           NOT NULL,
    currency  text           NOT NULL,
    day       date           NOT NULL,
    debits    numeric(38, 0) NOT NULL CHECK (debits >= 0),
    credits   numeric(38, 0) NOT NULL CHECK (credits >= 0),
    PRIMARY KEY (tenant_id, account, currency, day),
    FOREIGN KEY (tenant_id, account) REFERENCES accounts (tenant_id, code)
) WITH (fillfactor = 50);

CREATE TRIGGER ledger_entries_are_facts BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entries
    EXECUTE FUNCTION refuse('ledger entries are never changed or deleted: post a reversing entry');
CREATE TRIGGER ledger_postings_are_facts BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_postings
    EXECUTE FUNCTION refuse('postings are never changed or deleted: post a reversing entry');

-- ---------------------------------------------------------------------------------------------------------------------
-- Events to publish, requests already answered, what was done by whom

CREATE TABLE outbox_events (
    tenant_id       text        NOT NULL REFERENCES tenants,
    id              uuid        NOT NULL,
    event_type      text        NOT NULL,
    aggregate_id    uuid        NOT NULL,
    sequence        integer     NOT NULL CHECK (sequence >= 1),
    payload         json        NOT NULL,
    headers         json        NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    attempts        integer     NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    last_error      text,
    published_at    timestamptz,
    buried_at       timestamptz,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, aggregate_id, sequence)
);
CREATE INDEX outbox_events_due ON outbox_events (next_attempt_at, id) WHERE published_at IS NULL AND buried_at IS NULL;

CREATE TABLE idempotency_keys (
    tenant_id   text        NOT NULL REFERENCES tenants,
    principal   text        NOT NULL,
    route       text        NOT NULL,
    key         text        NOT NULL CHECK (char_length(key) BETWEEN 1 AND 255),
    fingerprint bytea       NOT NULL,
    status      smallint    NOT NULL,
    location    text,
    body        bytea       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, principal, route, key)
);
CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at);

CREATE TABLE audit_log (
    tenant_id      text        NOT NULL REFERENCES tenants,
    id             uuid        NOT NULL,
    at             timestamptz NOT NULL DEFAULT now(),
    principal      text        NOT NULL,
    address        text,
    action         text        NOT NULL,
    target         text        NOT NULL,
    correlation_id text        NOT NULL,
    detail         json        NOT NULL,
    PRIMARY KEY (tenant_id, id)
);

CREATE TRIGGER audit_log_is_fact BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    EXECUTE FUNCTION refuse('the audit log is never changed');

-- ---------------------------------------------------------------------------------------------------------------------
-- Row-level security: every table, owner included. The setting is read in a sub-select, once for each statement.

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['tenants', 'users', 'roles', 'user_roles', 'payment_intents', 'accounts',
                                'ledger_entries', 'ledger_postings', 'account_totals', 'outbox_events',
                                'idempotency_keys', 'audit_log']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY named_tenants ON %I USING (tenant_id = ANY ((SELECT visible_tenants())::text[]))', name);
    END LOOP;
END
$$;

-- A login that names no tenant must find the tenants of one e-mail address, and nothing else.
CREATE POLICY login_by_email ON users FOR SELECT
    USING (email = (SELECT current_setting('payments_ledger.login_email', true)));

-- The relay serves every tenant, but sees only the outbox, and of the idempotency keys those that ran out.
CREATE POLICY relay_serves_all ON outbox_events TO :relay_role USING (true);
CREATE POLICY relay_clears_expired ON idempotency_keys TO :relay_role USING (expires_at < now());

-- ---------------------------------------------------------------------------------------------------------------------
-- What the two runtime roles may do

GRANT USAGE ON SCHEMA public TO :runtime_role, :relay_role;

GRANT SELECT ON tenants, users, roles, user_roles, accounts TO :runtime_role;
GRANT SELECT, INSERT, UPDATE (status, version, updated_at) ON payment_intents TO :runtime_role;
GRANT SELECT, INSERT ON ledger_entries, ledger_postings, audit_log TO :runtime_role;
GRANT SELECT, INSERT, UPDATE (debits, credits) ON account_totals TO :runtime_role;
GRANT SELECT, INSERT ON outbox_events TO :runtime_role;
GRANT SELECT, INSERT, UPDATE ON idempotency_keys TO :runtime_role;

GRANT SELECT, UPDATE (attempts, next_attempt_at, last_error, published_at, buried_at) ON outbox_events TO :relay_role;
GRANT SELECT, DELETE ON idempotency_keys TO :relay_role;
