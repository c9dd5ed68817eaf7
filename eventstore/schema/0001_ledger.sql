-- The log (docs/reference/record-format.md). Its tables belong to countroom_ledger, which nobody logs in as; services only
-- SELECT and EXECUTE the doors below. Everything here is written once: UPDATE, DELETE and TRUNCATE are refused twice, by
-- grants and by triggers.

CREATE SCHEMA ledger AUTHORIZATION countroom_ledger;
SET LOCAL ROLE countroom_ledger;

CREATE TABLE ledger.log (
    id      smallint PRIMARY KEY CHECK (id > 0),
    name    text COLLATE "C" NOT NULL UNIQUE CHECK (name ~ '^[a-z][a-z0-9]*(\.[1-9][0-9]*)?$'),
    origin  text COLLATE "C" NOT NULL UNIQUE CHECK (origin LIKE 'countroom.%/%'),
    genesis bytea NOT NULL CHECK (octet_length(genesis) = 32),
    own     boolean NOT NULL,
    epochs  integer[]
);
COMMENT ON TABLE ledger.log IS 'The logs held here: those written here (own) and verified copies of other regions'' logs.';
COMMENT ON COLUMN ledger.log.epochs IS 'Follows ledger.ownership: [p + 1] = the epoch in which the log owns partition p now, else 0.';

CREATE TABLE ledger.entry (
    log        smallint NOT NULL,
    position   bigint   NOT NULL,
    recorded   bigint   NOT NULL,
    leaf       bytea    NOT NULL,
    body       bytea    NOT NULL,
    -- An index over the body, null where the entry does not count:
    version    bigint,
    partition  smallint,
    command_id uuid,
    stream     text COLLATE "C",
    type       text COLLATE "C"
) PARTITION BY LIST (log);
ALTER TABLE ledger.entry ALTER leaf SET STORAGE PLAIN, ALTER body SET STORAGE MAIN;
COMMENT ON COLUMN ledger.entry.recorded IS 'microseconds since 1970-01-01 UTC';
COMMENT ON COLUMN ledger.entry.command_id IS 'claims, else command.id where i = 1, else null';

CREATE TABLE ledger.ownership (
    partition smallint NOT NULL CHECK (partition BETWEEN 0 AND 255),
    epoch     integer  NOT NULL CHECK (epoch > 0),
    log       smallint NOT NULL REFERENCES ledger.log,
    since     bigint   NOT NULL,
    cut       bigint,
    PRIMARY KEY (partition, epoch)
);
COMMENT ON TABLE ledger.ownership IS 'Which log owned a partition at an epoch, from the logs'' own events; cut = the last position that counts.';

CREATE FUNCTION ledger.follow_ownership() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE ledger.log AS l SET epochs = now.epochs
      FROM (SELECT l.id, ARRAY(SELECT coalesce((SELECT max(w.epoch) FROM ledger.ownership AS w
                                                 WHERE w.partition = p AND w.log = l.id AND w.cut IS NULL), 0)
                                 FROM generate_series(0, 255) AS p) AS epochs
              FROM ledger.log AS l) AS now
     WHERE l.id = now.id AND l.epochs IS DISTINCT FROM now.epochs;
    RETURN NULL;
END $$;
CREATE TRIGGER epochs_follow AFTER INSERT OR UPDATE OR DELETE ON ledger.ownership
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.follow_ownership();

CREATE TABLE ledger.snapshot (
    stream  text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,
    leaf    bytea  NOT NULL,
    schema  text   NOT NULL,
    state   bytea  NOT NULL
);
COMMENT ON TABLE ledger.snapshot IS 'Folded states, a cache: verify folds them again. leaf = that of the last entry folded.';

CREATE FUNCTION ledger.refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '% on % is refused: the log is written once', TG_OP, TG_TABLE_NAME USING ERRCODE = 'CR001';
END $$;
CREATE TRIGGER written_once BEFORE UPDATE OR DELETE ON ledger.entry FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON ledger.entry FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

-- Opening: each log has a table partition of its own, with its own narrow indexes.
CREATE FUNCTION ledger.register_log(p_name text, p_origin text, p_own boolean) RETURNS smallint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known ledger.log;
    made  smallint;
    part  text;
