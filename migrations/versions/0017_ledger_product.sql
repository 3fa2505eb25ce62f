-- The ledger as a product: accounts of the tenant's own, transactions, holds, balances with limits, notes.
--
-- `accounts` is small, and every change to it here looks at few rows or none. Creating the trigger on ledger_postings
-- blocks writers of postings until this transaction commits, some milliseconds: it looks at no row.

-- ---------------------------------------------------------------------------------------------------------------------
-- Accounts. An older process goes on adding those that a tenant begins with, without the new columns.

ALTER TABLE accounts
    DROP CONSTRAINT accounts_code_check,
    ADD CONSTRAINT accounts_code_check
        CHECK (char_length(code) <= 128 AND code ~ '^[A-Z][A-Z0-9_]*(\.[A-Z][A-Z0-9_]*)*$'),
    ADD COLUMN id         uuid,
    ADD COLUMN is_contra  boolean     NOT NULL DEFAULT false,
    ADD COLUMN owner_ref  text        CHECK (char_length(owner_ref) BETWEEN 1 AND 128),
    ADD COLUMN metadata   json        NOT NULL DEFAULT '{}' CHECK (json_typeof(metadata) = 'object'),
    ADD COLUMN version    integer     NOT NULL DEFAULT 0 CHECK (version >= 0),
    ADD COLUMN created_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN closed_at  timestamptz;
COMMENT ON COLUMN accounts.id IS 'The aggregate of its events; NULL for the accounts that every tenant begins with, which have none.';
COMMENT ON COLUMN accounts.is_contra IS 'Whether it grows on the side opposite to that of its type.';
COMMENT ON COLUMN accounts.version IS 'Counts its events.';
COMMENT ON COLUMN accounts.metadata IS 'As json, not jsonb: it is returned as it came.';

-- Codes are listed in byte order, whatever the collation of the database is.
CREATE INDEX accounts_by_code ON accounts (tenant_id, code COLLATE "C");
CREATE INDEX accounts_closed ON accounts (tenant_id, code) WHERE closed_at IS NOT NULL;

CREATE TRIGGER account_terms_are_fixed BEFORE UPDATE ON accounts FOR EACH ROW
    WHEN ((OLD.tenant_id, OLD.code, OLD.type, OLD.is_contra, OLD.id, OLD.created_at)
          IS DISTINCT FROM
          (NEW.tenant_id, NEW.code, NEW.type, NEW.is_contra, NEW.id, NEW.created_at))
    EXECUTE FUNCTION refuse('an account''s code, type and normal side never change');
CREATE TRIGGER accounts_stay BEFORE DELETE OR TRUNCATE ON accounts
    EXECUTE FUNCTION refuse('accounts are never deleted: close them');

-- ---------------------------------------------------------------------------------------------------------------------
-- Transactions

CREATE TABLE ledger_transactions (
    tenant_id      text        NOT NULL,
    id             uuid        NOT NULL,
    kind           text        NOT NULL CHECK (kind IN ('transaction', 'reversal')),
    status         text        NOT NULL CHECK (status IN ('PENDING', 'POSTED', 'VOIDED', 'EXPIRED')),
    version        integer     NOT NULL CHECK (version >= 0),
    reference      text        CHECK (char_length(reference) BETWEEN 1 AND 128),
    description    text        CHECK (char_length(description) BETWEEN 1 AND 500),
    metadata       json        NOT NULL CHECK (json_typeof(metadata) = 'object'),
    recorded_at    timestamptz NOT NULL,
    effective_at   timestamptz NOT NULL,
    expires_at     timestamptz,
    posted_at      timestamptz,
    reverses       uuid,
    reason         text        CHECK (char_length(reason) BETWEEN 1 AND 500),
    balances_after jsonb,
    correlation_id text        NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, reverses) REFERENCES ledger_transactions (tenant_id, id),
    CONSTRAINT nothing_is_dated_ahead CHECK (effective_at <= recorded_at + interval '1 second'),
    CONSTRAINT holds_expire_later CHECK (expires_at > recorded_at),
    CONSTRAINT what_is_posted_has_an_entry CHECK ((status = 'POSTED') = (posted_at IS NOT NULL)),
    CONSTRAINT a_reversal_names_the_first CHECK ((kind = 'reversal') = (reverses IS NOT NULL))
);
COMMENT ON COLUMN ledger_transactions.version IS 'Counts its events; a reversal has none of its own.';
COMMENT ON COLUMN ledger_transactions.posted_at IS 'With id the key of its entry in ledger_entries.';

