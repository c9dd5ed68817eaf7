-- Whoever waits for a peer's acknowledgements hears of it as well when that peer's copy turns out to differ from our log, or has
-- fallen back: nothing that it said before counts then. NOTIFY replication, 'alarm <log> <peer>'.
SET LOCAL ROLE countroom_ledger;

CREATE OR REPLACE FUNCTION replication.acknowledge(
    p_log smallint, p_peer text, p_position bigint, p_leaf bytea, p_keep boolean, p_tell boolean)
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
        PERFORM pg_notify('replication', format('alarm %s %s', p_log, p_peer));
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

RESET ROLE;
