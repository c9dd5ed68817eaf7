-- What the relay and the applier remember beside the log: how far they are, what they refused, and who has acknowledged what.
-- Nothing here is needed to trust a copy. Both act as countroom_applier, which can report a halt but not lift it.

CREATE SCHEMA replication AUTHORIZATION countroom_ledger;
SET LOCAL ROLE countroom_ledger;

CREATE TABLE replication.cursor (
    log      smallint PRIMARY KEY REFERENCES ledger.log,
    created  text     NOT NULL,
    sequence bigint   NOT NULL
);
COMMENT ON TABLE replication.cursor IS 'Up to which message of the origin''s stream (made at `created`) its log was copied.';

CREATE TABLE replication.watermark (
    log      smallint    NOT NULL REFERENCES ledger.log,
    peer     text        COLLATE "C" NOT NULL,
    position bigint      NOT NULL,
    leaf     bytea       NOT NULL,
    at       timestamptz NOT NULL DEFAULT now(),
    alarm    text,
    PRIMARY KEY (log, peer)
);
COMMENT ON TABLE replication.watermark IS 'What a peer''s newest acknowledgement says that its copy of our log holds.';
COMMENT ON COLUMN replication.watermark.alarm IS 'its copy differs from our log; null again as soon as it agrees';

CREATE TABLE replication.evidence (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    log        smallint    NOT NULL REFERENCES ledger.log,
    role       text        NOT NULL CHECK (role IN ('relay', 'applier')),
    position   bigint,
    reason     text        NOT NULL,
    created    text,
    sequence   bigint,
    data       bytea       NOT NULL,
    at         timestamptz NOT NULL DEFAULT now(),
    cleared_at timestamptz,
    cleared_by text
);
CREATE INDEX ON replication.evidence (log, role) WHERE cleared_at IS NULL;
COMMENT ON TABLE replication.evidence IS 'What was refused, as it came. A log with an entry that nobody cleared is halted.';
COMMENT ON COLUMN replication.evidence.sequence IS 'its message in the stream made at `created`; null: it was an answer about a range';

CREATE TABLE replication.status (
    log      smallint    NOT NULL REFERENCES ledger.log,
    role     text        NOT NULL CHECK (role IN ('relay', 'applier')),
    state    text        NOT NULL CHECK (state IN ('running', 'halted')),
    position bigint,
    reason   text,
    at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (log, role)
);
COMMENT ON TABLE replication.status IS 'For people to see. `at` is when the state began.';

-- A copy and its cursor, in one transaction.
CREATE FUNCTION replication.apply(
    p_log smallint, p_first bigint, p_recorded bigint[], p_leaves bytea[], p_bodies bytea[], p_created text, p_sequence bigint)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM ledger.append_copy(p_log, p_first, p_recorded, p_leaves, p_bodies);
    IF p_created IS NOT NULL THEN
        PERFORM replication.move_cursor(p_log, p_created, p_sequence);
    END IF;
END $$;

CREATE FUNCTION replication.move_cursor(p_log smallint, p_created text, p_sequence bigint) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO replication.cursor VALUES (p_log, p_created, p_sequence)
        ON CONFLICT (log) DO UPDATE SET created = excluded.created, sequence = excluded.sequence
$$;

-- Whether the acknowledged leaf is our own one at that position; if not, one of the two histories is false. If so, it is stored
-- (p_keep) and told to whoever waits (p_tell): NOTIFY replication, 'watermark <log> <peer> <position>'.
CREATE FUNCTION replication.acknowledge(p_log smallint, p_peer text, p_position bigint, p_leaf bytea, p_keep boolean, p_tell boolean)
RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    genesis bytea := (SELECT l.genesis FROM ledger.log AS l WHERE l.id = p_log);
    own     bytea := CASE WHEN p_position = 0 THEN genesis
                          ELSE (SELECT e.leaf FROM ledger.entry AS e WHERE e.log = p_log AND e.position = p_position) END;
BEGIN
    IF p_leaf IS DISTINCT FROM own THEN
        INSERT INTO replication.watermark (log, peer, position, leaf, alarm)
            VALUES (p_log, p_peer, 0, genesis,
                    format('position %s has the leaf %s there, %s here', p_position, encode(p_leaf, 'hex'),
                           coalesce(encode(own, 'hex'), 'none')))
            ON CONFLICT (log, peer) DO UPDATE SET alarm = excluded.alarm;
        RETURN false;
    END IF;
    IF p_keep THEN
        INSERT INTO replication.watermark (log, peer, position, leaf) VALUES (p_log, p_peer, p_position, p_leaf)
            ON CONFLICT (log, peer) DO UPDATE
                SET position = excluded.position, leaf = excluded.leaf, at = excluded.at, alarm = NULL;
    END IF;
    IF p_tell THEN
        PERFORM pg_notify('replication', format('watermark %s %s %s', p_log, p_peer, p_position));
    END IF;
    RETURN true;
END $$;

CREATE FUNCTION replication.report(p_log smallint, p_role text, p_state text, p_position bigint, p_reason text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO replication.status VALUES (p_log, p_role, p_state, p_position, p_reason)
        ON CONFLICT (log, role) DO UPDATE
            SET state = excluded.state, position = excluded.position, reason = excluded.reason, at = excluded.at
$$;

-- Stops a log and keeps what it was stopped for.
CREATE FUNCTION replication.halt(
    p_log smallint, p_role text, p_position bigint, p_reason text, p_created text, p_sequence bigint, p_data bytea)
RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO replication.evidence (log, role, position, reason, created, sequence, data)
        VALUES (p_log, p_role, p_position, p_reason, p_created, p_sequence, p_data);
    SELECT replication.report(p_log, p_role, 'halted', p_position, p_reason);
$$;

-- An operator has looked at the evidence: relay and applier of this log may go on, past the refused message. What should have
-- stood there is fetched from the origin's PostgreSQL, and checked like everything. Returns how much evidence was cleared.
CREATE FUNCTION replication.clear_halt(p_log text, p_by text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    cleared replication.evidence;
    count   bigint := 0;
BEGIN
    IF coalesce(p_by, '') = '' THEN
        RAISE EXCEPTION 'who clears a halt must be named' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    FOR cleared IN
        UPDATE replication.evidence AS e SET cleared_at = now(), cleared_by = p_by
          FROM ledger.log AS l WHERE l.name = p_log AND l.id = e.log AND e.cleared_at IS NULL
        RETURNING e.*
    LOOP
        count := count + 1;
        IF cleared.role = 'applier' AND cleared.sequence IS NOT NULL THEN
            PERFORM replication.move_cursor(cleared.log, cleared.created, cleared.sequence);
        END IF;
    END LOOP;
    PERFORM pg_notify('replication', 'cleared ' || p_log);
    RETURN count;
END $$;

-- Rights ---------------------------------------------------------------------------------------------------------------

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA replication FROM PUBLIC;
GRANT USAGE ON SCHEMA replication TO countroom_reader, countroom_applier;
GRANT SELECT ON ALL TABLES IN SCHEMA replication TO countroom_reader;  -- of which countroom_applier is a member
GRANT INSERT, UPDATE ON replication.cursor, replication.watermark, replication.status TO countroom_applier;
GRANT INSERT ON replication.evidence TO countroom_applier;
GRANT EXECUTE ON FUNCTION replication.apply, replication.move_cursor, replication.acknowledge, replication.report,
    replication.halt TO countroom_applier;
RESET ROLE;
