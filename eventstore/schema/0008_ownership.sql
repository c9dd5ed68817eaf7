-- Ownership moves (docs/reference/record-format.md, ADR 40): a log releases partitions, the log named there adopts them.
SET LOCAL ROLE countroom_ledger;

ALTER TABLE ledger.ownership
    ADD released_to    text COLLATE "C",
    ADD after_log      text COLLATE "C",
    ADD after_position bigint,
    ADD after_leaf     bytea;
CREATE INDEX ON ledger.ownership (after_log, after_position) WHERE after_log IS NOT NULL;
COMMENT ON COLUMN ledger.ownership.released_to IS 'The log that may adopt the partition; null until the log of this row has said so.';
COMMENT ON COLUMN ledger.ownership.after_log IS 'By an adoption: the log of the epoch before, and the entry (after_position, after_leaf) at which that was cut.';

-- Partitions at epochs, of ranges [first, last, epoch].
CREATE FUNCTION ledger.spans(p_spans jsonb, OUT partition int, OUT epoch int) RETURNS SETOF record
LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT p, (span ->> 2)::int FROM jsonb_array_elements(p_spans) AS span, generate_series((span ->> 0)::int, (span ->> 1)::int) AS p
$$;

DROP FUNCTION ledger.note_ownership(smallint, bigint, text, bytea);

-- Follows what a log's own events say of ownership, and refuses two owners of one epoch. The first entry opens the log.
CREATE FUNCTION ledger.note_ownership(p_log smallint, p_position bigint, p_type text, p_stream text, p_leaf bytea, p_data jsonb)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    me ledger.log;
BEGIN
    -- One at a time over all logs: whoever comes second sees what the first has changed, and ledger.log.epochs follows both.
    PERFORM pg_advisory_xact_lock(1129272146, 0);
    SELECT * INTO me FROM ledger.log WHERE id = p_log;
    IF (p_type = 'log.opened') <> (p_position = 1) THEN
        RAISE EXCEPTION 'a log is opened by its first entry, and only once' USING ERRCODE = 'CR005';
    ELSIF p_stream <> 'region-' || me.name || '-log' THEN
        RAISE EXCEPTION 'a log speaks of ownership on its own stream only' USING ERRCODE = 'CR005';
    ELSIF p_type = 'log.opened' THEN
        PERFORM ledger.note_opening(me, p_data);
    ELSIF p_type = 'log.released' THEN
        PERFORM ledger.note_release(me, p_position, p_leaf, p_data);
    ELSE
        PERFORM ledger.note_adoption(me, p_position, p_data);
    END IF;
EXCEPTION WHEN unique_violation THEN
    RAISE EXCEPTION 'two logs own the same partition in the same epoch' USING ERRCODE = 'CR006';
END $$;

CREATE FUNCTION ledger.note_opening(me ledger.log, p_data jsonb) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_data ->> 'origin' IS DISTINCT FROM me.origin THEN
        RAISE EXCEPTION 'log.opened names the origin %', p_data ->> 'origin' USING ERRCODE = 'CR005';
    END IF;
    INSERT INTO ledger.ownership (partition, epoch, log, since, cut)
        SELECT p, (p_data ->> 'epoch')::int, me.id, 1,  -- one that another log has said to be over is
               (SELECT w.after_position FROM ledger.ownership AS w
                 WHERE w.partition = p AND w.epoch = (p_data ->> 'epoch')::int + 1 AND w.after_log = me.name)
          FROM jsonb_array_elements(p_data -> 'partitions') AS span,
               generate_series((span ->> 0)::int, (span ->> 1)::int) AS p;
END $$;

-- This entry is the cut. An adoption may have come before it, in a copy: then both must say the same.
CREATE FUNCTION ledger.note_release(me ledger.log, p_position bigint, p_leaf bytea, p_data jsonb) RETURNS void
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
                                  AND (l.name, n.after_log, n.after_position, n.after_leaf)
                                      IS DISTINCT FROM (p_data ->> 'to', me.name, p_position, p_leaf));
    GET DIAGNOSTICS done = ROW_COUNT;
    IF (due > 0 AND due = done AND p_data ->> 'to' <> me.name) IS NOT TRUE THEN
        RAISE EXCEPTION 'log % releases what it does not own, or what was adopted otherwise', me.name USING ERRCODE = 'CR012';
    END IF;
END $$;

