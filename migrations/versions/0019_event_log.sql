-- The log of events: every event of the outbox gets a position, once no event can come before it any more (ADR 42).
--
-- `written_by` is the transaction that wrote an event. Events of transactions below the oldest one that still runs are
-- all visible, and no other can join them: the worker appends them to the log. Those from before this migration have no
-- `written_by`; the worker appends them first, in portions. Nothing here looks at a row of the outbox but the index,
-- which holds none yet.

ALTER TABLE outbox_events ADD COLUMN written_by bigint;
ALTER TABLE outbox_events ALTER COLUMN written_by SET DEFAULT pg_current_xact_id()::text::bigint;
COMMENT ON COLUMN outbox_events.written_by IS 'The transaction (xid8) that wrote it; NULL for events from before there was a log.';
CREATE INDEX outbox_events_by_writer ON outbox_events (written_by) WHERE written_by IS NOT NULL;

-- What an event says and who wrote it never changes.
DROP TRIGGER outbox_events_are_facts ON outbox_events;
CREATE TRIGGER outbox_events_are_facts
    BEFORE DELETE OR TRUNCATE OR UPDATE OF tenant_id, id, event_type, aggregate_id, sequence, payload, headers,
                                           created_at, written_by
    ON outbox_events
    EXECUTE FUNCTION refuse('of an event only its delivery changes');

CREATE TABLE event_log (
    tenant_id    text        NOT NULL,
    position     bigint      NOT NULL CHECK (position >= 1),
    place        bigint      GENERATED ALWAYS AS IDENTITY,
    event_id     uuid        NOT NULL,
    event_type   text        NOT NULL,
    aggregate_id uuid        NOT NULL,
    sequence     integer     NOT NULL,
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, position),
    UNIQUE (tenant_id, event_id)
);
COMMENT ON COLUMN event_log.place IS 'Rises over all tenants, in the order in which events were appended; with gaps.';
COMMENT ON COLUMN event_log.created_at IS 'That of the event: retention goes by it.';
CREATE INDEX event_log_by_place ON event_log USING brin (place) WITH (autosummarize = on);
CREATE INDEX event_log_by_time ON event_log USING brin (created_at);
CREATE TRIGGER event_log_is_fact BEFORE UPDATE OR TRUNCATE ON event_log
    EXECUTE FUNCTION refuse('positions never change');

-- Positions are never given twice, whatever retention has removed.
CREATE TABLE event_log_heads (
    tenant_id     text   PRIMARY KEY,
    last_position bigint NOT NULL CHECK (last_position >= 1)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE TRIGGER event_log_heads_rise BEFORE UPDATE ON event_log_heads FOR EACH ROW
    WHEN (NEW.last_position <= OLD.last_position)
    EXECUTE FUNCTION refuse('positions only rise');
CREATE TRIGGER event_log_heads_stay BEFORE DELETE OR TRUNCATE ON event_log_heads
    EXECUTE FUNCTION refuse('positions are never given twice');

-- How far the worker has come; one row.
CREATE TABLE event_log_reach (
    tenant_id       text   PRIMARY KEY CHECK (tenant_id = '*'),
    written_below   bigint NOT NULL,
    older_tenant    text,
    older_aggregate uuid,
    older_sequence  integer
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON COLUMN event_log_reach.written_below IS 'Every event that a transaction below it wrote is in the log.';
COMMENT ON COLUMN event_log_reach.older_tenant IS 'With the two that follow: the last event from before the log that is in it; NULL once all are.';
INSERT INTO event_log_reach VALUES ('*', pg_current_xact_id()::text::bigint, '', first_id_of('epoch'), 0);

-- ---------------------------------------------------------------------------------------------------------------------
-- Who may see and do what

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['event_log', 'event_log_heads', 'event_log_reach']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY named_tenants ON %I
                            USING ((tenant_id = ANY ((SELECT visible_tenants())::text[])) IS TRUE)', name);
    END LOOP;
END
$$;
CREATE POLICY relay_appends ON event_log TO :relay_role USING (true);
CREATE POLICY relay_appends ON event_log_heads TO :relay_role USING (true);
CREATE POLICY relay_appends ON event_log_reach TO :relay_role USING (true);
CREATE POLICY auditor_reads_all ON event_log FOR SELECT TO :auditor_role USING (true);
CREATE POLICY auditor_reads_all ON event_log_heads FOR SELECT TO :auditor_role USING (true);
CREATE POLICY auditor_reads_all ON event_log_reach FOR SELECT TO :auditor_role USING (true);
GRANT SELECT ON event_log, event_log_heads TO :runtime_role, :auditor_role;
GRANT SELECT ON event_log_reach TO :runtime_role, :auditor_role;
GRANT SELECT, INSERT, DELETE ON event_log TO :relay_role;
GRANT SELECT, INSERT, UPDATE (last_position) ON event_log_heads TO :relay_role;
GRANT SELECT, UPDATE (written_below, older_tenant, older_aggregate, older_sequence) ON event_log_reach TO :relay_role;

-- Who looks on reads events, too.
ALTER TABLE roles NO FORCE ROW LEVEL SECURITY;
UPDATE roles
SET permissions = (SELECT array_agg(DISTINCT permission ORDER BY permission)
                   FROM unnest(permissions || '{events:read}') AS permission)
WHERE 'admin' = ANY (permissions) OR name IN ('ops', 'finance');
ALTER TABLE roles FORCE ROW LEVEL SECURITY;