BEGIN
    LOCK TABLE ledger.log IN SHARE ROW EXCLUSIVE MODE;
    SELECT * INTO known FROM ledger.log WHERE name = p_name;
    IF FOUND THEN
        IF known.origin <> p_origin OR known.own <> p_own THEN
            RAISE EXCEPTION 'log % is known as % (own: %)', p_name, known.origin, known.own USING ERRCODE = 'CR002';
        END IF;
        RETURN known.id;
    END IF;
    SELECT coalesce(max(id), 0) + 1 INTO made FROM ledger.log;
    INSERT INTO ledger.log VALUES
        (made, p_name, p_origin, sha256(convert_to('countroom/log/v1' || chr(10) || p_origin, 'UTF8')), p_own, NULL);
    part := format('entry_%s', made);
    EXECUTE format('CREATE TABLE ledger.%I PARTITION OF ledger.entry (PRIMARY KEY (position)) FOR VALUES IN (%s)', part, made);
    EXECUTE format('CREATE UNIQUE INDEX ON ledger.%I (stream, version)', part);
    EXECUTE format('CREATE UNIQUE INDEX ON ledger.%I (command_id)', part);
    EXECUTE format('CREATE TRIGGER never_truncated BEFORE TRUNCATE ON ledger.%I
                    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change()', part);
    EXECUTE format('GRANT SELECT ON ledger.%I TO countroom_reader', part);
    RETURN made;
END $$;

-- One concern each (they run inside a door and inherit its pinned search_path) -----------------------------------------------------------------------------------------------------

CREATE FUNCTION ledger.refuse_unsafe_session() RETURNS void
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the log is written at READ COMMITTED only: an older snapshot does not see its newest entry'
            USING ERRCODE = 'CR003';
    END IF;
    IF current_setting('fsync') = 'off' OR current_setting('synchronous_commit') = 'off' THEN
        RAISE EXCEPTION 'fsync or synchronous_commit is off: an acknowledged command could be lost' USING ERRCODE = 'CR003';
    END IF;
END $$;

-- Waits for the log's one writer to commit, then reads the newest entry. (No head row that each batch updates: under a held
-- snapshot its dead versions cost five times the throughput.)
CREATE FUNCTION ledger.lock_head(p_log smallint, p_own boolean, OUT name text, OUT last bigint, OUT recorded bigint, OUT leaf bytea,
                              OUT epochs int[])
LANGUAGE plpgsql AS $$
DECLARE
    is_own  boolean;
    cleared boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(1129272146, p_log);  -- 'CORR', and the log
    SELECT l.own, l.name, coalesce(e.position, 0), coalesce(e.recorded, 0), coalesce(e.leaf, l.genesis), l.epochs,
           c.log IS NULL OR c.postmaster = pg_postmaster_start_time()
               AND c.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
      INTO is_own, name, last, recorded, leaf, epochs, cleared
      FROM ledger.log AS l
           LEFT JOIN LATERAL (SELECT * FROM ledger.entry AS e WHERE e.log = p_log ORDER BY e.position DESC LIMIT 1) AS e ON true
           LEFT JOIN ledger.clearance AS c ON c.log = p_log
     WHERE l.id = p_log;
    IF is_own IS DISTINCT FROM p_own THEN
        RAISE EXCEPTION 'log % is not % here', p_log, CASE WHEN p_own THEN 'written' ELSE 'copied' END USING ERRCODE = 'CR002';
    ELSIF p_own AND cleared IS NOT TRUE THEN
        RAISE EXCEPTION 'log % is read-only until it was compared with its signed head and its copies', p_log USING ERRCODE = 'CR011';
    END IF;
END $$;

-- A TypeID suffix is a UUID in base32; its last byte is the partition.
CREATE FUNCTION ledger.partition_of(p_stream text) RETURNS smallint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (((strpos('0123456789abcdefghjkmnpqrstvwxyz', left(right(p_stream, 2), 1)) - 1) & 7) * 32
        + strpos('0123456789abcdefghjkmnpqrstvwxyz', right(p_stream, 1)) - 1)::smallint;