-- A log written here adopts only what it can see to be released to it, by its copy; and what was released before, perhaps by a
-- third log, of which the copy may be behind. So does a copy (but for the third log), where the entries of the other
-- log have come so far; else it is taken as stated until they come (refuse_unreleased).
CREATE FUNCTION ledger.note_adoption(me ledger.log, p_position bigint, p_data jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    giver    ledger.log;
    cut_at   bigint := (p_data #>> '{cut,position}')::bigint;
    cut_leaf bytea := decode(p_data #>> '{cut,leaf}', 'hex');
    held     bytea;
    fits     boolean;
BEGIN
    SELECT * INTO giver FROM ledger.log WHERE name = p_data ->> 'of';
    SELECT e.leaf INTO held FROM ledger.entry AS e WHERE e.log = giver.id AND e.position = cut_at;
    IF me.own OR held IS NOT NULL THEN
        SELECT held = cut_leaf AND bool_and(coalesce(w.log = giver.id AND w.cut = cut_at AND w.released_to = me.name, false)) INTO fits
          FROM ledger.spans(p_data -> 'partitions') AS s
               LEFT JOIN ledger.ownership AS w ON w.partition = s.partition AND w.epoch = s.epoch - 1;
    ELSE
        SELECT cut_leaf IS NOT NULL AND cut_at > 0 AND bool_and(w.log IS NULL OR coalesce(w.log = giver.id AND w.cut IS NULL, false)) INTO fits
          FROM ledger.spans(p_data -> 'partitions') AS s
               LEFT JOIN ledger.ownership AS w ON w.partition = s.partition AND w.epoch = s.epoch - 1;
    END IF;
    IF me.own AND fits THEN
        SELECT bool_and(s.epoch - 1 = (SELECT count(*) FROM ledger.ownership AS w
                                        WHERE w.partition = s.partition AND w.epoch < s.epoch AND w.released_to IS NOT NULL))
          INTO fits FROM ledger.spans(p_data -> 'partitions') AS s;
    END IF;
    IF fits IS NOT TRUE THEN
        RAISE EXCEPTION 'log % adopts what was not released to it at %/%', me.name, p_data ->> 'of', cut_at USING ERRCODE = 'CR012';
    END IF;
    UPDATE ledger.ownership AS w SET cut = cut_at
      FROM ledger.spans(p_data -> 'partitions') AS s
     WHERE w.partition = s.partition AND w.epoch = s.epoch - 1 AND w.cut IS NULL;
    INSERT INTO ledger.ownership (partition, epoch, log, since, after_log, after_position, after_leaf)
        SELECT s.partition, s.epoch, me.id, p_position, p_data ->> 'of', cut_at, cut_leaf
          FROM ledger.spans(p_data -> 'partitions') AS s;
END $$;

-- What another log has adopted from this one, up to p_last, this one has released.
CREATE FUNCTION ledger.refuse_unreleased(p_name text, p_log smallint, p_last bigint) RETURNS void
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF EXISTS (SELECT FROM ledger.ownership AS n
                WHERE n.after_log = p_name AND n.after_position <= p_last
                      AND NOT EXISTS (SELECT FROM ledger.ownership AS w
                                       WHERE w.partition = n.partition AND w.epoch = n.epoch - 1 AND w.log = p_log
                                             AND w.released_to IS NOT NULL AND w.cut = n.after_position)) THEN
        RAISE EXCEPTION 'another log has adopted what log % has not released', p_name USING ERRCODE = 'CR012';
    END IF;
END $$;

DROP FUNCTION ledger.leave_out_foreign(smallint, text, ledger.indexed);

-- An entry counts iff it stands on its log's own region streams, or within a term of its log as the owner of (partition, epoch).
-- The others are kept, with an empty index. p_first: the position of the first one.
CREATE FUNCTION ledger.leave_out_foreign(p_log smallint, p_name text, p_first bigint, x ledger.indexed) RETURNS ledger.indexed
LANGUAGE plpgsql STABLE AS $$
DECLARE
    counts boolean[];
BEGIN
    SELECT array_agg(CASE WHEN e.partition IS NULL THEN starts_with(e.stream, 'region-' || p_name || '-')
                          ELSE EXISTS (SELECT FROM ledger.ownership AS w
                                        WHERE w.partition = e.partition AND w.epoch = e.epoch AND w.log = p_log
                                              AND p_first + e.n - 1 > w.since AND (p_first + e.n - 1 > w.cut) IS NOT TRUE
                                              AND e.partition = ledger.partition_of(e.stream)) END ORDER BY e.n)
      INTO counts
      FROM unnest(x.streams, x.partitions, x.epochs) WITH ORDINALITY AS e (stream, partition, epoch, n);
    IF true = ALL (counts) THEN
        RETURN x;
    END IF;
    SELECT array_agg(CASE WHEN c THEN e.stream END), array_agg(CASE WHEN c THEN e.version END), array_agg(CASE WHEN c THEN e.type END),
           array_agg(CASE WHEN c THEN e.partition END), array_agg(CASE WHEN c THEN e.command END),
           array_agg(CASE WHEN c THEN e.claims END)
      INTO x.streams, x.versions, x.types, x.partitions, x.commands, x.claims
      FROM unnest(counts, x.streams, x.versions, x.types, x.partitions, x.commands, x.claims)
               AS e (c, stream, version, type, partition, command, claims);
    RETURN x;
END $$;

CREATE OR REPLACE FUNCTION ledger.extend(p_log smallint, p_first bigint, p_recorded bigint[], p_leaves bytea[], p_bodies bytea[],
                              x ledger.indexed) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ledger.entry (log, position, recorded, leaf, body, version, partition, command_id, stream, type)
        SELECT p_log, p_first + e.n - 1, e.recorded, e.leaf, e.body,
               e.version, e.partition, coalesce(e.claims, CASE WHEN e.i = 1 THEN e.command END), e.stream, e.type
          FROM unnest(p_recorded, p_leaves, p_bodies, x.versions, x.partitions, x.claims, x.nths, x.commands, x.streams, x.types)
                   WITH ORDINALITY AS e (recorded, leaf, body, version, partition, claims, i, command, stream, type, n);
    IF p_first = 1 OR x.types && ARRAY['log.opened', 'log.released', 'log.adopted'] THEN
        PERFORM ledger.note_ownership(p_log, p_first + e.n - 1, e.type, e.stream, e.leaf, convert_from(e.body, 'UTF8')::jsonb -> 'data')
           FROM unnest(x.types, x.streams, p_leaves, p_bodies) WITH ORDINALITY AS e (type, stream, leaf, body, n)
          WHERE e.type IN ('log.opened', 'log.released', 'log.adopted') OR p_first + e.n = 2;
    END IF;
    PERFORM pg_notify('ledger', p_log || ' ' || p_first + cardinality(p_bodies) - 1);
END $$;

-- As before, and refuses to change ownership.
CREATE OR REPLACE FUNCTION ledger.append_usual(
    p_log smallint, p_first bigint, p_recorded bigint, p_leaves bytea[], p_epochs int[], p_bodies bytea[],
    p_ids uuid[], p_nths int[], p_totals int[], p_kths bigint[], p_read_streams text[], p_read_versions bigint[])
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE appended bigint;
BEGIN
    WITH event AS MATERIALIZED (
        SELECT e.*,
               starts_with(e.text, '{"stream":"' || e.stream || '","version":' || e.version || ',"type":"' || e.type
                                   || '","partition":' || e.partition || ',"epoch":' || p_epochs[e.partition + 1]
                                   || ',"command":{"i":' || e.i || ',"n":' || e.total
                                   || ',"id":"' || encode(uuid_send(e.id), 'hex') || '"')
               AND p_epochs[e.partition + 1] > 0
               AND e.text IS JSON OBJECT WITH UNIQUE KEYS AND octet_length(e.body) <= 61440
               AND strpos(e.text, '\') = 0 AND strpos(e.text, 'claims') = 0  -- no name is spelt otherwise, and none is `claims`
               AND e.type ~ '^[a-z][a-z0-9_]*(\.[a-z0-9_]+)+$' AND e.type NOT IN ('log.opened', 'log.released', 'log.adopted') AND NOT starts_with(e.stream, 'region-')
               AND (e.version > 1 OR e.stream ~ '^[a-z][a-z_]*-[0-7][0-9a-hjkmnp-tv-z]{25}$') AS usual
          FROM (SELECT e.n, e.leaf, e.body, e.id, coalesce(e.i, 1) AS i, coalesce(e.total, 1) AS total, e.text, e.stream,
                       split_part(e.text, '"', 10) AS type, ledger.partition_of(e.stream) AS partition,
                       coalesce(e.k, 1) + coalesce((SELECT k.version FROM ledger.entry AS k WHERE k.stream = e.stream
                                                     ORDER BY k.version DESC LIMIT 1), 0) AS version
                  FROM (SELECT e.*, split_part(e.text, '"', 4) AS stream
                          FROM (SELECT e.*, convert_from(e.body, 'UTF8') AS text
                                  FROM (SELECT generate_subscripts(p_leaves, 1) AS n, unnest(p_leaves) AS leaf,
                                               unnest(p_bodies) AS body, unnest(p_ids) AS id, unnest(p_nths) AS i,
                                               unnest(p_totals) AS total, unnest(p_kths) AS k) AS e
                                OFFSET 0) AS e
                        OFFSET 0) AS e
                OFFSET 0) AS e)
    INSERT INTO ledger.entry (log, position, recorded, leaf, body, version, partition, command_id, stream, type)
        SELECT p_log, p_first + e.n - 1, p_recorded + e.n - 1, e.leaf, e.body,
               e.version, e.partition, CASE WHEN e.i = 1 THEN e.id END, e.stream, e.type
          FROM event AS e
         WHERE (SELECT bool_and(usual IS TRUE) FROM event)
               AND NOT EXISTS (SELECT FROM (SELECT unnest(p_read_streams) AS stream, unnest(p_read_versions) AS version) AS r
                                WHERE (r.version = coalesce((SELECT k.version FROM ledger.entry AS k WHERE k.stream = r.stream
                                                              ORDER BY k.version DESC LIMIT 1), 0)
                                       AND (p_epochs[ledger.partition_of(r.stream) + 1] > 0 OR starts_with(r.stream, 'region-'))
                                       AND r.stream NOT IN (SELECT stream FROM event)) IS NOT TRUE)
               AND NOT EXISTS (SELECT FROM (SELECT unnest(p_ids) AS id) AS c
                                           JOIN ledger.entry AS k ON k.command_id = c.id AND k.log <> p_log);
    GET DIAGNOSTICS appended = ROW_COUNT;
    RETURN appended > 0;
EXCEPTION WHEN unique_violation THEN
    RETURN false;
END $$;

-- As before; what changes ownership comes alone, since every command behind it is judged by it.
CREATE OR REPLACE FUNCTION ledger.append_each(
    p_log smallint, p_name text, p_last bigint, p_leaf bytea, p_recorded bigint, p_ids uuid[], p_counts int[], p_bodies bytea[],
    p_read_of int[], p_read_streams text[], p_read_versions bigint[],
    OUT outcomes smallint[], OUT logs smallint[], OUT positions bigint[], OUT leaves bytea[])
LANGUAGE plpgsql AS $$
DECLARE
    x      ledger.indexed;
    bodies bytea[] := p_bodies;
    of     int[];
    nth    int[];
    next   bigint;
BEGIN
    SELECT coalesce(array_agg(c), '{}'), coalesce(array_agg(i), '{}') INTO of, nth
      FROM unnest(p_counts) WITH ORDINALITY AS q (events, c), generate_series(1, q.events) AS i;
    IF cardinality(of) <> cardinality(p_bodies) OR cardinality(p_ids) <> cardinality(p_counts) THEN
        RAISE EXCEPTION 'the counts do not fit the bodies' USING ERRCODE = 'CR005';
    END IF;
    x := ledger.read_bodies(p_bodies);
    PERFORM ledger.refuse_malformed(p_name, p_ids, p_counts, of, nth, x);
    IF cardinality(p_ids) > 1 AND x.types && ARRAY['log.released', 'log.adopted'] THEN
        RAISE EXCEPTION 'what changes ownership is appended by itself' USING ERRCODE = 'CR007';
    END IF;
    IF pg_column_size(p_bodies) > 262144 THEN
        PERFORM ledger.refuse_large(of, p_bodies);
    END IF;
    IF cardinality(p_ids) > 1 OR num_nonnulls(VARIADIC x.claims) > 0 THEN
        PERFORM ledger.refuse_overlap(p_ids, of, x, p_read_of, p_read_streams);
    END IF;
    SELECT v.outcomes, v.logs, v.positions INTO outcomes, logs, positions
      FROM ledger.verdicts(p_log, p_ids, of, x, p_read_of, p_read_streams, p_read_versions) AS v;

    IF 0 <> ANY (outcomes) THEN  -- the refused are left out
        SELECT coalesce(array_agg(b ORDER BY n), '{}') INTO bodies
          FROM unnest(of, p_bodies) WITH ORDINALITY AS e (o, b, n) WHERE outcomes[o] = 0;
        x := ledger.read_bodies(bodies);
    END IF;
    next := p_last + 1;
    FOR c IN 1 .. cardinality(p_ids) LOOP
        IF outcomes[c] = 0 THEN
            positions[c] := next;
            next := next + p_counts[c];
        END IF;
    END LOOP;
    leaves := '{}';
    IF bodies <> '{}' THEN
        leaves := (ledger.chain(p_leaf, p_last + 1, p_recorded, bodies)).leaves;
        PERFORM ledger.extend(p_log, p_last + 1, ARRAY(SELECT generate_series(p_recorded, p_recorded + cardinality(bodies) - 1)),
                              leaves, bodies, x);
    END IF;
END $$;

-- As before, in stretches that end where ownership changes.
CREATE OR REPLACE FUNCTION ledger.append_copy(p_log smallint, p_first bigint, p_recorded bigint[], p_leaves bytea[], p_bodies bytea[])
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
-- A plan is cached for the session, perhaps when the log was empty: only index look-ups stay right.
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    head record;
    e    record;
    x    ledger.indexed;
    size int := cardinality(p_bodies);
    bad  bigint;
    start int := 1;
    stop  int;
BEGIN
    PERFORM ledger.refuse_unsafe_session();
    x := ledger.read_bodies(p_bodies);
    SELECT * INTO head FROM ledger.lock_head(p_log, false);
    IF p_first <> head.last + 1 THEN
        RAISE EXCEPTION 'position % is next, not %', head.last + 1, p_first USING ERRCODE = 'CR008';
    END IF;
    FOR e IN SELECT * FROM unnest(p_recorded, p_leaves, p_bodies) WITH ORDINALITY AS e (recorded, leaf, body, n) LOOP
        head.leaf := sha256('\x00'::bytea || head.leaf || int8send(p_first + e.n - 1) || int8send(e.recorded) || e.body);
        IF head.leaf IS DISTINCT FROM e.leaf OR e.recorded <= head.recorded THEN
            RAISE EXCEPTION 'position % does not follow from its predecessor', p_first + e.n - 1 USING ERRCODE = 'CR009';
        END IF;
        head.recorded := e.recorded;
    END LOOP;
    SELECT p_first + c.n - 1 INTO bad
      FROM unnest(x.commands, x.nths, x.totals) WITH ORDINALITY AS c (id, i, total, n)
     WHERE (CASE WHEN c.i = 1 THEN c.n = 1 OR x.nths[c.n - 1] = x.totals[c.n - 1]
                 ELSE c.i = x.nths[c.n - 1] + 1 AND c.id = x.commands[c.n - 1] AND c.total = x.totals[c.n - 1] END
            AND c.i <= c.total AND (c.n < size OR c.i = c.total)) IS NOT TRUE
     ORDER BY c.n LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'position %: a command is not whole', bad USING ERRCODE = 'CR010';
    END IF;
    -- What changes ownership ends a stretch: the rest of the frame counts by it.
    FOR stop IN SELECT n FROM unnest(x.types, x.streams) WITH ORDINALITY AS t (type, stream, n)
                 WHERE n = size OR (type IN ('log.opened', 'log.released', 'log.adopted') AND stream = 'region-' || head.name || '-log')
                 ORDER BY n LOOP
        PERFORM ledger.extend(p_log, p_first + start - 1, p_recorded[start:stop], p_leaves[start:stop], p_bodies[start:stop],
                              ledger.leave_out_foreign(p_log, head.name, p_first + start - 1,
                                  CASE WHEN start = 1 AND stop = size THEN x ELSE ledger.read_bodies(p_bodies[start:stop]) END));
        start := stop + 1;
    END LOOP;
    PERFORM ledger.refuse_unreleased(head.name, p_log, p_first + size - 1);
    RETURN p_first + size - 1;
END $$;

REVOKE ALL ON FUNCTION ledger.spans, ledger.note_ownership, ledger.note_opening, ledger.note_release, ledger.note_adoption,
    ledger.refuse_unreleased, ledger.leave_out_foreign FROM PUBLIC;
RESET ROLE;
