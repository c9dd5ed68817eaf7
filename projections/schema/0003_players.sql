-- What is known of players, how well, and when they came: part of the read model `players`.
--
-- The columns begin as a rebuild would leave them for players of whom nothing of it has been recorded.

SET LOCAL ROLE countroom_projector;

ALTER TABLE read.player ADD COLUMN state json NOT NULL DEFAULT '{}', ADD COLUMN known json NOT NULL DEFAULT '{}';
COMMENT ON COLUMN read.player.state IS 'jurisdiction (if it is not the country), awaiting, consents, tags';
COMMENT ON COLUMN read.player.known IS 'projections.known.Known; personal fields sealed, each with the event that holds it';
CREATE INDEX ON read.player (status, id) WHERE status <> 'active';

CREATE TABLE read.player_tag (
    tag    text COLLATE "C" NOT NULL,
    player text COLLATE "C" NOT NULL,
    PRIMARY KEY (tag, player)
);

CREATE TABLE read.kyc (
    player  text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,
    state   json NOT NULL
) WITH (fillfactor = 80);
COMMENT ON COLUMN read.kyc.state IS 'domain.kyc.Kyc';

CREATE TABLE read.login (
    player  text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,
    state   json NOT NULL
) WITH (fillfactor = 80);
COMMENT ON COLUMN read.login.state IS 'domain.logins.Login';

GRANT SELECT ON read.player_tag, read.kyc, read.login TO countroom_reader;
RESET ROLE;