-- What the index columns are made of, a member for each, with the values of all events of a call in their order.
CREATE TYPE ledger.indexed AS (
    streams text[], versions bigint[], types text[], partitions smallint[], epochs int[],
    commands uuid[], nths int[], totals int[], claims uuid[]);
CREATE TYPE ledger.command_part AS (id uuid, i int, n int);

-- Reads the bodies once. One that is not a JSON object with unique names fails the whole call.
CREATE FUNCTION ledger.read_bodies(p_bodies bytea[]) RETURNS ledger.indexed
LANGUAGE plpgsql STABLE AS $$
DECLARE
    x       ledger.indexed;
    largest int;
    sound   boolean;
BEGIN
    SELECT array_agg(j.stream), array_agg(j.version), array_agg(j.type), array_agg(j.partition), array_agg(j.epoch),
           array_agg((j.command).id), array_agg((j.command).i), array_agg((j.command).n), array_agg(j.claims),
           bool_and(b.body IS JSON OBJECT WITH UNIQUE KEYS), max(octet_length(b.body))
      INTO x.streams, x.versions, x.types, x.partitions, x.epochs, x.commands, x.nths, x.totals, x.claims, sound, largest
      FROM (SELECT convert_from(b, 'UTF8') AS body FROM unnest(p_bodies) AS b OFFSET 0) AS b,
           LATERAL json_to_record(b.body::json)
               AS j (stream text, version bigint, type text, partition smallint, epoch int, command ledger.command_part, claims uuid);
    IF largest > 61440 THEN
        RAISE EXCEPTION 'a body is larger than 60 KiB' USING ERRCODE = 'CR004';
    ELSIF NOT sound THEN
        RAISE EXCEPTION 'a body is not a JSON object with unique names' USING ERRCODE = 'CR005';
    END IF;
    RETURN x;
END $$;

-- Follows what a log's own events say of ownership, and refuses two owners of one epoch. The first entry opens the log.
CREATE FUNCTION ledger.note_ownership(p_log smallint, p_position bigint, p_type text, p_body bytea) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    opened jsonb := convert_from(p_body, 'UTF8')::jsonb -> 'data';
BEGIN
    IF (p_type = 'log.opened') <> (p_position = 1) THEN
        RAISE EXCEPTION 'a log is opened by its first entry, and only once' USING ERRCODE = 'CR005';
    ELSIF p_position > 1 THEN
        RETURN;
    ELSIF opened ->> 'origin' IS DISTINCT FROM (SELECT origin FROM ledger.log WHERE id = p_log) THEN
        RAISE EXCEPTION 'log.opened names the origin %', opened ->> 'origin' USING ERRCODE = 'CR005';
    END IF;
    INSERT INTO ledger.ownership (partition, epoch, log, since)
        SELECT p, (opened ->> 'epoch')::int, p_log, p_position
          FROM jsonb_array_elements(opened -> 'partitions') AS span,
               generate_series((span ->> 0)::int, (span ->> 1)::int) AS p;
EXCEPTION WHEN unique_violation THEN
    RAISE EXCEPTION 'two logs open with the same partition' USING ERRCODE = 'CR006';
END $$;

CREATE FUNCTION ledger.extend(p_log smallint, p_first bigint, p_recorded bigint[], p_leaves bytea[], p_bodies bytea[],
                              x ledger.indexed) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ledger.entry (log, position, recorded, leaf, body, version, partition, command_id, stream, type)
        SELECT p_log, p_first + e.n - 1, e.recorded, e.leaf, e.body,
               e.version, e.partition, coalesce(e.claims, CASE WHEN e.i = 1 THEN e.command END), e.stream, e.type
          FROM unnest(p_recorded, p_leaves, p_bodies, x.versions, x.partitions, x.claims, x.nths, x.commands, x.streams, x.types)
                   WITH ORDINALITY AS e (recorded, leaf, body, version, partition, claims, i, command, stream, type, n);
    IF p_first = 1 OR 'log.opened' = ANY (x.types) THEN
        PERFORM ledger.note_ownership(p_log, p_first + e.n - 1, e.type, e.body)
           FROM unnest(x.types, p_bodies) WITH ORDINALITY AS e (type, body, n) WHERE e.type = 'log.opened' OR p_first + e.n = 2;
    END IF;
    PERFORM pg_notify('ledger', p_log || ' ' || p_first + cardinality(p_bodies) - 1);
