-- The moves of a payment as rows, the twin of payments/lifecycle.py: a new move is a row there and a row here.
--
-- An empty before_status is the move that makes a payment. The trigger takes over from one that had the list in its
-- condition. Creating it blocks writers of payments until this transaction commits, some milliseconds: it looks at no row.

CREATE TABLE payment_moves (
    before_status text NOT NULL,
    after_status  text NOT NULL,
    event_type    text NOT NULL,
    audit_action  text NOT NULL,
    PRIMARY KEY (before_status, after_status)
);
COMMENT ON TABLE payment_moves IS 'Every legal move of a payment; the same for all tenants.';

INSERT INTO payment_moves (before_status, after_status, event_type, audit_action) VALUES
    ('',           'CREATED',    'payment.intent.created', 'payment.create'),
    ('CREATED',    'AUTHORIZED', 'payment.authorized',     'payment.authorize'),
    ('AUTHORIZED', 'SETTLED',    'payment.settled',        'payment.settle'),
    ('CREATED',    'FAILED',     'payment.failed',         'payment.fail'),
    ('AUTHORIZED', 'FAILED',     'payment.failed',         'payment.fail'),
    ('CREATED',    'CANCELLED',  'payment.cancelled',      'payment.cancel'),
    ('AUTHORIZED', 'CANCELLED',  'payment.cancelled',      'payment.cancel');

-- As currencies: they belong to no tenant, everybody reads them, and a migration that adds one lifts FORCE for itself.
ALTER TABLE payment_moves ENABLE ROW LEVEL SECURITY;
ALTER TABLE payment_moves FORCE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON payment_moves FOR SELECT USING (true);
GRANT SELECT ON payment_moves TO :runtime_role, :relay_role, :auditor_role;
CREATE TRIGGER payment_moves_stay BEFORE TRUNCATE ON payment_moves
    EXECUTE FUNCTION refuse('without its moves no payment could change');

-- The table is named with its schema: whoever can make a temporary table must not be able to put it in this one's place.
CREATE FUNCTION refuse_illegal_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.version = OLD.version + 1 AND EXISTS (
        SELECT FROM public.payment_moves WHERE before_status = OLD.status AND after_status = NEW.status)
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION USING
        ERRCODE = 'restrict_violation',
        MESSAGE = format('a payment cannot move from %s, version %s, to %s, version %s',
                         OLD.status, OLD.version, NEW.status, NEW.version),
        TABLE = TG_TABLE_NAME,
        CONSTRAINT = TG_NAME;
END
$$;

DROP TRIGGER payment_moves_as_listed ON payment_intents;
CREATE TRIGGER payment_moves_as_listed BEFORE UPDATE ON payment_intents FOR EACH ROW
    EXECUTE FUNCTION refuse_illegal_move();