-- A reference is the business's own idempotency, without end. A transaction is reversed at most once.
CREATE UNIQUE INDEX ledger_transactions_by_reference ON ledger_transactions (tenant_id, reference)
    WHERE reference IS NOT NULL;
CREATE UNIQUE INDEX ledger_transactions_by_reversed ON ledger_transactions (tenant_id, reverses)
    WHERE reverses IS NOT NULL;
CREATE INDEX ledger_transactions_by_time ON ledger_transactions (tenant_id, recorded_at, id);
CREATE INDEX ledger_transactions_pending ON ledger_transactions (tenant_id, id) WHERE status = 'PENDING';
CREATE INDEX ledger_transactions_due ON ledger_transactions (expires_at)
    WHERE status = 'PENDING' AND expires_at IS NOT NULL;

CREATE TRIGGER transaction_begins BEFORE INSERT ON ledger_transactions FOR EACH ROW
    WHEN (NEW.status NOT IN ('PENDING', 'POSTED'))
    EXECUTE FUNCTION refuse('a transaction begins as PENDING or POSTED');
CREATE TRIGGER transaction_terms_are_fixed BEFORE UPDATE ON ledger_transactions FOR EACH ROW
    WHEN ((OLD.tenant_id, OLD.id, OLD.kind, OLD.reference, OLD.description, OLD.metadata::text, OLD.recorded_at,
           OLD.effective_at, OLD.expires_at, OLD.reverses, OLD.reason, OLD.correlation_id)
          IS DISTINCT FROM
          (NEW.tenant_id, NEW.id, NEW.kind, NEW.reference, NEW.description, NEW.metadata::text, NEW.recorded_at,
           NEW.effective_at, NEW.expires_at, NEW.reverses, NEW.reason, NEW.correlation_id))
    EXECUTE FUNCTION refuse('the terms of a transaction never change: write a note');
-- From expires_at on a hold can only expire; before, only be posted or voided.
CREATE TRIGGER holds_end_once BEFORE UPDATE ON ledger_transactions FOR EACH ROW
    WHEN (OLD.status <> 'PENDING' OR NEW.status NOT IN ('POSTED', 'VOIDED', 'EXPIRED')
          OR NEW.version <> OLD.version + 1
          OR (NEW.status = 'EXPIRED') IS DISTINCT FROM (OLD.expires_at IS NOT NULL AND OLD.expires_at <= now()))
    EXECUTE FUNCTION refuse('a hold is posted, voided or expires, once');
CREATE TRIGGER ledger_transactions_stay BEFORE DELETE OR TRUNCATE ON ledger_transactions
    EXECUTE FUNCTION refuse('transactions are never deleted: reverse them');

-- What a hold would post. A hold is not an entry: entries keep facts alone.
CREATE TABLE ledger_hold_postings (
    tenant_id      text     NOT NULL,
    transaction_id uuid     NOT NULL,
    position       smallint NOT NULL CHECK (position >= 1),
    debit_account  text     NOT NULL,
    credit_account text     NOT NULL,
    currency       text     NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    amount         bigint   NOT NULL CHECK (amount > 0),
    PRIMARY KEY (tenant_id, transaction_id, position),
    FOREIGN KEY (tenant_id, transaction_id) REFERENCES ledger_transactions (tenant_id, id),
    FOREIGN KEY (tenant_id, debit_account) REFERENCES accounts (tenant_id, code),
    FOREIGN KEY (tenant_id, credit_account) REFERENCES accounts (tenant_id, code),
    CHECK (debit_account <> credit_account)
);
CREATE TRIGGER ledger_hold_postings_are_facts BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_hold_postings
    EXECUTE FUNCTION refuse('what a hold holds never changes: void it');

