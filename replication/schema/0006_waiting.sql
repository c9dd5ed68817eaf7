-- Before its first write since PostgreSQL started a log is compared with its copies, and may have to wait for some of them: what for
-- is said here, and whom an operator does not wait for (a region that is lost). ADR 12.
SET LOCAL ROLE countroom_ledger;

ALTER TABLE replication.status DROP CONSTRAINT status_state_check;
ALTER TABLE replication.status ADD CONSTRAINT status_state_check CHECK (state IN ('running', 'waiting', 'halted'));

CREATE TABLE replication.excused (
    log        smallint    NOT NULL REFERENCES ledger.log,
    peer       text        COLLATE "C" NOT NULL,
    postmaster timestamptz NOT NULL,
    by         text        NOT NULL CHECK (by <> ''),
    at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (log, postmaster, peer)
);
COMMENT ON TABLE replication.excused IS 'Regions whose copy of a log is not waited for before it is written, and who says so. It counts for one start of PostgreSQL.';

-- An operator does not wait for what this region may hold of the log: if it holds entries that nobody else has, the log forks.
CREATE FUNCTION replication.excuse(p_log smallint, p_peer text, p_by text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO replication.excused (log, peer, postmaster, by) VALUES (p_log, p_peer, pg_postmaster_start_time(), p_by)
        ON CONFLICT DO NOTHING
$$;

REVOKE ALL ON FUNCTION replication.excuse FROM PUBLIC;
GRANT SELECT ON replication.excused TO countroom_reader;
RESET ROLE;
