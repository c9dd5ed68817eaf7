-- Which code has applied the last entries of each log: projections.version.CODE, null if a release moved it that knew none.

SET LOCAL ROLE countroom_projector;
ALTER TABLE read.position ADD COLUMN code text;
COMMENT ON COLUMN read.position.code IS 'the program version and a hash of the code that moved it; shown in every answer';
RESET ROLE;
