-- Copies of data keys that other regions made. They lie in vault.data_key beside the own ones, so that rotation and erasure do not
-- tell them apart; here stands whose there are, as far as the logs held here say, and what of each is still to be had.

SET LOCAL ROLE countroom_ledger;

CREATE TABLE vault.copy (
    subject      text COLLATE "C" NOT NULL,
    log          smallint NOT NULL REFERENCES ledger.log,
    key          uuid NOT NULL,
    commitment   text COLLATE "C" NOT NULL,
    jurisdiction text COLLATE "C" NOT NULL,
    told         bigint NOT NULL,
    done         bigint NOT NULL DEFAULT 0,
    again        timestamptz NOT NULL DEFAULT 'epoch',
    refused      text,
    PRIMARY KEY (subject, log)
);
COMMENT ON TABLE vault.copy IS 'Whose data keys other regions made; those who were erased are not here.';
COMMENT ON COLUMN vault.copy.jurisdiction IS 'by which residency is judged; empty: an operator, whose key may be anywhere';
COMMENT ON COLUMN vault.copy.told IS 'the newest entry of the log with something to be found by';
COMMENT ON COLUMN vault.copy.done IS 'up to which entry that is in the blind index; 0: the key is not held';
COMMENT ON COLUMN vault.copy.refused IS 'why the origin has not given it; it is asked again then';
CREATE INDEX ON vault.copy (log, jurisdiction, told) WHERE done < told;
CREATE INDEX ON vault.copy (log, jurisdiction) WHERE done > 0;

CREATE TABLE vault.followed (
    log      smallint PRIMARY KEY REFERENCES ledger.log,
    position bigint NOT NULL
);
COMMENT ON TABLE vault.followed IS 'Up to which entry vault.copy knows what a log says.';

-- Destroys keys and words of players whose registration stands in another region's log: copies, and never what this region made.
-- Which copies the house may not hold is said by its residency; to lose one by mistake costs asking for it again.
CREATE FUNCTION vault.give_up(p_subjects text[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    copies    text[];
    destroyed uuid[];
BEGIN
    SELECT array_agg(DISTINCT substr(e.stream, length('player-') + 1)) INTO copies
      FROM unnest(p_subjects) AS s (subject)
           JOIN ledger.entry AS e ON e.stream = 'player-' || s.subject AND e.version = 1
           JOIN ledger.log AS l ON l.id = e.log AND NOT l.own
     WHERE NOT EXISTS (SELECT FROM ledger.entry AS o JOIN ledger.log AS w ON w.id = o.log AND w.own
                        WHERE o.stream = 'player-' || s.subject AND o.version = 1);
    IF copies IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM pg_advisory_xact_lock(1129272897);  -- as in vault.destroy_erased
    DELETE FROM vault.blind_index AS i WHERE i.subject = ANY (copies);
    WITH gone AS (DELETE FROM vault.data_key AS k WHERE k.subject = ANY (copies) RETURNING k.id)
    SELECT array_agg(g.id) INTO destroyed FROM gone AS g;
    UPDATE vault.copy AS c SET done = 0 WHERE c.subject = ANY (copies);
    PERFORM pg_notify('vault', d.id::text) FROM unnest(destroyed) AS d (id);
    RETURN coalesce(cardinality(destroyed), 0);
END $$;

REVOKE ALL ON FUNCTION vault.give_up FROM PUBLIC;
GRANT EXECUTE ON FUNCTION vault.give_up TO countroom_writer;
GRANT SELECT ON vault.copy, vault.followed TO countroom_reader;
GRANT INSERT, UPDATE, DELETE ON vault.copy TO countroom_writer;
GRANT INSERT, UPDATE ON vault.followed TO countroom_writer;
RESET ROLE;
