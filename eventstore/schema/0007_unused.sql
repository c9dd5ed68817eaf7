-- Data keys and index words of whom no log has ever heard: they are kept before their registration is appended, and some never come.

SET LOCAL ROLE countroom_ledger;

ALTER TABLE vault.data_key ADD kept timestamptz NOT NULL DEFAULT now();
COMMENT ON COLUMN vault.data_key.kept IS 'Since when it lies here. A day is far longer than any registration is under way.';

-- Whether a subject of the vault stands for nobody: it is written like an identifier, its newest key is older than a day, and no log
-- held here has an entry of it: on a stream that would be its own, in the list of what other regions made, or in what does not count.
CREATE FUNCTION vault.is_unused(p_subject text) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT p_subject ~ '^[0-7][0-9a-hjkmnp-tv-z]{25}$'
           AND NOT EXISTS (SELECT FROM vault.data_key AS k WHERE k.subject = p_subject AND k.kept > now() - interval '1 day')
           AND NOT EXISTS (SELECT FROM vault.copy AS c WHERE c.subject = p_subject)
           AND NOT EXISTS (SELECT FROM unnest(ARRAY['player-', 'operator-', 'sealed-', 'compartment-']) AS a (kind)
                                       JOIN ledger.entry AS e ON e.stream = a.kind || p_subject)
           AND NOT EXISTS (SELECT FROM ledger.entry AS e
                            WHERE e.stream IS NULL AND position(convert_to(p_subject, 'UTF8') IN e.body) > 0);
$$;

-- Looks at some keys, in the order of their ids from the given one on, and destroys those of such subjects, with their words. `last`:
-- where to go on, null at the end. Nothing is destroyed while entries may be missing from the own log.
CREATE FUNCTION vault.destroy_unused(p_after uuid, p_limit integer, OUT last uuid, OUT destroyed bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    looked bigint;
    unused text[];
    gone   uuid[];
BEGIN
    destroyed := 0;
    IF EXISTS (SELECT FROM ledger.log AS l WHERE l.own AND NOT ledger.may_write(l.id)) THEN
        RETURN;
    END IF;
    SELECT count(*), (array_agg(k.id ORDER BY k.id DESC))[1], array_agg(DISTINCT k.subject) FILTER (WHERE vault.is_unused(k.subject))
      INTO looked, last, unused
      FROM (SELECT k.id, k.subject FROM vault.data_key AS k WHERE k.id > p_after ORDER BY k.id LIMIT p_limit) AS k;
    IF looked < p_limit THEN
        last := NULL;
    END IF;
    IF unused IS NULL THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(1129272897);  -- as in vault.destroy_erased; what was kept meanwhile is seen from here on
    SELECT array_agg(u.subject) INTO unused FROM unnest(unused) AS u (subject) WHERE vault.is_unused(u.subject);
    DELETE FROM vault.blind_index AS i WHERE i.subject = ANY (unused);
    WITH deleted AS (DELETE FROM vault.data_key AS k WHERE k.subject = ANY (unused) RETURNING k.id)
    SELECT array_agg(d.id) INTO gone FROM deleted AS d;
    PERFORM pg_notify('vault', g.id::text) FROM unnest(gone) AS g (id);
    destroyed := coalesce(cardinality(gone), 0);
END $$;

REVOKE ALL ON FUNCTION vault.is_unused, vault.destroy_unused FROM PUBLIC;
GRANT EXECUTE ON FUNCTION vault.destroy_unused TO countroom_writer;
RESET ROLE;
