-- Tree heads: what a log's key signed, and the inner hashes that make proofs quick (docs/reference/log-interface.md). Heads
-- are kept for ever, since two that disagree are the evidence of a fork; the hashes are a cache of ledger.entry.leaf.

SET LOCAL ROLE countroom_ledger;

CREATE TABLE ledger.subtree (
    log   smallint NOT NULL REFERENCES ledger.log,
    level smallint NOT NULL CHECK (level BETWEEN 1 AND 7),
    index bigint   NOT NULL CHECK (index >= 0),
    hash  bytea    NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (log, level, index)
);
ALTER TABLE ledger.subtree ALTER hash SET STORAGE PLAIN;
COMMENT ON TABLE ledger.subtree IS 'The root of the 256^level leaves from 256^level * index on (C2SP tlog-tiles). Level 0 is entry.leaf.';

CREATE TABLE ledger.checkpoint (
    log          smallint    NOT NULL REFERENCES ledger.log,
    size         bigint      NOT NULL CHECK (size >= 0),
    root         bytea       NOT NULL CHECK (octet_length(root) = 32),
    note         bytea       NOT NULL,
    at           timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz,
    PRIMARY KEY (log, size)
);
COMMENT ON TABLE ledger.checkpoint IS 'Every head that a log signed (C2SP tlog-checkpoint). The newest with published_at is served as its checkpoint.';

CREATE TRIGGER never_removed BEFORE DELETE ON ledger.checkpoint FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON ledger.checkpoint FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER only_signed_further BEFORE UPDATE ON ledger.checkpoint FOR EACH ROW
    WHEN (ROW (old.log, old.size, old.root, old.at) <> ROW (new.log, new.size, new.root, new.at)
          OR new.published_at IS DISTINCT FROM old.published_at AND old.published_at IS NOT NULL
          OR substr(new.note, 1, octet_length(old.note)) <> old.note)
    EXECUTE FUNCTION ledger.refuse_change();

-- Name and key id of a signature's line (C2SP signed-note): '— <name> <base64 of key id (4 bytes) and signature>'.
CREATE FUNCTION ledger.signer_of(p_line text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN split_part(p_line, ' ', 2) || ' ' || encode(substr(decode(split_part(p_line, ' ', 3), 'base64'), 1, 4), 'hex');

-- The first note, and behind it the lines of the second by which others signed the same text.
CREATE FUNCTION ledger.signed_further(p_note text, p_other text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN p_note || (
    SELECT coalesce(string_agg(o.line || chr(10), '' ORDER BY o.n), '')
      FROM string_to_table(split_part(p_other, chr(10) || chr(10), 2), chr(10)) WITH ORDINALITY AS o (line, n)
     WHERE o.line <> ''
           AND ledger.signer_of(o.line) NOT IN (
               SELECT ledger.signer_of(k.line)
                 FROM string_to_table(split_part(p_note, chr(10) || chr(10), 2), chr(10)) AS k (line) WHERE k.line <> ''));

-- Keeps a head; of one that is known it keeps who else signed it, and that it is published from now on. Whether the
-- signatures are true is the caller's part.
CREATE FUNCTION ledger.keep_checkpoint(p_log smallint, p_size bigint, p_root bytea, p_note bytea, p_published boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    stated text;
    given  text := convert_from(p_note, 'UTF8');
    known  ledger.checkpoint;
BEGIN
    SELECT concat_ws(chr(10), l.origin, p_size, encode(p_root, 'base64'), '', '') INTO stated FROM ledger.log AS l WHERE l.id = p_log;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no log % is held here', p_log USING ERRCODE = 'CR002';
    ELSIF NOT starts_with(given, stated) OR substr(given, length(stated) + 1) !~ '^(— [^ \n]+ [A-Za-z0-9+/]{8,}=*\n)+$' THEN
        RAISE EXCEPTION 'the note is not a signed checkpoint of log % with this size and root', p_log USING ERRCODE = 'CR005';
    END IF;
    LOOP  -- until it is inserted, or found: nobody removes one
        INSERT INTO ledger.checkpoint (log, size, root, note, published_at)
            VALUES (p_log, p_size, p_root, p_note, CASE WHEN p_published THEN clock_timestamp() END) ON CONFLICT DO NOTHING;
        EXIT WHEN FOUND;
        SELECT * INTO known FROM ledger.checkpoint AS c WHERE c.log = p_log AND c.size = p_size FOR UPDATE;
        CONTINUE WHEN NOT FOUND;
        IF known.root <> p_root THEN
            RAISE EXCEPTION 'log % has signed another root at size %', p_log, p_size USING ERRCODE = 'CR012';
        END IF;
        UPDATE ledger.checkpoint AS c
           SET note = convert_to(ledger.signed_further(convert_from(known.note, 'UTF8'), given), 'UTF8'),
               published_at = coalesce(known.published_at, CASE WHEN p_published THEN clock_timestamp() END)
         WHERE c.log = p_log AND c.size = p_size;
        EXIT;
    END LOOP;
    PERFORM pg_notify('heads', p_log || ' ' || p_size);
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger FROM PUBLIC;
GRANT USAGE ON SCHEMA ledger TO countroom_heads;
GRANT SELECT ON ledger.subtree, ledger.checkpoint TO countroom_reader;
GRANT INSERT ON ledger.subtree TO countroom_heads;
GRANT EXECUTE ON FUNCTION ledger.keep_checkpoint TO countroom_heads;
RESET ROLE;