-- The transactions of an account, newest first. Written with postings, which refer to their accounts.
CREATE TABLE ledger_transaction_accounts (
    tenant_id      text        NOT NULL,
    account        text        NOT NULL,
    recorded_at    timestamptz NOT NULL,
    transaction_id uuid        NOT NULL,
    PRIMARY KEY (tenant_id, account, recorded_at, transaction_id)
);
CREATE TRIGGER ledger_transaction_accounts_are_facts BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_transaction_accounts
    EXECUTE FUNCTION refuse('which accounts a transaction is about never changes');

CREATE TABLE ledger_transaction_notes (
    tenant_id      text        NOT NULL,
    transaction_id uuid        NOT NULL,
    id             uuid        NOT NULL,
    text           text        NOT NULL CHECK (char_length(text) BETWEEN 1 AND 2000),
    author         text        NOT NULL,
    created_at     timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, transaction_id, created_at, id),
    FOREIGN KEY (tenant_id, transaction_id) REFERENCES ledger_transactions (tenant_id, id)
);
CREATE TRIGGER ledger_transaction_notes_are_facts BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_transaction_notes
    EXECUTE FUNCTION refuse('notes are never changed: write another one');

-- ---------------------------------------------------------------------------------------------------------------------
-- Balances of accounts that have limits, holds, or were named in a condition. Nobody else pays for them.

CREATE TABLE account_balances (
    tenant_id       text           NOT NULL,
    account         text           NOT NULL,
    currency        text           NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    normal_side     text           NOT NULL CHECK (normal_side IN ('debit', 'credit')),
    debits          numeric(38, 0) NOT NULL CHECK (debits >= 0),
    credits         numeric(38, 0) NOT NULL CHECK (credits >= 0),
    pending_debits  numeric(38, 0) NOT NULL CHECK (pending_debits >= 0),
    pending_credits numeric(38, 0) NOT NULL CHECK (pending_credits >= 0),
    balance_min     numeric(38, 0),
    balance_max     numeric(38, 0),
    version         numeric(38, 0) NOT NULL CHECK (version >= 0),
    PRIMARY KEY (tenant_id, account, currency),
    FOREIGN KEY (tenant_id, account) REFERENCES accounts (tenant_id, code),
    -- What pending transactions could take away counts against the minimum, what they could add against the maximum.
    CONSTRAINT no_balance_is_below_its_minimum CHECK (
        CASE normal_side WHEN 'credit' THEN credits - debits - pending_debits
                         ELSE debits - credits - pending_credits END >= balance_min),
    CONSTRAINT no_balance_is_above_its_maximum CHECK (
        CASE normal_side WHEN 'credit' THEN credits - debits + pending_credits
                         ELSE debits - credits + pending_debits END <= balance_max),
    CONSTRAINT limits_leave_room CHECK (balance_min <= balance_max),
    -- Payments post to these two without looking here.
    CONSTRAINT accounts_of_payments_have_none CHECK (account NOT IN ('CASH', 'REVENUE'))
) WITH (fillfactor = 50);
COMMENT ON COLUMN account_balances.version IS 'Grows with each change; it begins as the sum of debits and credits.';

CREATE TRIGGER balances_grow_their_version BEFORE UPDATE ON account_balances FOR EACH ROW
    WHEN ((OLD.tenant_id, OLD.account, OLD.currency, OLD.normal_side)
          IS DISTINCT FROM (NEW.tenant_id, NEW.account, NEW.currency, NEW.normal_side)
          OR NEW.debits < OLD.debits OR NEW.credits < OLD.credits
          OR NEW.version <= OLD.version AND (OLD.debits, OLD.credits, OLD.pending_debits, OLD.pending_credits)
             IS DISTINCT FROM (NEW.debits, NEW.credits, NEW.pending_debits, NEW.pending_credits))
    EXECUTE FUNCTION refuse('a balance changes by postings and holds alone, and its version grows with it');
CREATE TRIGGER account_balances_stay BEFORE DELETE OR TRUNCATE ON account_balances
    EXECUTE FUNCTION refuse('balances are never deleted');

-- ---------------------------------------------------------------------------------------------------------------------
-- Closed accounts

