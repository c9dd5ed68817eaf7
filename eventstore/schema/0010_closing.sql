-- A log that cannot be repaired is closed, and the next log of its region goes on with what it owned (docs/adr/0048): eu.2 after eu. It
-- says so at its opening, and needs no release: the closed log writes nothing any more.
SET LOCAL ROLE countroom_ledger;

CREATE TABLE ledger.continuation (
    log            smallint PRIMARY KEY REFERENCES ledger.log,
    after_log      text COLLATE "C" NOT NULL UNIQUE,
    after_position bigint NOT NULL CHECK (after_position > 0),
    after_leaf     bytea NOT NULL CHECK (octet_length(after_leaf) = 32)
);
COMMENT ON TABLE ledger.continuation IS 'From log.opened: the log that was closed, the last of its entries that is agreed upon, and the log that goes on with it.';
COMMENT ON COLUMN ledger.ownership.released_to IS 'The log that may adopt the partition, or that continues the log of this row; null while it owns it.';

CREATE FUNCTION ledger.number_of(p_name text) RETURNS int
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN coalesce(nullif(split_part(p_name, '.', 2), ''), '1')::int;

-- Whether p_name may adopt what was released to p_to: it is that log, or continues one of the same region, as p_to was one.
CREATE FUNCTION ledger.is_for(p_name text, p_to text) RETURNS boolean
LANGUAGE sql STABLE STRICT AS $$
    SELECT p_name = p_to
           OR split_part(p_name, '.', 1) = split_part(p_to, '.', 1) AND ledger.number_of(p_to) < ledger.number_of(p_name)
              AND EXISTS (SELECT FROM ledger.continuation AS c JOIN ledger.log AS l ON l.id = c.log WHERE l.name = p_name)
$$;

