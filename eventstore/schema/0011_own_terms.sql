-- What this log owns, no other log takes from it by saying so: an adoption follows a release, and ours is here before anybody can have
-- copied it. Only a database that may not be written, since it may be a restored backup, can have lost its own.
SET LOCAL ROLE countroom_ledger;

CREATE FUNCTION ledger.refuse_robbery() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' AND NEW.after_log IS NULL AND NEW.epoch <> 1 THEN
        RAISE EXCEPTION 'a log opens with partitions at epoch %', NEW.epoch USING ERRCODE = 'CR012';
    ELSIF EXISTS (SELECT FROM ledger.ownership AS w JOIN ledger.log AS l ON l.id = w.log
                   WHERE l.own AND ledger.may_write(l.id) AND w.partition = NEW.partition AND w.cut IS NULL
                         AND CASE TG_OP WHEN 'INSERT' THEN w.log <> NEW.log AND w.epoch < NEW.epoch
                                        ELSE w.log = NEW.log AND w.epoch = NEW.epoch AND NEW.released_to IS NULL END) THEN
        RAISE EXCEPTION 'partition % is ours, and was released to nobody', NEW.partition USING ERRCODE = 'CR012';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER refuse_robbery_by_new_terms BEFORE INSERT ON ledger.ownership
    FOR EACH ROW EXECUTE FUNCTION ledger.refuse_robbery();
CREATE TRIGGER refuse_robbery_by_ends BEFORE UPDATE OF cut ON ledger.ownership
    FOR EACH ROW WHEN (NEW.cut IS NOT NULL) EXECUTE FUNCTION ledger.refuse_robbery();

REVOKE ALL ON FUNCTION ledger.refuse_robbery FROM PUBLIC;
RESET ROLE;
