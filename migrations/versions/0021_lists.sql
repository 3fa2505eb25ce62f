-- What lists of payments are read from, besides the indexes that 0021_lists.py names.
--
-- Nothing here, and no index, is on a column that a payment's moves change: a move stays an update within its page
-- (HOT), which touches no index. ADR 44 has the figures.
--
-- On a million payments: what there is of them is copied before any lock is taken. Then payments can be read, but neither
-- added nor moved, for as long as it takes to look which of them have changed meanwhile.

-- ---------------------------------------------------------------------------------------------------------------------
-- By status: those that are not SETTLED, which are few or soon will be. The others are found by time.

CREATE TABLE unsettled_payments (
    tenant_id  text        NOT NULL,
    status     text        NOT NULL,
    created_at timestamptz NOT NULL,
    payment_id uuid        NOT NULL,
    PRIMARY KEY (tenant_id, status, created_at, payment_id)
);
-- Most rows live for less than a second, so it is vacuumed as soon as there is something to gain.
ALTER TABLE unsettled_payments SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

CREATE FUNCTION list_added_payments() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.unsettled_payments (tenant_id, status, created_at, payment_id)
    SELECT tenant_id, status, created_at, id FROM added WHERE status <> 'SETTLED';
    RETURN NULL;
END
$$;

CREATE FUNCTION list_moved_payments() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM public.unsettled_payments AS listed
    USING before JOIN after USING (tenant_id, id)
    WHERE before.status <> after.status AND listed.tenant_id = before.tenant_id AND listed.status = before.status
      AND listed.created_at = before.created_at AND listed.payment_id = before.id;
    INSERT INTO public.unsettled_payments (tenant_id, status, created_at, payment_id)
    SELECT after.tenant_id, after.status, after.created_at, after.id
    FROM before JOIN after USING (tenant_id, id)
    WHERE before.status <> after.status AND after.status <> 'SETTLED';
    RETURN NULL;
END
$$;

-- ---------------------------------------------------------------------------------------------------------------------
-- By metadata: a row for each pair, so that only payments with metadata pay for it

CREATE TABLE payment_metadata (
    tenant_id  text        NOT NULL,
    pair       bytea       NOT NULL,
    created_at timestamptz NOT NULL,
    payment_id uuid        NOT NULL,
    PRIMARY KEY (tenant_id, pair, created_at, payment_id)
);
COMMENT ON COLUMN payment_metadata.pair IS
    'A digest of key and value, which may be long. Who finds a payment by it looks whether the pair is really there.';

CREATE FUNCTION metadata_pair(key text, value text) RETURNS bytea
    LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN substr(sha256(convert_to(key || '=' || value, 'UTF8')), 1, 8);
COMMENT ON FUNCTION metadata_pair IS 'No key has a "=". Eight bytes meet by chance once in billions of pairs.';

CREATE FUNCTION list_metadata() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        DELETE FROM public.payment_metadata
        USING json_each_text(OLD.metadata) AS noted
        WHERE tenant_id = OLD.tenant_id AND pair = public.metadata_pair(noted.key, noted.value)
          AND created_at = OLD.created_at AND payment_id = OLD.id;
    END IF;
    INSERT INTO public.payment_metadata (tenant_id, pair, created_at, payment_id)
    SELECT NEW.tenant_id, public.metadata_pair(key, value), NEW.created_at, NEW.id
    FROM json_each_text(NEW.metadata);
    RETURN NULL;
END
$$;

-- ---------------------------------------------------------------------------------------------------------------------
-- The payments that exist

CREATE FUNCTION copy_lists(since timestamptz) RETURNS void LANGUAGE sql AS $$
    INSERT INTO unsettled_payments (tenant_id, status, created_at, payment_id)
    SELECT tenant_id, status, created_at, id FROM payment_intents WHERE status <> 'SETTLED' AND updated_at >= since
    ON CONFLICT DO NOTHING;
    INSERT INTO payment_metadata (tenant_id, pair, created_at, payment_id)
    SELECT tenant_id, metadata_pair(key, value), created_at, id
    FROM payment_intents, json_each_text(metadata) WHERE metadata IS NOT NULL AND updated_at >= since
    ON CONFLICT DO NOTHING
$$;
-- By the auditor, who sees the payments of all tenants. The owner would need a lock that keeps even readers waiting.
GRANT SELECT, INSERT, DELETE ON unsettled_payments, payment_metadata TO :auditor_role;
SET LOCAL ROLE :auditor_role;
SELECT copy_lists('-infinity');
RESET ROLE;

-- From here on nothing is added or moved that the triggers do not see.
CREATE TRIGGER added_payments_are_listed AFTER INSERT ON payment_intents
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION list_added_payments();
CREATE TRIGGER moved_payments_are_listed AFTER UPDATE ON payment_intents
    REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION list_moved_payments();
CREATE TRIGGER metadata_is_listed AFTER INSERT ON payment_intents FOR EACH ROW
    WHEN (NEW.metadata IS NOT NULL)
    EXECUTE FUNCTION list_metadata();
CREATE TRIGGER changed_metadata_is_listed AFTER UPDATE OF metadata ON payment_intents FOR EACH ROW
    WHEN (OLD.metadata::text IS DISTINCT FROM NEW.metadata::text)
    EXECUTE FUNCTION list_metadata();

SET LOCAL ROLE :auditor_role;
SELECT copy_lists(now() - interval '1 hour');
DELETE FROM unsettled_payments
USING payment_intents
WHERE payment_intents.tenant_id = unsettled_payments.tenant_id AND payment_intents.id = unsettled_payments.payment_id
  AND payment_intents.updated_at >= now() - interval '1 hour' AND payment_intents.status <> unsettled_payments.status;
RESET ROLE;
DROP FUNCTION copy_lists;
REVOKE INSERT, DELETE ON unsettled_payments, payment_metadata FROM :auditor_role;

-- ---------------------------------------------------------------------------------------------------------------------
-- Tenants and rights

ALTER TABLE unsettled_payments ENABLE ROW LEVEL SECURITY;
ALTER TABLE unsettled_payments FORCE ROW LEVEL SECURITY;
CREATE POLICY named_tenants ON unsettled_payments
    USING ((tenant_id = ANY ((SELECT visible_tenants())::text[])) IS TRUE);
CREATE POLICY auditor_reads_all ON unsettled_payments FOR SELECT TO :auditor_role USING (true);
GRANT SELECT, INSERT, DELETE ON unsettled_payments TO :runtime_role;

ALTER TABLE payment_metadata ENABLE ROW LEVEL SECURITY;
ALTER TABLE payment_metadata FORCE ROW LEVEL SECURITY;
CREATE POLICY named_tenants ON payment_metadata
    USING ((tenant_id = ANY ((SELECT visible_tenants())::text[])) IS TRUE);
CREATE POLICY auditor_reads_all ON payment_metadata FOR SELECT TO :auditor_role USING (true);
GRANT SELECT, INSERT, DELETE ON payment_metadata TO :runtime_role;
