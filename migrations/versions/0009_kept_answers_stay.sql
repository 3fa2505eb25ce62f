-- Of two requests that race for one key, the later learns it from the database: a kept answer is not replaced before it
-- ran out. The error is a collision, after which the same batch is run again and finds the answer.

CREATE FUNCTION run_again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'serialization_failure',
        MESSAGE = TG_ARGV[0],
        TABLE = TG_TABLE_NAME,
        CONSTRAINT = TG_NAME;
END
$$;

CREATE TRIGGER kept_answers_stay BEFORE UPDATE ON idempotency_keys FOR EACH ROW
    WHEN (OLD.expires_at > now())
    EXECUTE FUNCTION run_again('an answer was kept under this key meanwhile');