-- Asked after the foreign keys, which wait for whoever closes an account, so that nothing slips in behind a closing. Not
-- asked of what payments post: their two accounts are never closed, and every payment would pay for it.
CREATE FUNCTION refuse_closed_accounts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM public.accounts
        WHERE tenant_id = NEW.tenant_id AND code IN (NEW.debit_account, NEW.credit_account) AND closed_at IS NOT NULL)
    THEN
        RAISE EXCEPTION USING
            ERRCODE = 'restrict_violation',
            MESSAGE = format('%s or %s is closed', NEW.debit_account, NEW.credit_account),
            TABLE = TG_TABLE_NAME,
            CONSTRAINT = TG_NAME;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER postings_need_open_accounts AFTER INSERT ON ledger_postings FOR EACH ROW
    WHEN (NEW.debit_account NOT IN ('CASH', 'REVENUE') OR NEW.credit_account NOT IN ('CASH', 'REVENUE'))
    EXECUTE FUNCTION refuse_closed_accounts();
CREATE TRIGGER holds_need_open_accounts AFTER INSERT ON ledger_hold_postings FOR EACH ROW
    EXECUTE FUNCTION refuse_closed_accounts();

CREATE FUNCTION refuse_to_close_in_use() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.code IN ('CASH', 'REVENUE')
       OR EXISTS (
            SELECT FROM public.account_totals
            WHERE tenant_id = NEW.tenant_id AND account = NEW.code
            GROUP BY currency
            HAVING sum(debits) <> sum(credits))
       OR EXISTS (
            SELECT FROM public.ledger_transactions AS hold
            JOIN public.ledger_hold_postings AS held
              ON held.tenant_id = hold.tenant_id AND held.transaction_id = hold.id
            WHERE hold.tenant_id = NEW.tenant_id AND hold.status = 'PENDING'
              AND (hold.expires_at IS NULL OR hold.expires_at > now())
              AND NEW.code IN (held.debit_account, held.credit_account))
    THEN
        RAISE EXCEPTION USING
            ERRCODE = 'restrict_violation',
            MESSAGE = format('the account %s is in use', NEW.code),
            TABLE = TG_TABLE_NAME,
            CONSTRAINT = TG_NAME;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER accounts_close_empty BEFORE UPDATE OF closed_at ON accounts FOR EACH ROW
    WHEN (OLD.closed_at IS NULL AND NEW.closed_at IS NOT NULL)
    EXECUTE FUNCTION refuse_to_close_in_use();

-- ---------------------------------------------------------------------------------------------------------------------
-- Who may see and do what

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['ledger_transactions', 'ledger_hold_postings', 'ledger_transaction_accounts',
                                'ledger_transaction_notes', 'account_balances']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY named_tenants ON %I
                            USING ((tenant_id = ANY ((SELECT visible_tenants())::text[])) IS TRUE)', name);
    END LOOP;
END
$$;
CREATE POLICY auditor_reads_all ON ledger_transactions FOR SELECT TO :auditor_role USING (true);
CREATE POLICY auditor_reads_all ON ledger_hold_postings FOR SELECT TO :auditor_role USING (true);
CREATE POLICY auditor_reads_all ON ledger_transaction_accounts FOR SELECT TO :auditor_role USING (true);
CREATE POLICY auditor_reads_all ON ledger_transaction_notes FOR SELECT TO :auditor_role USING (true);
CREATE POLICY auditor_reads_all ON account_balances FOR SELECT TO :auditor_role USING (true);
-- The worker looks for expired holds of all tenants as the relay, and ends them as the runtime role.
CREATE POLICY relay_sees_expired ON ledger_transactions FOR SELECT TO :relay_role
    USING (status = 'PENDING' AND expires_at <= now());

GRANT UPDATE (name, owner_ref, metadata, version, closed_at) ON accounts TO :runtime_role;
GRANT SELECT, INSERT, UPDATE (status, version, posted_at, balances_after) ON ledger_transactions TO :runtime_role;
GRANT SELECT, INSERT ON ledger_hold_postings, ledger_transaction_accounts, ledger_transaction_notes TO :runtime_role;
GRANT SELECT, INSERT,
    UPDATE (debits, credits, pending_debits, pending_credits, balance_min, balance_max, version)
    ON account_balances TO :runtime_role;
GRANT SELECT (tenant_id, id, status, expires_at, correlation_id) ON ledger_transactions TO :relay_role;
GRANT SELECT ON ledger_transactions, ledger_hold_postings, ledger_transaction_accounts, ledger_transaction_notes,
    account_balances TO :auditor_role;
