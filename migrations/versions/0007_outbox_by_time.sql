-- The reminder looks at the events of the last minutes; without this each look would read the whole outbox. Rows are
-- added in the order of their time, so a summary of each megabyte of the table says where they are, at next to no cost.
CREATE INDEX outbox_events_by_time ON outbox_events USING brin (created_at);
