-- The signed heads of other regions' logs, as they are heard of, whether the copy here has come so far or not: lag is measured by
-- them (ADR 46). Times are those of this database's clock; nobody else's is asked.
SET LOCAL ROLE countroom_ledger;

CREATE TABLE replication.heard (
    log      smallint    PRIMARY KEY REFERENCES ledger.log,
    size     bigint      NOT NULL,
    note     bytea       NOT NULL,
    first_at timestamptz NOT NULL,
    at       timestamptz NOT NULL
);
COMMENT ON TABLE replication.heard IS 'The largest head of another region''s log that was heard of, signed by that log; when first, and when one was last heard of.';

CREATE TABLE replication.lacking (
    log  smallint    NOT NULL REFERENCES ledger.log,
    size bigint      NOT NULL,
    at   timestamptz NOT NULL,
    PRIMARY KEY (log, size)
);
COMMENT ON TABLE replication.lacking IS 'Heads that the copy here had not come to when they were first heard of: so long does it lack what they cover. Of many, some.';

-- A head that the log has signed, which is the caller's part to know. One that is smaller than another before it tells only that its
-- region is there. Heads that the copy lacks are kept as close together as a hundredth of the time for which it has lacked any.
CREATE FUNCTION replication.hear(p_log smallint, p_size bigint, p_note bytea) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    heard_at timestamptz := clock_timestamp();
    before   bigint := coalesce((SELECT h.size FROM replication.heard AS h WHERE h.log = p_log), 0);
    here     bigint := coalesce((SELECT e.position FROM ledger.entry AS e WHERE e.log = p_log ORDER BY e.position DESC LIMIT 1), 0);
    oldest   timestamptz;
    newest   timestamptz;
BEGIN
    INSERT INTO replication.heard AS h (log, size, note, first_at, at) VALUES (p_log, p_size, p_note, heard_at, heard_at)
        ON CONFLICT (log) DO UPDATE
            SET at = excluded.at,
                size = greatest(h.size, excluded.size),
                note = CASE WHEN excluded.size >= h.size THEN excluded.note ELSE h.note END,
                first_at = CASE WHEN excluded.size > h.size THEN excluded.first_at ELSE h.first_at END;
    DELETE FROM replication.lacking AS k WHERE k.log = p_log AND k.size <= here;
    IF p_size > before AND p_size > here THEN
        SELECT min(k.at), max(k.at) INTO oldest, newest FROM replication.lacking AS k WHERE k.log = p_log;
        IF (heard_at BETWEEN newest AND newest + (newest - oldest) / 100) IS NOT TRUE THEN
            INSERT INTO replication.lacking (log, size, at) VALUES (p_log, p_size, heard_at) ON CONFLICT DO NOTHING;
        END IF;
    END IF;
END $$;

REVOKE ALL ON FUNCTION replication.hear FROM PUBLIC;
GRANT SELECT ON replication.heard, replication.lacking TO countroom_reader;
GRANT INSERT, UPDATE ON replication.heard TO countroom_heads;
GRANT INSERT, DELETE ON replication.lacking TO countroom_heads;
GRANT EXECUTE ON FUNCTION replication.hear TO countroom_heads;
RESET ROLE;
