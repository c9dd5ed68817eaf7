-- What people wrote stands sealed in read models, too: as JSON, the event's id and its sealed fields (projections/sealed.py).

SET LOCAL ROLE countroom_projector;

ALTER TABLE read.approval
    DROP COLUMN body,
    DROP COLUMN reject_reason,
    ADD COLUMN asked   text,
    ADD COLUMN refused text;
COMMENT ON COLUMN read.approval.asked IS 'sealed: body, the JSON text as it was sent, and the salt of the hash over path, LF, salt, LF and body';
COMMENT ON COLUMN read.approval.refused IS 'sealed: why it was not approved';

ALTER TABLE read.transaction
    DROP COLUMN failure_reason,
    ADD COLUMN failure text;
COMMENT ON COLUMN read.transaction.failure IS 'sealed: why no money moved, or why it came back';

RESET ROLE;
