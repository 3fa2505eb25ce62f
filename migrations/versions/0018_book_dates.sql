-- The two times of an entry: when it was recorded (posted_at) and when it was effective for the business. Its book date
-- is the date of the latter in the tenant's zone.
--
-- No row of before is touched: NULL is "as it was recorded". A process of before goes on posting; what it posts is dated
-- by the UTC day of its recording, which is right for every tenant of before, since their zone is UTC.
--
-- On a million postings of payments five of the six indexes take a scan that finds nothing; the sixth, of payments, takes
-- the longest. It and the other two that need no new column are built first, while postings can still be read.

ALTER TABLE tenants
    ADD COLUMN zone text NOT NULL DEFAULT 'UTC'
        CHECK (timestamptz '2000-01-01 00:00:00+00' AT TIME ZONE zone IS NOT NULL);
COMMENT ON COLUMN tenants.zone IS 'IANA time zone of the books'' days. Never changes: what is posted was dated by it.';
CREATE TRIGGER tenant_zone_is_fixed BEFORE UPDATE ON tenants FOR EACH ROW
    WHEN (OLD.zone <> NEW.zone)
    EXECUTE FUNCTION refuse('a tenant''s zone never changes: its books are dated by it');

-- ---------------------------------------------------------------------------------------------------------------------
-- The postings of an account in the order of their recording. Those between the two accounts of payments concern both of
-- them alike, so that one entry in an index serves for two.

CREATE INDEX ledger_postings_by_debit
    ON ledger_postings (tenant_id, debit_account, currency, posted_at, entry_id, position)
    WHERE NOT (debit_account IN ('CASH', 'REVENUE') AND credit_account IN ('CASH', 'REVENUE'));
CREATE INDEX ledger_postings_by_credit
    ON ledger_postings (tenant_id, credit_account, currency, posted_at, entry_id, position)
    WHERE NOT (debit_account IN ('CASH', 'REVENUE') AND credit_account IN ('CASH', 'REVENUE'));
CREATE INDEX ledger_postings_of_payments
    ON ledger_postings (tenant_id, currency, posted_at, entry_id, position)
    WHERE (debit_account IN ('CASH', 'REVENUE') AND credit_account IN ('CASH', 'REVENUE'));

ALTER TABLE ledger_entries
    ADD COLUMN effective_at timestamptz,
    ADD COLUMN book_date date,
    ADD CONSTRAINT nothing_is_dated_ahead CHECK (effective_at <= posted_at + interval '1 second') NOT VALID,
    ADD CONSTRAINT every_calendar_has_its_day CHECK (effective_at >= timestamptz '1900-01-01 00:00:00+00') NOT VALID;
COMMENT ON COLUMN ledger_entries.effective_at IS 'NULL: when it was recorded, at posted_at.';
COMMENT ON COLUMN ledger_entries.book_date IS 'The date of its effective time in the tenant''s zone. NULL: the UTC day of posted_at.';

ALTER TABLE ledger_postings
    ADD COLUMN effective_at timestamptz,
    ADD COLUMN book_date date;
COMMENT ON COLUMN ledger_postings.effective_at IS 'As in the entry, so that an account''s postings are found by it.';

-- Where the two times differ, in the order of the effective one.
CREATE INDEX ledger_postings_by_effective_at
    ON ledger_postings (tenant_id, effective_at) WHERE effective_at IS NOT NULL;
CREATE INDEX ledger_postings_by_debit_and_effective_at
    ON ledger_postings (tenant_id, debit_account, currency, effective_at, posted_at, entry_id, position)
    WHERE effective_at IS NOT NULL;
CREATE INDEX ledger_postings_by_credit_and_effective_at
    ON ledger_postings (tenant_id, credit_account, currency, effective_at, posted_at, entry_id, position)
    WHERE effective_at IS NOT NULL;

-- ---------------------------------------------------------------------------------------------------------------------
-- The fold by book date, as its difference to account_totals: what was recorded on one day and is booked on another.

CREATE TABLE account_shifted_totals (
    tenant_id text           NOT NULL,
    account   text           NOT NULL,
    currency  text           NOT NULL,
    book_date date           NOT NULL,
    day       date           NOT NULL,
    debits    numeric(38, 0) NOT NULL CHECK (debits >= 0),
    credits   numeric(38, 0) NOT NULL CHECK (credits >= 0),
    PRIMARY KEY (tenant_id, account, currency, book_date, day),
    FOREIGN KEY (tenant_id, account) REFERENCES accounts (tenant_id, code),
    CHECK (book_date <> day)
) WITH (fillfactor = 50);
COMMENT ON TABLE account_shifted_totals IS
    'Sums of postings whose book_date is not the UTC day of their recording, which account_totals has them under.';

ALTER TABLE account_shifted_totals ENABLE ROW LEVEL SECURITY;
ALTER TABLE account_shifted_totals FORCE ROW LEVEL SECURITY;
CREATE POLICY named_tenants ON account_shifted_totals
    USING ((tenant_id = ANY ((SELECT visible_tenants())::text[])) IS TRUE);
CREATE POLICY auditor_reads_all ON account_shifted_totals FOR SELECT TO :auditor_role USING (true);

GRANT SELECT, INSERT, UPDATE (debits, credits) ON account_shifted_totals TO :runtime_role;
GRANT SELECT ON account_shifted_totals TO :auditor_role;
