-- How many payments are in each status, and since when the oldest is AUTHORIZED, known without looking at payments.
--
-- A statement that adds or moves payments leaves the difference behind as rows of its own, so that no two transactions
-- meet; the worker sums them up every few seconds. ADR 22 says why this is no index and no counter.

CREATE TABLE payment_counts (
    tenant_id text        NOT NULL,
    id        uuid        NOT NULL DEFAULT gen_random_uuid(),
    status    text        NOT NULL,
    since     timestamptz,
    payments  bigint      NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
COMMENT ON COLUMN payment_counts.since IS 'Of AUTHORIZED payments: when, to ten seconds.';
COMMENT ON COLUMN payment_counts.payments IS 'A difference: below zero where payments left the status.';

CREATE FUNCTION count_added_payments() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO payment_counts (tenant_id, status, payments)
    SELECT tenant_id, status, count(*) FROM added GROUP BY tenant_id, status;
    RETURN NULL;
END
$$;

CREATE FUNCTION count_moved_payments() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO payment_counts (tenant_id, status, since, payments)
    SELECT tenant_id, status, date_bin('10 seconds', authorized_at, 'epoch') AS at, sum(difference)
    FROM (SELECT tenant_id, status, CASE WHEN status = 'AUTHORIZED' THEN updated_at END, -1 FROM before
          UNION ALL
          SELECT tenant_id, status, CASE WHEN status = 'AUTHORIZED' THEN updated_at END, 1 FROM after)
         AS moved (tenant_id, status, authorized_at, difference)
    GROUP BY tenant_id, status, at;
    RETURN NULL;
END
$$;

ALTER TABLE payment_counts ENABLE ROW LEVEL SECURITY;
ALTER TABLE payment_counts FORCE ROW LEVEL SECURITY;
CREATE POLICY named_tenants ON payment_counts USING (tenant_id = ANY ((SELECT visible_tenants())::text[]));
CREATE POLICY relay_sums_up ON payment_counts TO :relay_role USING (true);

GRANT SELECT, INSERT ON payment_counts TO :runtime_role;
GRANT SELECT, INSERT, DELETE ON payment_counts TO :relay_role;

-- From here on payments can be read, but neither added nor moved, until this transaction ends. It takes no stronger
-- lock on them later, since somebody who waits for it could already hold what that would wait for.
CREATE TRIGGER added_payments_are_counted AFTER INSERT ON payment_intents
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION count_added_payments();
CREATE TRIGGER moved_payments_are_counted AFTER UPDATE ON payment_intents
    REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION count_moved_payments();

-- The payments that exist, counted this once by the auditor, who sees those of all tenants.
CREATE POLICY auditor_counts ON payment_counts FOR INSERT TO :auditor_role WITH CHECK (true);
GRANT INSERT ON payment_counts TO :auditor_role;
SET LOCAL ROLE :auditor_role;
INSERT INTO payment_counts (tenant_id, status, since, payments)
SELECT tenant_id, status, CASE WHEN status = 'AUTHORIZED' THEN date_bin('10 seconds', updated_at, 'epoch') END AS at,
       count(*)
FROM payment_intents
GROUP BY tenant_id, status, at;
RESET ROLE;
REVOKE INSERT ON payment_counts FROM :auditor_role;
DROP POLICY auditor_counts ON payment_counts;

-- Published events are in neither index, so that both stay small.
CREATE INDEX outbox_events_buried ON outbox_events (buried_at) WHERE buried_at IS NOT NULL;
