-- Outbox and audit log divided by month, so that what is too old is dropped as a table, not deleted row by row.
--
-- A row's month is that of its key, a UUIDv7 (RFC 9562), which begins with its time: an audit row's own id, and for an
-- event the id of its payment. So all events of a payment lie together, and their numbers stay unique (ADR 35).
--
-- This month's partition takes in all that is older, and the worker makes those that follow (schema/retention.py).
-- Both tables are written anew here; until this transaction ends nobody can write to the old ones.

-- The least UUIDv7 of the moment.
CREATE FUNCTION first_id_of(moment timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;

-- The months for which a divided table has a partition; the first ever made begins at the beginning of time. What
-- belongs to none lies in the partition _rest: events of payments whose own month was dropped.
CREATE FUNCTION months_of(divided text) RETURNS TABLE (partition text, starts timestamptz, ends timestamptz)
    LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT relname::text,
           CASE WHEN pg_get_expr(relpartbound, pg_class.oid) LIKE '%FROM (MINVALUE)%' THEN '-infinity'
                ELSE month AT TIME ZONE 'UTC' END,
           (month + interval '1 month') AT TIME ZONE 'UTC'
    FROM pg_inherits
    JOIN pg_class ON pg_class.oid = inhrelid
    CROSS JOIN LATERAL (SELECT to_timestamp(right(relname, 7), 'YYYY_MM')::timestamp) AS its (month)
    WHERE inhparent = to_regclass(divided) AND relname ~ '_\d{4}_\d{2}$';
END;

-- Gives the table a partition for the month that begins at a day, with what lies in _rest of it; false if it has one.
-- Partitions have no policies: nobody but the owner has any right on them, and everybody goes through the table.
CREATE FUNCTION make_month(divided text, month date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    made     text := format('%s_%s', divided, to_char(month, 'YYYY_MM'));
    rest     text := divided || '_rest';
    key      text := (SELECT attname FROM pg_partitioned_table AS its
                      JOIN pg_attribute ON attrelid = partrelid AND attnum = its.partattrs[0]
                      WHERE partrelid = to_regclass(divided));
    is_first bool := NOT EXISTS (SELECT FROM months_of(divided));
    first    uuid := first_id_of(CASE WHEN is_first THEN 'epoch' ELSE month::timestamp AT TIME ZONE 'UTC' END);
    next     uuid := first_id_of((month + interval '1 month') AT TIME ZONE 'UTC');
BEGIN
    IF to_regclass(made) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', divided, rest);
    EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%s) TO (%L)',
                   made, divided, CASE WHEN is_first THEN 'MINVALUE' ELSE quote_literal(first) END, next);
    EXECUTE format('WITH moved AS (DELETE FROM %1$I WHERE %2$I >= %3$L AND %2$I < %4$L RETURNING *)
                    INSERT INTO %5$I SELECT * FROM moved', rest, key, first, next, made);
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I DEFAULT', divided, rest);
    -- As in 0008: begun early, in small portions.
    EXECUTE format('ALTER TABLE %I SET (autovacuum_vacuum_scale_factor = 0.02,
                    autovacuum_vacuum_insert_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02)', made);
    RETURN true;
END
$$;

-- Partitions for this month and so many more; returns how many were made.
CREATE FUNCTION make_months(divided text, ahead integer) RETURNS bigint LANGUAGE sql
BEGIN ATOMIC
    SELECT count(*) FILTER (WHERE make_month(divided, (date_trunc('month', now() AT TIME ZONE 'UTC')
                                                       + make_interval(months => its))::date))
    FROM generate_series(0, ahead) AS its;
END;

-- ---------------------------------------------------------------------------------------------------------------------
-- The outbox

ALTER TABLE outbox_events RENAME TO undivided_events;
-- Its owner is bound by row-level security too, except while it is not forced.
ALTER TABLE undivided_events NO FORCE ROW LEVEL SECURITY;

CREATE TABLE outbox_events (LIKE undivided_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)
    PARTITION BY RANGE (aggregate_id);
CREATE TABLE outbox_events_rest PARTITION OF outbox_events DEFAULT;
SELECT make_months('outbox_events', 1);
INSERT INTO outbox_events SELECT * FROM undivided_events;
DROP TABLE undivided_events;

ALTER TABLE outbox_events ADD PRIMARY KEY (tenant_id, aggregate_id, sequence);
CREATE INDEX outbox_events_by_id ON outbox_events (tenant_id, id);
CREATE INDEX outbox_events_due ON outbox_events (next_attempt_at, id) WHERE published_at IS NULL AND buried_at IS NULL;
CREATE INDEX outbox_events_buried ON outbox_events (buried_at) WHERE buried_at IS NOT NULL;
CREATE INDEX outbox_events_by_time ON outbox_events USING brin (created_at);

ALTER TABLE outbox_events ENABLE ROW LEVEL SECURITY;
ALTER TABLE outbox_events FORCE ROW LEVEL SECURITY;
CREATE POLICY named_tenants ON outbox_events USING ((tenant_id = ANY ((SELECT visible_tenants())::text[])) IS TRUE);
CREATE POLICY relay_serves_all ON outbox_events TO :relay_role USING (true);
CREATE POLICY auditor_reads_all ON outbox_events FOR SELECT TO :auditor_role USING (true);
GRANT SELECT, INSERT ON outbox_events TO :runtime_role;
GRANT SELECT, UPDATE (attempts, next_attempt_at, last_error, published_at, buried_at) ON outbox_events TO :relay_role;
GRANT SELECT ON outbox_events TO :auditor_role;

-- ---------------------------------------------------------------------------------------------------------------------
-- The audit log

ALTER TABLE audit_log RENAME TO undivided_log;
ALTER TABLE undivided_log NO FORCE ROW LEVEL SECURITY;

CREATE TABLE audit_log (LIKE undivided_log INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY RANGE (id);
CREATE TABLE audit_log_rest PARTITION OF audit_log DEFAULT;
SELECT make_months('audit_log', 1);
INSERT INTO audit_log SELECT * FROM undivided_log;
DROP TABLE undivided_log;

ALTER TABLE audit_log ADD PRIMARY KEY (tenant_id, id);
CREATE INDEX audit_log_by_time ON audit_log (tenant_id, at, id);
CREATE INDEX audit_log_by_target ON audit_log (tenant_id, target, at, id);

CREATE TRIGGER audit_log_is_fact BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    EXECUTE FUNCTION refuse('the audit log is never changed');

ALTER TABLE audit_log ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_log FORCE ROW LEVEL SECURITY;
CREATE POLICY named_tenants ON audit_log USING ((tenant_id = ANY ((SELECT visible_tenants())::text[])) IS TRUE);
CREATE POLICY auditor_reads_all ON audit_log FOR SELECT TO :auditor_role USING (true);
GRANT SELECT, INSERT ON audit_log TO :runtime_role;
GRANT SELECT ON audit_log TO :auditor_role;

