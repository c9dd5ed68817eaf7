-- Whether a log may be written. A PostgreSQL that has started may hold a restored backup, and an entry appended to it would
-- fork the log: so after every start, its newest entry is compared with what was signed and what was copied elsewhere, and
-- what is missing is fetched back. Only then does append take commands.
SET LOCAL ROLE countroom_ledger;

CREATE TABLE ledger.clearance (
    log        smallint PRIMARY KEY REFERENCES ledger.log,
    postmaster timestamptz,
    database   oid,
    by         text,
    at         timestamptz
);
COMMENT ON TABLE ledger.clearance IS 'The logs that are guarded, and the start of PostgreSQL since which each may be written. Restored with a backup, it clears nothing.';

-- From now on the log is written only after clear_to_write, once for each start of PostgreSQL. Harmless when repeated.
CREATE FUNCTION ledger.guard(p_log smallint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO ledger.clearance (log) VALUES (p_log) ON CONFLICT DO NOTHING
$$;

CREATE FUNCTION ledger.may_write(p_log smallint) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT NOT EXISTS (SELECT FROM ledger.clearance AS c
                        WHERE c.log = p_log
                              AND (c.postmaster, c.database) IS DISTINCT FROM
                                  (pg_postmaster_start_time(), (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())))
$$;

-- The comparison has found nothing missing, or an operator says so: who, stands in p_by.
CREATE FUNCTION ledger.clear_to_write(p_log smallint, p_by text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE ledger.clearance
       SET postmaster = pg_postmaster_start_time(), by = p_by, at = now(),
           database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
     WHERE log = p_log
$$;

-- Brings back what a log written here has lost and a copy elsewhere has kept: checked exactly as a copy is, and only while
-- the log may not be written. For the length of this transaction it is one.
CREATE FUNCTION ledger.restore(p_log smallint, p_first bigint, p_recorded bigint[], p_leaves bytea[], p_bodies bytea[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    last bigint;
BEGIN
    IF ledger.may_write(p_log) THEN
        RAISE EXCEPTION 'log % may be written here, so nothing is missing from it', p_log USING ERRCODE = 'CR002';
    END IF;
    UPDATE ledger.log SET own = false WHERE id = p_log AND own;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'log % is not written here', p_log USING ERRCODE = 'CR002';
    END IF;
    last := ledger.append_copy(p_log, p_first, p_recorded, p_leaves, p_bodies);
    UPDATE ledger.log SET own = true WHERE id = p_log;
    RETURN last;
END $$;

REVOKE ALL ON FUNCTION ledger.guard, ledger.may_write, ledger.clear_to_write, ledger.restore FROM PUBLIC;
GRANT SELECT ON ledger.clearance TO countroom_reader;
GRANT EXECUTE ON FUNCTION ledger.may_write TO countroom_reader;
GRANT EXECUTE ON FUNCTION ledger.clear_to_write, ledger.restore TO countroom_heads;
RESET ROLE;
