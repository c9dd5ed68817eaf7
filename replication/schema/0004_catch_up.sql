-- How far a copy that lacked entries has come in fetching them, for people to see; and whether heads vouch for what it holds.
SET LOCAL ROLE countroom_ledger;

CREATE TABLE replication.catch_up (
    log      smallint         PRIMARY KEY REFERENCES ledger.log,
    source   text             COLLATE "C" NOT NULL,
    first    bigint           NOT NULL,
    position bigint           NOT NULL,
    target   bigint           NOT NULL,
    seconds  double precision NOT NULL,
    vouched  bigint           NOT NULL
);
COMMENT ON TABLE replication.catch_up IS 'The newest fetching of ranges of a log: from the region `source`, from the entry `first` on.';
COMMENT ON COLUMN replication.catch_up.target IS 'how far the log went at its source, as far as that is wanted here';
COMMENT ON COLUMN replication.catch_up.vouched IS 'the size of the witnessed head that stood for the entries before they were taken; 0: they came from the origin';

CREATE FUNCTION replication.report_catch_up(
    p_log smallint, p_source text, p_first bigint, p_position bigint, p_target bigint, p_seconds double precision,
    p_vouched bigint) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO replication.catch_up VALUES (p_log, p_source, p_first, p_position, p_target, p_seconds, p_vouched)
        ON CONFLICT (log) DO UPDATE SET source = excluded.source, first = excluded.first, position = excluded.position,
                                        target = excluded.target, seconds = excluded.seconds,
                                        vouched = excluded.vouched
$$;

-- A published head is kept beside a copy only if the copy has its root: so the largest one vouches for everything up to its size.
CREATE VIEW replication.caught_up AS
    SELECT l.name AS log, c.source, c.first, c.position, c.target,
           round((c.position - c.first + 1) / greatest(c.seconds, 0.001))::bigint AS per_second,
           greatest(c.vouched, (SELECT k.size FROM ledger.checkpoint AS k
                      WHERE k.log = c.log AND k.published_at IS NOT NULL ORDER BY k.size DESC LIMIT 1)) AS vouched
      FROM replication.catch_up AS c JOIN ledger.log AS l ON l.id = c.log;
COMMENT ON VIEW replication.caught_up IS 'A copy has caught up once `vouched`, the size of the newest witnessed head that it agrees with, is `target` or more.';

REVOKE ALL ON FUNCTION replication.report_catch_up FROM PUBLIC;
GRANT SELECT ON replication.catch_up, replication.caught_up TO countroom_reader;
GRANT INSERT, UPDATE ON replication.catch_up TO countroom_applier;
GRANT EXECUTE ON FUNCTION replication.report_catch_up TO countroom_applier;
RESET ROLE;