END $$;

-- What only a faulty caller sends. It fails the whole call; the writer then sends the commands one by one. p_of: the
-- command of each event, p_nth: its place in it. (What already stands in a stream has shown the shape of its name.)
CREATE FUNCTION ledger.refuse_malformed(
    p_name text, p_ids uuid[], p_counts int[], p_of int[], p_nth int[], x ledger.indexed) RETURNS void
LANGUAGE plpgsql STABLE AS $$
DECLARE bad record;
BEGIN
    SELECT e.o, e.i, e.stream INTO bad
      FROM unnest(p_of, p_nth, x.commands, x.nths, x.totals, x.streams, x.versions, x.types, x.partitions, x.epochs)
               AS e (o, nth, command, i, total, stream, version, type, partition, epoch)
     WHERE (e.command = p_ids[e.o] AND e.i = e.nth AND e.total = p_counts[e.o] AND e.version > 0
            AND e.type ~ '^[a-z][a-z0-9_]*(\.[a-z0-9_]+)+$'
            AND CASE WHEN starts_with(e.stream, 'region-')
                     THEN e.stream ~ ('^region-' || replace(p_name, '.', '\.') || '-[a-z]+(_[0-7][0-9a-hjkmnp-tv-z]{25})?$')
                          AND e.partition IS NULL AND e.epoch IS NULL
                     ELSE (e.version > 1 OR e.stream ~ '^[a-z][a-z_]*-[0-7][0-9a-hjkmnp-tv-z]+$'
                                              AND strpos(e.stream, '-') = length(e.stream) - 26)
                          AND e.partition = ledger.partition_of(e.stream) AND e.epoch > 0 END) IS NOT TRUE
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'event % of command % on % is malformed', bad.i, p_ids[bad.o], bad.stream USING ERRCODE = 'CR005';
    END IF;
    IF cardinality(p_of) = cardinality(p_ids) AND 1 = ALL (p_counts) THEN
        RETURN;  -- no event has another one of its command beside it
    END IF;
    IF EXISTS (SELECT FROM unnest(p_of, x.partitions) AS e (o, partition)
               GROUP BY e.o HAVING count(DISTINCT coalesce(e.partition, -1)) > 1) THEN
        RAISE EXCEPTION 'a command has one partition' USING ERRCODE = 'CR005';
    END IF;
    IF EXISTS (SELECT FROM unnest(p_of, x.streams, x.versions) WITH ORDINALITY AS e (o, stream, version, n)
               GROUP BY e.o, e.stream
               HAVING count(*) > 1 AND array_agg(e.version ORDER BY e.n)
                      <> ARRAY(SELECT generate_series(min(e.version), max(e.version)))) THEN
        RAISE EXCEPTION 'the versions of a stream do not follow one another' USING ERRCODE = 'CR005';
    END IF;
END $$;

CREATE FUNCTION ledger.refuse_large(p_of int[], p_bodies bytea[]) RETURNS void
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF EXISTS (SELECT FROM unnest(p_of, p_bodies) AS e (o, body) GROUP BY e.o HAVING sum(octet_length(e.body)) > 262144) THEN
        RAISE EXCEPTION 'a command is larger than 256 KiB' USING ERRCODE = 'CR004';
    END IF;
END $$;

CREATE FUNCTION ledger.refuse_overlap(p_ids uuid[], p_of int[], x ledger.indexed, p_read_of int[], p_read_streams text[])
RETURNS void LANGUAGE plpgsql STABLE AS $$
DECLARE shared text;
BEGIN
    SELECT stream INTO shared
      FROM (SELECT o, s, true FROM unnest(p_of, x.streams) AS w (o, s)
            UNION ALL SELECT o, s, false FROM unnest(p_read_of, p_read_streams) AS r (o, s)) AS c (command, stream, written)
     GROUP BY stream HAVING bool_or(written) AND min(command) <> max(command) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'one command of the batch writes %, which another reads or writes', shared USING ERRCODE = 'CR007';
    END IF;
    IF (SELECT count(DISTINCT id) FROM unnest(p_ids) AS id) < cardinality(p_ids) THEN
        RAISE EXCEPTION 'a command id stands twice in the batch' USING ERRCODE = 'CR007';
    END IF;
    IF num_nonnulls(VARIADIC x.claims) > 0 AND (SELECT count(DISTINCT c) < count(c) FROM unnest(x.claims) AS c) THEN
        RAISE EXCEPTION 'a command id is claimed twice in the batch' USING ERRCODE = 'CR007';
    END IF;
