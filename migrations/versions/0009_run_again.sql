-- For a statement that finds that another transaction was first: a collision, after which the same batch is run again.

CREATE FUNCTION run_again(reason text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'serialization_failure', MESSAGE = reason;
END
$$;
