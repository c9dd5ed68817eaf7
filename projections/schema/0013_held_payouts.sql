-- Why nobody is asked for now to pay a withdrawal out.

SET LOCAL ROLE countroom_projector;

ALTER TABLE read.transaction ADD COLUMN held text NOT NULL DEFAULT '';
COMMENT ON COLUMN read.transaction.held IS 'a word: why nobody is asked for now to pay it out; empty if nothing holds it';

RESET ROLE;