END $$;

-- Per command: 0 may be appended, else why not (see append); ids are looked up first, so a repeat is never a conflict.
CREATE FUNCTION ledger.verdicts(
    p_log smallint, p_ids uuid[], p_of int[], x ledger.indexed, p_read_of int[], p_read_streams text[],
    p_read_versions bigint[], OUT outcomes smallint[], OUT logs smallint[], OUT positions bigint[])
LANGUAGE plpgsql STABLE AS $$
DECLARE
    not_owned int[];
    moved     int[];
BEGIN
    SELECT array_agg(e.o) INTO not_owned
      FROM (SELECT o, partition, epoch FROM unnest(p_of, x.partitions, x.epochs) AS e (o, partition, epoch)
            UNION ALL
            SELECT o, ledger.partition_of(s), NULL FROM unnest(p_read_of, p_read_streams) AS r (o, s)
             WHERE NOT starts_with(s, 'region-')) AS e
     WHERE e.partition IS NOT NULL
           AND NOT EXISTS (SELECT FROM ledger.ownership AS w
                            WHERE w.partition = e.partition AND w.log = p_log AND w.cut IS NULL
                                  AND w.epoch = coalesce(e.epoch, w.epoch));
    SELECT array_agg(c.o) INTO moved
      FROM (SELECT o, s, min(v) - 1 FROM unnest(p_of, x.streams, x.versions) AS e (o, s, v) GROUP BY o, s
            UNION ALL
            SELECT o, s, v FROM unnest(p_read_of, p_read_streams, p_read_versions) AS r (o, s, v)) AS c (o, stream, expected)
     WHERE c.expected <> coalesce((SELECT e.version FROM ledger.entry AS e WHERE e.stream = c.stream
                                    ORDER BY e.version DESC LIMIT 1), 0);
    SELECT array_agg(CASE WHEN e.position IS NOT NULL THEN 1 WHEN c = ANY (not_owned) THEN 3 WHEN c = ANY (moved) THEN 2 ELSE 0 END),
           array_agg(e.log), array_agg(e.position)
      INTO outcomes, logs, positions
      FROM unnest(p_ids) WITH ORDINALITY AS q (id, c)
           LEFT JOIN LATERAL (SELECT e.log, e.position FROM ledger.entry AS e WHERE e.command_id = q.id LIMIT 1) AS e ON true;
    IF num_nonnulls(VARIADIC x.claims) > 0 THEN
        SELECT array_agg(CASE WHEN outcomes[c] = 0 AND taken THEN 2 ELSE outcomes[c] END ORDER BY c) INTO outcomes
          FROM (SELECT c, EXISTS (SELECT FROM unnest(p_of, x.claims) AS e (o, claims)
                                   WHERE e.o = c AND (e.claims = ANY (p_ids)
                                         OR EXISTS (SELECT FROM ledger.entry AS k WHERE k.command_id = e.claims))) AS taken
                  FROM generate_subscripts(p_ids, 1) AS c) AS q;
    END IF;
END $$;

CREATE FUNCTION ledger.chain(INOUT leaf bytea, p_position bigint, p_recorded bigint, p_bodies bytea[], OUT leaves bytea[])
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    body bytea;
    done int := 0;
BEGIN
    leaves := '{}';
    FOREACH body IN ARRAY p_bodies LOOP
        leaf := sha256('\x00'::bytea || leaf || int8send(p_position + done) || int8send(p_recorded + done) || body);
        done := done + 1;
        leaves[done] := leaf;
    END LOOP;
END $$;

-- An entry counts iff it stands on its log's own region streams, or its log owned (partition, epoch). The others are kept,
-- with an empty index.
CREATE FUNCTION ledger.leave_out_foreign(p_log smallint, p_name text, x ledger.indexed) RETURNS ledger.indexed
LANGUAGE plpgsql STABLE AS $$
DECLARE
    counts boolean[];
