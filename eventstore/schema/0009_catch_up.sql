-- Copies are appended twice as quickly: that each entry follows from its predecessor is judged over all of them at once. As each
-- leaf is compared with the hash over the one given before it, the first with the head's, none is right unless all before it are.
SET LOCAL ROLE countroom_ledger;

CREATE FUNCTION ledger.refuse_unchained(
    p_leaf bytea, p_last bigint, p_time bigint, p_recorded bigint[], p_leaves bytea[], p_bodies bytea[]) RETURNS void
LANGUAGE plpgsql STABLE AS $$
DECLARE bad bigint;
BEGIN
    SELECT min(p_last + e.n) INTO bad
      FROM unnest(p_leaf || p_leaves, p_time || p_recorded, p_recorded, p_leaves, p_bodies)
               WITH ORDINALITY AS e (before, earlier, recorded, leaf, body, n)
     WHERE e.n <= cardinality(p_bodies)
           AND (e.leaf = sha256('\x00'::bytea || e.before || int8send(p_last + e.n) || int8send(e.recorded) || e.body)
                AND e.recorded > e.earlier) IS NOT TRUE;
    IF bad IS NOT NULL OR cardinality(p_leaves) <> cardinality(p_bodies) OR cardinality(p_recorded) <> cardinality(p_bodies) THEN
        RAISE EXCEPTION 'position % does not follow from its predecessor', coalesce(bad, p_last + 1) USING ERRCODE = 'CR009';
    END IF;
END $$;

-- As before.
CREATE OR REPLACE FUNCTION ledger.append_copy(p_log smallint, p_first bigint, p_recorded bigint[], p_leaves bytea[], p_bodies bytea[])
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
-- A plan is cached for the session, perhaps when the log was empty: only index look-ups stay right.
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    head record;
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
    PERFORM ledger.refuse_unchained(head.leaf, head.last, head.recorded, p_recorded, p_leaves, p_bodies);
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

REVOKE ALL ON FUNCTION ledger.refuse_unchained FROM PUBLIC;
RESET ROLE;
