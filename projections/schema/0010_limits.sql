-- A player's limits and what deposits have used of them: part of the read model `players`, instead of the daily deposit limit.

SET LOCAL ROLE countroom_projector;

DROP TABLE read.deposit_limit;

CREATE TABLE read.limits (
    player  text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,
    state   json NOT NULL
) WITH (fillfactor = 80);
COMMENT ON COLUMN read.limits.state IS 'domain.limits.Limits';

GRANT SELECT ON read.limits TO countroom_reader;
RESET ROLE;
