-- Partitions guarded like their tables: whoever names one instead of its table meets the same refusals (ADR 35).
--
-- No row is ever deleted, by nobody: what goes, goes as a table that is dropped. So a month's rows that lie in _rest are
-- copied to the month and _rest is replaced by a copy of what remains, in portions, while everybody works on.

-- ---------------------------------------------------------------------------------------------------------------------
-- Guards

-- Row triggers of a table are its partitions', too; triggers for a statement are not, and refuse even where
-- row-level security shows no row.
CREATE TRIGGER audit_rows_are_facts BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION refuse('the audit log is never changed');

-- UPDATE OF: the relay, which names the other columns only, pays nothing for them.
CREATE TRIGGER event_rows_are_facts
    BEFORE DELETE OR UPDATE OF tenant_id, id, event_type, aggregate_id, sequence, payload, headers, created_at
    ON outbox_events
    FOR EACH ROW EXECUTE FUNCTION refuse('of an event only its delivery changes');
CREATE TRIGGER outbox_events_are_facts
    BEFORE DELETE OR TRUNCATE OR UPDATE OF tenant_id, id, event_type, aggregate_id, sequence, payload, headers, created_at
    ON outbox_events
    EXECUTE FUNCTION refuse('of an event only its delivery changes');

-- Whether the current role owns the table.
CREATE FUNCTION is_own(owned regclass) RETURNS boolean LANGUAGE sql STABLE
    RETURN (SELECT pg_get_userbyid(relowner) = current_user FROM pg_class WHERE oid = owned);

CREATE TRIGGER delivery_is_the_relays BEFORE UPDATE ON outbox_events
    WHEN (is_own('outbox_events')) EXECUTE FUNCTION refuse('only the relay changes the delivery of events');

