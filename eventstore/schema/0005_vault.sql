-- The vault, completed: every key says by which region key it is wrapped, so that region keys can be changed beside the log;
-- blind indexes have keys of their own; and what belongs to a player who was erased is destroyed by one door, which asks the log.

SET LOCAL ROLE countroom_ledger;

CREATE TABLE vault.region_key (
    number    integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id        text COLLATE "C" NOT NULL UNIQUE,
    since     timestamptz NOT NULL DEFAULT now(),
    destroyed timestamptz
);
COMMENT ON TABLE vault.region_key IS 'The region keys since the first rotation, by their ids; the newest wraps what is kept from now on. None: there was none.';

CREATE TABLE vault.index_key (
    layer      smallint PRIMARY KEY CHECK (layer > 0),
    wrapped    bytea NOT NULL,
    wrapped_by text COLLATE "C" NOT NULL
);
COMMENT ON TABLE vault.index_key IS 'The keys of the blind indexes, one upon another. None: the one that follows from the region key.';

ALTER TABLE vault.data_key ADD wrapped_by text COLLATE "C" NOT NULL DEFAULT '';
COMMENT ON COLUMN vault.data_key.wrapped_by IS 'The id of the region key; empty: the first one.';
ALTER TABLE vault.blind_index ADD layers smallint NOT NULL DEFAULT 1;
COMMENT ON COLUMN vault.blind_index.layers IS 'How many index keys the digest was made with, from the first on.';
CREATE INDEX ON vault.data_key (subject);
CREATE INDEX ON vault.blind_index (subject);

-- Erasures are found at once, in every log held here.
CREATE INDEX erased ON ledger.entry (log, position) WHERE type = 'player.erased';

-- Destroys the keys and index words of the players of whom a log held here says that they were erased, at a position behind
-- the given one of that log (0 where none is given). Whoever has opened such a key hears of it on the channel `vault`.
CREATE FUNCTION vault.destroy_erased(p_logs smallint[], p_after bigint[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    erased    text[];
    destroyed uuid[];
BEGIN
    SELECT array_agg(DISTINCT substr(e.stream, length('player-') + 1)) INTO erased
      FROM ledger.log AS l
           LEFT JOIN unnest(p_logs, p_after) AS a (log, position) ON a.log = l.id
           JOIN ledger.entry AS e ON e.log = l.id AND e.type = 'player.erased' AND e.position > coalesce(a.position, 0)
     WHERE e.stream LIKE 'player-%';
    IF erased IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM pg_advisory_xact_lock(1129272897);  -- nothing is kept, and no word moved by a rotation, at this moment
    DELETE FROM vault.blind_index AS i WHERE i.subject = ANY (erased);
    WITH gone AS (DELETE FROM vault.data_key AS k WHERE k.subject = ANY (erased) RETURNING k.id)
    SELECT array_agg(g.id) INTO destroyed FROM gone AS g;
    PERFORM pg_notify('vault', d.id::text) FROM unnest(destroyed) AS d (id);
    RETURN coalesce(cardinality(destroyed), 0);
END $$;

REVOKE ALL ON FUNCTION vault.destroy_erased FROM PUBLIC;
GRANT EXECUTE ON FUNCTION vault.destroy_erased TO countroom_writer;
GRANT SELECT ON vault.region_key, vault.index_key TO countroom_reader;
GRANT USAGE ON SCHEMA vault TO countroom_vault;
GRANT SELECT, UPDATE ON vault.data_key TO countroom_vault;
GRANT SELECT, INSERT, DELETE ON vault.blind_index TO countroom_vault;
GRANT SELECT, INSERT, UPDATE ON vault.region_key, vault.index_key TO countroom_vault;
RESET ROLE;