BEGIN
    SELECT array_agg(CASE WHEN e.partition IS NULL THEN starts_with(e.stream, 'region-' || p_name || '-')
                          ELSE EXISTS (SELECT FROM ledger.ownership AS w
                                        WHERE w.partition = e.partition AND w.epoch = e.epoch AND w.log = p_log
                                              AND e.partition = ledger.partition_of(e.stream)) END)
      INTO counts
      FROM unnest(x.streams, x.partitions, x.epochs) AS e (stream, partition, epoch);
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

-- The quick way: every command of a batch is written as eventstore/record.py writes it, and may be appended. How each body
-- must begin then follows from the call and from the log as it stands; one that begins so, and is a JSON object with unique
-- names, says just this of itself, and need not be read. Whatever is otherwise, or only unusual, goes the long way.

-- For commands that have not one event each: the command of each body, its place in it, that command's number of events, and
-- its place among those on its stream. No kths if a command could be too large or of two partitions, an id stands twice, or
-- one without events is known.
CREATE FUNCTION ledger.places(p_ids uuid[], p_counts int[], p_bodies bytea[],
                              OUT ids uuid[], OUT nths int[], OUT totals int[], OUT kths bigint[])
LANGUAGE plpgsql STABLE AS $$
DECLARE
    of    int[];
    usual boolean;
BEGIN
    SELECT array_agg(q.id), array_agg(q.c), array_agg(i), array_agg(q.total) INTO ids, of, nths, totals
      FROM unnest(p_ids, p_counts) WITH ORDINALITY AS q (id, total, c), generate_series(1, q.total) AS i;
    SELECT array_agg(e.k ORDER BY e.n), bool_and(e.ends = e.first_ends AND e.bytes <= 262144) INTO kths, usual
      FROM (SELECT e.n, right(e.stream, 2) AS ends, first_value(right(e.stream, 2)) OVER command AS first_ends,
                   sum(e.bytes) OVER command AS bytes, row_number() OVER (PARTITION BY e.o, e.stream ORDER BY e.n) AS k
              FROM (SELECT n, o, octet_length(body) AS bytes, split_part(convert_from(body, 'UTF8'), '"', 4) AS stream
                      FROM unnest(of, p_bodies) WITH ORDINALITY AS e (o, body, n)) AS e
            WINDOW command AS (PARTITION BY e.o ORDER BY e.n)) AS e;
    IF usual IS NOT TRUE OR cardinality(of) <> cardinality(p_bodies)
       OR (SELECT count(DISTINCT id) FROM unnest(p_ids) AS id) < cardinality(p_ids)
       OR EXISTS (SELECT FROM unnest(p_ids, p_counts) AS c (id, events) JOIN ledger.entry AS k ON k.command_id = c.id
                   WHERE c.events = 0) THEN
        kths := NULL;
    END IF;
END $$;

