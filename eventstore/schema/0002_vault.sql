-- The keys of personal fields, outside the log: destroying a key erases a person, and every proof still verifies.

CREATE SCHEMA vault AUTHORIZATION countroom_ledger;
SET LOCAL ROLE countroom_ledger;

CREATE TABLE vault.data_key (
    id      uuid PRIMARY KEY,
    subject text COLLATE "C" NOT NULL,
    wrapped bytea NOT NULL
);
COMMENT ON TABLE vault.data_key IS 'AES-256 data keys, wrapped by the region key; subject = whose fields it seals.';

CREATE TABLE vault.blind_index (
    field   text  COLLATE "C" NOT NULL,
    digest  bytea NOT NULL,
    subject text  COLLATE "C" NOT NULL,
    PRIMARY KEY (field, digest, subject)
);
COMMENT ON TABLE vault.blind_index IS 'Keyed hashes of normalised personal values, for exact look-ups.';

GRANT USAGE ON SCHEMA vault TO countroom_writer, countroom_reader;
GRANT SELECT, INSERT ON vault.data_key, vault.blind_index TO countroom_writer;
GRANT SELECT ON vault.data_key, vault.blind_index TO countroom_reader;
RESET ROLE;