CREATE FUNCTION guard_partition(partition text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', partition);
    EXECUTE format('CREATE POLICY named_tenants ON %I
                        USING ((tenant_id = ANY ((SELECT visible_tenants())::text[])) IS TRUE)', partition);
    EXECUTE format('CREATE TRIGGER partition_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON %I
                        EXECUTE FUNCTION refuse(''a partition is never changed by itself'')', partition);
END
$$;

SELECT guard_partition(inhrelid::regclass::text)
FROM pg_inherits
WHERE inhparent IN ('outbox_events'::regclass, 'audit_log'::regclass);

-- ---------------------------------------------------------------------------------------------------------------------
-- Months

-- The table of a month of a divided table, and the keys that belong to it: from `first` to before `next`.
CREATE FUNCTION month_of(divided text, month date, OUT made text, OUT key text, OUT first uuid, OUT next uuid)
    LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT format('%s_%s', divided, to_char(month, 'YYYY_MM')), attname::text,
           first_id_of(month::timestamp AT TIME ZONE 'UTC'),
           first_id_of((month + interval '1 month') AT TIME ZONE 'UTC')
    FROM pg_partitioned_table AS its
    JOIN pg_attribute ON attrelid = partrelid AND attnum = its.partattrs[0]
    WHERE partrelid = to_regclass(divided);
END;

-- The months that have no partition, the oldest first: those since the newest one, this one, and so many ahead.
CREATE FUNCTION missing_months(divided text, ahead integer) RETURNS SETOF date LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT its::date
    FROM (SELECT date_trunc('month', now() AT TIME ZONE 'UTC') AS this, max(ends) AT TIME ZONE 'UTC' AS since
          FROM months_of(divided)) AS known
    CROSS JOIN LATERAL generate_series(least(since, this), this + make_interval(months => ahead), '1 month') AS its
    WHERE NOT EXISTS (SELECT FROM months_of(divided) WHERE ends = (its + interval '1 month') AT TIME ZONE 'UTC')
    ORDER BY its;
END;

-- As in 0008: begun early, in small portions.
CREATE FUNCTION vacuum_often(partition text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %I SET (autovacuum_vacuum_scale_factor = 0.02,
                    autovacuum_vacuum_insert_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02)', partition);
END
$$;

-- Gives the table a partition for the month that begins at a day; false if rows of it lie in _rest.
CREATE FUNCTION add_month(divided text, month date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    its      record := month_of(divided, month);
    is_first bool := NOT EXISTS (SELECT FROM months_of(divided));
BEGIN
    EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%s) TO (%L)', its.made, divided,
                   CASE WHEN is_first THEN 'MINVALUE' ELSE quote_literal(its.first) END, its.next);
    PERFORM guard_partition(its.made), vacuum_often(its.made);
    RETURN true;
EXCEPTION
    WHEN check_violation OR duplicate_table THEN
        -- In _rest, or in the table that a division has begun to fill.
        RETURN false;
END
$$;

-- Of which month rows are being divided out of _rest, '' if of none; NULL while nothing is divided.
CREATE FUNCTION divided_month(divided text) RETURNS text LANGUAGE sql STABLE
    RETURN obj_description(to_regclass(divided || '_rest_next'), 'pg_class');

-- Writes the row to another table as well.
CREATE FUNCTION write_also() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    EXECUTE format('INSERT INTO %I SELECT ($1).* ON CONFLICT %s', TG_ARGV[0], TG_ARGV[1]) USING NEW;
    RETURN NULL;
END
$$;

-- Begins to divide _rest into the month (NULL: none) and what remains, by tables that nobody sees yet. From here on both
-- have what is written to _rest. Returns how many blocks of _rest are to be copied to them; one that was begun goes on.
CREATE FUNCTION begin_division(divided text, month date) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    its       record := month_of(divided, month);
    rest      text := divided || '_rest';
    remaining text := divided || '_rest_next';
    is_its    text := CASE WHEN month IS NULL THEN 'false'
                           ELSE format('(NEW.%1$I >= %2$L AND NEW.%1$I < %3$L)', its.key, its.first, its.next) END;
    clash     text := CASE divided WHEN 'outbox_events' THEN
        '(tenant_id, aggregate_id, sequence) DO UPDATE
         SET (attempts, next_attempt_at, last_error, published_at, buried_at) =
             (EXCLUDED.attempts, EXCLUDED.next_attempt_at, EXCLUDED.last_error, EXCLUDED.published_at,
              EXCLUDED.buried_at)'
        ELSE 'DO NOTHING' END;
BEGIN
    IF divided_month(divided) IS DISTINCT FROM coalesce(month::text, '') THEN
        -- Of another one, which somebody has left half done, nothing is kept.
        IF divided_month(divided) <> '' THEN
            EXECUTE format('DROP TABLE %I', (month_of(divided, divided_month(divided)::date)).made);
        END IF;
        EXECUTE format('DROP TABLE IF EXISTS %I', remaining);
        EXECUTE format('DROP TRIGGER IF EXISTS month_follows ON %I', rest);
        EXECUTE format('DROP TRIGGER IF EXISTS rest_follows ON %I', rest);
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', remaining, divided);
        EXECUTE format('COMMENT ON TABLE %I IS %L', remaining, coalesce(month::text, ''));
        IF month IS NOT NULL THEN
            -- The CHECK spares a look at every row when it becomes a partition.
            EXECUTE format('CREATE TABLE %1$I (LIKE %2$I INCLUDING ALL,
                                CONSTRAINT is_its CHECK (%3$I >= %4$L AND %3$I < %5$L))',
                           its.made, divided, its.key, its.first, its.next);
            EXECUTE format('CREATE TRIGGER month_follows AFTER INSERT OR UPDATE ON %I FOR EACH ROW WHEN (%s)
                                EXECUTE FUNCTION write_also(%L, %L)', rest, is_its, its.made, clash);
        END IF;
        EXECUTE format('CREATE TRIGGER rest_follows AFTER INSERT OR UPDATE ON %I FOR EACH ROW WHEN (NOT %s)
                            EXECUTE FUNCTION write_also(%L, %L)', rest, is_its, remaining, clash);
        -- To copy it the owner must see it; nobody else has any right on it.
        EXECUTE format('ALTER TABLE %I NO FORCE ROW LEVEL SECURITY', rest);
    END IF;
    RETURN pg_relation_size(rest::regclass) / current_setting('block_size')::bigint;
END
$$;

-- Copies the rows in these blocks of _rest, but no event that was published and is from before `expired`.
CREATE FUNCTION copy_rest(divided text, month date, from_block bigint, to_block bigint, expired timestamptz)
    RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    its       record := month_of(divided, month);
    is_its    text := CASE WHEN month IS NULL THEN 'false'
                           ELSE format('%1$I >= %2$L AND %1$I < %3$L', its.key, its.first, its.next) END;
    is_wanted text := CASE WHEN expired IS NULL THEN 'true'
                           ELSE format('NOT (created_at < %L AND published_at IS NOT NULL)', expired) END;
    -- A row that somebody changes meanwhile is waited for, and then copied as it is, or was written by the trigger.
    copy      text := format('INSERT INTO %%I SELECT * FROM %I WHERE ctid >= ''(%s,0)'' AND ctid < ''(%s,0)''
                              AND %%s (%%s) FOR NO KEY UPDATE ON CONFLICT DO NOTHING',
                             divided || '_rest', from_block, to_block);
BEGIN
    IF divided_month(divided) IS DISTINCT FROM coalesce(month::text, '') THEN
        RAISE EXCEPTION 'somebody else divides % meanwhile', divided;
    END IF;
    IF month IS NOT NULL THEN
        EXECUTE format(copy, its.made, '', is_its);
    END IF;
    EXECUTE format(copy, divided || '_rest_next', 'NOT', format('%s) AND (%s', is_its, is_wanted));
END
$$;

-- Puts the two tables in the place of _rest, once all its blocks are copied: nobody waits for more than a moment.
CREATE FUNCTION end_division(divided text, month date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    its  record := month_of(divided, month);
    rest text := divided || '_rest';
BEGIN
    EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', divided);
    IF divided_month(divided) IS DISTINCT FROM coalesce(month::text, '') THEN
        RAISE EXCEPTION 'somebody else divides % meanwhile', divided;
    END IF;
    EXECUTE format('DROP TABLE %I', rest);
    IF month IS NOT NULL THEN
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                       divided, its.made, its.first, its.next);
        EXECUTE format('ALTER TABLE %I DROP CONSTRAINT is_its', its.made);
        PERFORM guard_partition(its.made), vacuum_often(its.made);
    END IF;
    EXECUTE format('ALTER TABLE %I RENAME TO %I', divided || '_rest_next', rest);
    EXECUTE format('COMMENT ON TABLE %I IS NULL', rest);
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I DEFAULT', divided, rest);
    PERFORM guard_partition(rest);
END
$$;

-- Whether _rest holds a published event from before that moment.
CREATE FUNCTION rest_has_expired(expired timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    found boolean;
BEGIN
    ALTER TABLE outbox_events_rest NO FORCE ROW LEVEL SECURITY;
    found := EXISTS (SELECT FROM outbox_events_rest WHERE created_at < expired AND published_at IS NOT NULL);
    ALTER TABLE outbox_events_rest FORCE ROW LEVEL SECURITY;
    RETURN found;
END
$$;

-- All of it in one transaction: for few rows. False if the table has the month already.
CREATE OR REPLACE FUNCTION make_month(divided text, month date) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM months_of(divided) WHERE partition = (month_of(divided, month)).made) THEN
        RETURN false;
    END IF;
    IF NOT add_month(divided, month) THEN
        PERFORM copy_rest(divided, month, 0, begin_division(divided, month), NULL);
        PERFORM end_division(divided, month);
    END IF;
    RETURN true;
END
$$;