-- True if all was appended, false if nothing was. p_ids, p_nths, p_totals, p_kths: of each body (null: 1). One statement,
-- since each costs as much as an event. What stands twice in the batch or already in the log is noticed by the unique indexes.
CREATE FUNCTION ledger.append_usual(
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
               AND e.type ~ '^[a-z][a-z0-9_]*(\.[a-z0-9_]+)+$' AND e.type <> 'log.opened' AND NOT starts_with(e.stream, 'region-')
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

-- The long way: reads the bodies, judges each command, says what is wrong, appends what may be appended.
CREATE FUNCTION ledger.append_each(
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

-- The doors ------------------------------------------------------------------------------------------------------------

-- Appends a batch of independent commands to a log written here, in one transaction. A command is an id, p_counts[n] events
-- (bodies one after another in p_bodies) and conditions on streams that it only read; without events it confirms them.
-- outcomes: 0 appended (or confirmed) · 1 its id is taken, at (logs, positions) · 2 a stream has moved · 3 the partition
-- is not owned here at that epoch. Appended: positions = its first; recorded counts up by 1 µs from `recorded` over all
-- events appended by the call; leaves are theirs, in order.
CREATE FUNCTION ledger.append(
    p_log smallint, p_ids uuid[], p_counts int[], p_bodies bytea[],
    p_read_of int[], p_read_streams text[], p_read_versions bigint[],
    OUT outcomes smallint[], OUT logs smallint[], OUT positions bigint[], OUT recorded bigint, OUT leaves bytea[])
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
-- A plan is cached for the session, perhaps when the log was empty: only index look-ups stay right.
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    head   record;
    place  record;
    size   int := cardinality(p_ids);
    simple boolean := 1 = ALL (p_counts) AND size = cardinality(p_bodies) AND size = cardinality(p_counts);
    usual  boolean := false;
BEGIN
    PERFORM ledger.refuse_unsafe_session();
    head := ledger.lock_head(p_log, true);
    recorded := greatest((extract(epoch FROM clock_timestamp()) * 1000000)::bigint, head.recorded + 1);
    IF head.last > 0 AND cardinality(p_bodies) > 0 THEN
        leaves := (ledger.chain(head.leaf, head.last + 1, recorded, p_bodies)).leaves;
        IF simple THEN
            usual := ledger.append_usual(p_log, head.last + 1, recorded, leaves, head.epochs, p_bodies,
                                         p_ids, NULL, NULL, NULL, p_read_streams, p_read_versions);
        ELSE
            place := ledger.places(p_ids, p_counts, p_bodies);
            usual := place.kths IS NOT NULL AND
                     ledger.append_usual(p_log, head.last + 1, recorded, leaves, head.epochs, p_bodies, place.ids, place.nths,
                                         place.totals, place.kths, p_read_streams, p_read_versions);
        END IF;
    END IF;
    IF NOT usual THEN
        SELECT e.outcomes, e.logs, e.positions, e.leaves INTO outcomes, logs, positions, leaves
          FROM ledger.append_each(p_log, head.name, head.last, head.leaf, recorded, p_ids, p_counts, p_bodies,
                                  p_read_of, p_read_streams, p_read_versions) AS e;
        RETURN;
    END IF;
    outcomes := array_fill(0::smallint, ARRAY[size]);
    logs := array_fill(NULL::smallint, ARRAY[size]);
    IF simple THEN
        positions := ARRAY(SELECT generate_series(head.last + 1, head.last + size));
    ELSE
        FOR c IN 1 .. size LOOP
            positions[c] := head.last + 1;
            head.last := head.last + p_counts[c];
        END LOOP;
    END IF;
    PERFORM pg_notify('ledger', p_log || ' ' || positions[size] + p_counts[size] - 1);
END $$;

-- Appends what another region's log holds from p_first on: whole commands, exactly as they stand there.
CREATE FUNCTION ledger.append_copy(p_log smallint, p_first bigint, p_recorded bigint[], p_leaves bytea[], p_bodies bytea[])
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
    IF p_first = 1 THEN  -- its ownership is what the rest counts by
        PERFORM ledger.extend(p_log, 1, p_recorded[1:1], p_leaves[1:1], p_bodies[1:1], ledger.read_bodies(p_bodies[1:1]));
        IF size = 1 THEN
            RETURN 1;
        END IF;
        x := ledger.read_bodies(p_bodies[2:]);
        p_first := 2;
        p_recorded := p_recorded[2:]; p_leaves := p_leaves[2:]; p_bodies := p_bodies[2:];
        size := size - 1;
    END IF;
    PERFORM ledger.extend(p_log, p_first, p_recorded, p_leaves, p_bodies, ledger.leave_out_foreign(p_log, head.name, x));
    RETURN p_first + size - 1;
END $$;

-- Rights ---------------------------------------------------------------------------------------------------------------

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger FROM PUBLIC;
GRANT USAGE ON SCHEMA ledger TO countroom_reader, countroom_writer, countroom_applier;
GRANT SELECT ON ALL TABLES IN SCHEMA ledger TO countroom_reader;
GRANT EXECUTE ON FUNCTION ledger.append TO countroom_writer;
GRANT EXECUTE ON FUNCTION ledger.append_copy TO countroom_applier;
GRANT INSERT, UPDATE, DELETE ON ledger.snapshot TO countroom_writer;
RESET ROLE;