-- As before, and a log that continues another opens without partitions, as the next of its region, where no copy here says otherwise.
CREATE OR REPLACE FUNCTION ledger.note_opening(me ledger.log, p_data jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    before   text := p_data #>> '{continues,log}';
    closed   ledger.log;
    cut_at   bigint := (p_data #>> '{continues,position}')::bigint;
    cut_leaf bytea := decode(p_data #>> '{continues,leaf}', 'hex');
BEGIN
    IF p_data ->> 'origin' IS DISTINCT FROM me.origin THEN
        RAISE EXCEPTION 'log.opened names the origin %', p_data ->> 'origin' USING ERRCODE = 'CR005';
    END IF;
    IF p_data -> 'continues' IS NOT NULL THEN
        IF (split_part(before, '.', 1) = split_part(me.name, '.', 1) AND ledger.number_of(me.name) = ledger.number_of(before) + 1
            AND cut_at > 0 AND octet_length(cut_leaf) = 32 AND p_data -> 'partitions' = '[]'::jsonb) IS NOT TRUE THEN
            RAISE EXCEPTION 'log % does not go on with log %', me.name, before USING ERRCODE = 'CR005';
        END IF;
        SELECT * INTO closed FROM ledger.log WHERE name = before;
        IF closed.own OR EXISTS (SELECT FROM ledger.entry AS e WHERE e.log = closed.id AND e.position = cut_at AND e.leaf <> cut_leaf) THEN
            RAISE EXCEPTION 'log % goes on with log % behind an entry that is another one here', me.name, before USING ERRCODE = 'CR012';
        END IF;
        INSERT INTO ledger.continuation VALUES (me.id, before, cut_at, cut_leaf);
    END IF;
    INSERT INTO ledger.ownership (partition, epoch, log, since, cut, released_to)
        SELECT p, (p_data ->> 'epoch')::int, me.id, 1, n.cut, n.released_to  -- one that another log has said to be over is
          FROM jsonb_array_elements(p_data -> 'partitions') AS span
               CROSS JOIN generate_series((span ->> 0)::int, (span ->> 1)::int) AS p
               CROSS JOIN LATERAL ledger.said_later(me.name, p::smallint, (p_data ->> 'epoch')::int) AS n;
END $$;

-- What the next owner has said of a term of the log p_name before that was seen here: its cut, and, if it goes on with a closed log, itself.
CREATE FUNCTION ledger.said_later(p_name text, p_partition smallint, p_epoch int, OUT cut bigint, OUT released_to text)
LANGUAGE sql STABLE AS $$
    SELECT max(n.after_position), max(l.name) FILTER (WHERE c.after_log = n.after_log AND c.after_position = n.after_position)
      FROM ledger.ownership AS n
           JOIN ledger.log AS l ON l.id = n.log
           LEFT JOIN ledger.continuation AS c ON c.log = n.log
     WHERE n.partition = p_partition AND n.epoch = p_epoch + 1 AND n.after_log = p_name
$$;

-- As before; but what was released to a log that was closed, the one that continues it may have adopted.
CREATE OR REPLACE FUNCTION ledger.note_release(me ledger.log, p_position bigint, p_leaf bytea, p_data jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    due  bigint;
    done bigint;
BEGIN
    SELECT count(*) INTO due FROM ledger.spans(p_data -> 'partitions');
    UPDATE ledger.ownership AS w SET cut = p_position, released_to = p_data ->> 'to'
      FROM ledger.spans(p_data -> 'partitions') AS s
     WHERE w.partition = s.partition AND w.epoch = s.epoch AND w.log = me.id AND w.released_to IS NULL
           AND coalesce(w.cut, p_position) = p_position
           AND NOT EXISTS (SELECT FROM ledger.ownership AS n JOIN ledger.log AS l ON l.id = n.log
                            WHERE n.partition = s.partition AND n.epoch = s.epoch + 1
                                  AND (ledger.is_for(l.name, p_data ->> 'to')
                                       AND (n.after_log, n.after_position, n.after_leaf) = (me.name, p_position, p_leaf)) IS NOT TRUE);
    GET DIAGNOSTICS done = ROW_COUNT;
    IF (due > 0 AND due = done AND p_data ->> 'to' <> me.name) IS NOT TRUE THEN
        RAISE EXCEPTION 'log % releases what it does not own, or what was adopted otherwise', me.name USING ERRCODE = 'CR012';
    END IF;
END $$;

-- As before, and of a log that me continues, at the entry that its opening names, without a release: what that log owned there, and of
-- which nothing was counted behind it.
CREATE OR REPLACE FUNCTION ledger.note_adoption(me ledger.log, p_position bigint, p_data jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    giver    ledger.log;
    closed   ledger.continuation;
    cut_at   bigint := (p_data #>> '{cut,position}')::bigint;
    cut_leaf bytea := decode(p_data #>> '{cut,leaf}', 'hex');
    goes_on  boolean;
    held     bytea;
    fits     boolean;
BEGIN
    SELECT * INTO giver FROM ledger.log WHERE name = p_data ->> 'of';
    SELECT * INTO closed FROM ledger.continuation WHERE log = me.id;
    goes_on := (closed.after_log, closed.after_position, closed.after_leaf) IS NOT DISTINCT FROM (p_data ->> 'of', cut_at, cut_leaf);
    SELECT e.leaf INTO held FROM ledger.entry AS e WHERE e.log = giver.id AND e.position = cut_at;
    IF me.own OR held IS NOT NULL THEN
        SELECT held = cut_leaf
               AND bool_and(coalesce(w.log = giver.id
                                     AND CASE WHEN goes_on THEN w.cut IS NULL AND w.released_to IS NULL AND w.since <= cut_at
                                              ELSE w.cut = cut_at AND ledger.is_for(me.name, w.released_to) END, false)) INTO fits
          FROM ledger.spans(p_data -> 'partitions') AS s
               LEFT JOIN ledger.ownership AS w ON w.partition = s.partition AND w.epoch = s.epoch - 1;
    ELSE
        SELECT cut_leaf IS NOT NULL AND cut_at > 0 AND bool_and(w.log IS NULL OR coalesce(w.log = giver.id AND w.cut IS NULL, false)) INTO fits
          FROM ledger.spans(p_data -> 'partitions') AS s
               LEFT JOIN ledger.ownership AS w ON w.partition = s.partition AND w.epoch = s.epoch - 1;
    END IF;
    IF fits AND goes_on AND EXISTS (SELECT FROM ledger.entry AS e JOIN ledger.spans(p_data -> 'partitions') AS s ON s.partition = e.partition
                                     WHERE e.log = giver.id AND e.position > cut_at) THEN
        RAISE EXCEPTION 'log % goes on with log % behind position %, and more of it was counted here', me.name, giver.name, cut_at
            USING ERRCODE = 'CR012';
    END IF;
    IF me.own AND fits THEN  -- everything before is there, that of the log which me continues included
        SELECT bool_and(s.epoch - 1 - goes_on::int = (SELECT count(*) FROM ledger.ownership AS w
                                        WHERE w.partition = s.partition AND w.epoch < s.epoch AND w.released_to IS NOT NULL))
               AND (closed.log IS NULL
                    OR EXISTS (SELECT FROM ledger.entry AS e JOIN ledger.log AS l ON l.id = e.log
                                WHERE l.name = closed.after_log AND e.position = closed.after_position AND e.leaf = closed.after_leaf))
          INTO fits FROM ledger.spans(p_data -> 'partitions') AS s;
    END IF;
    IF fits IS NOT TRUE THEN
        RAISE EXCEPTION 'log % adopts what was not released to it at %/%', me.name, p_data ->> 'of', cut_at USING ERRCODE = 'CR012';
    END IF;
    UPDATE ledger.ownership AS w SET cut = cut_at, released_to = CASE WHEN goes_on THEN me.name ELSE w.released_to END
      FROM ledger.spans(p_data -> 'partitions') AS s
     WHERE w.partition = s.partition AND w.epoch = s.epoch - 1 AND w.cut IS NULL;
    INSERT INTO ledger.ownership (partition, epoch, log, since, after_log, after_position, after_leaf, cut, released_to)
        SELECT s.partition, s.epoch, me.id, p_position, p_data ->> 'of', cut_at, cut_leaf, n.cut, n.released_to
          FROM ledger.spans(p_data -> 'partitions') AS s
               CROSS JOIN LATERAL ledger.said_later(me.name, s.partition::smallint, s.epoch) AS n;
END $$;

-- As before; and where another log goes on with this one, the entry there is the one that it names, and the log owned there what was
-- adopted.
CREATE OR REPLACE FUNCTION ledger.refuse_unreleased(p_name text, p_log smallint, p_last bigint) RETURNS void
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF EXISTS (SELECT FROM ledger.ownership AS n
                WHERE n.after_log = p_name AND n.after_position <= p_last
                      AND NOT EXISTS (SELECT FROM ledger.ownership AS w
                                       WHERE w.partition = n.partition AND w.epoch = n.epoch - 1 AND w.log = p_log
                                             AND w.released_to IS NOT NULL AND w.cut = n.after_position AND w.since <= w.cut)) THEN
        RAISE EXCEPTION 'another log has adopted what log % has not released', p_name USING ERRCODE = 'CR012';
    ELSIF EXISTS (SELECT FROM ledger.continuation AS c JOIN ledger.entry AS e ON e.log = p_log AND e.position = c.after_position
                   WHERE c.after_log = p_name AND e.leaf <> c.after_leaf) THEN
        RAISE EXCEPTION 'another log goes on with log % behind another entry', p_name USING ERRCODE = 'CR012';
    END IF;
END $$;

-- As before; and a log that goes on with a closed one waits until all of that is here, its erasures included.
CREATE OR REPLACE FUNCTION ledger.clear_to_write(p_log smallint, p_by text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    missing record;
BEGIN
    SELECT c.after_log, c.after_position INTO missing FROM ledger.continuation AS c
     WHERE c.log = p_log
           AND NOT EXISTS (SELECT FROM ledger.entry AS e JOIN ledger.log AS l ON l.id = e.log
                            WHERE l.name = c.after_log AND e.position = c.after_position AND e.leaf = c.after_leaf);
    IF FOUND THEN
        RAISE EXCEPTION 'the copy of the closed log % does not go up to position % yet', missing.after_log, missing.after_position
            USING ERRCODE = 'CR011';
    END IF;
    UPDATE ledger.clearance
       SET postmaster = pg_postmaster_start_time(), by = p_by, at = now(),
           database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
     WHERE log = p_log;
END $$;

REVOKE ALL ON FUNCTION ledger.number_of, ledger.is_for, ledger.said_later FROM PUBLIC;
GRANT SELECT ON ledger.continuation TO countroom_reader;
GRANT EXECUTE ON FUNCTION ledger.is_for, ledger.number_of TO countroom_reader;
RESET ROLE;
