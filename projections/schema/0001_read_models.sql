-- Read models (ARCHITECTURE.md): what the logs say, arranged for those who ask. All of it can be made anew from the logs.
-- Run as the administrator, after the ledger's schema. The tables belong to countroom_projector; everybody else only reads.
--
-- A rebuild makes the next generation's tables in read_next and moves them here in one transaction, so statements name the
-- same tables for ever. (What LIKE INCLUDING ALL copies may stand on a table; views and foreign keys may not.)

SET LOCAL ROLE countroom_ledger;
GRANT USAGE ON SCHEMA ledger TO countroom_projector;
GRANT SELECT ON ledger.log, ledger.entry TO countroom_projector;
RESET ROLE;

CREATE SCHEMA read AUTHORIZATION countroom_projector;
CREATE SCHEMA read_next AUTHORIZATION countroom_projector;
SET LOCAL ROLE countroom_projector;

CREATE TABLE read.generation (
    projection text COLLATE "C" NOT NULL,
    generation bigint NOT NULL,
    live       boolean NOT NULL,
    begun_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (projection, generation)
);
CREATE UNIQUE INDEX one_is_live ON read.generation (projection) WHERE live;
COMMENT ON TABLE read.generation IS 'The read models kept in PostgreSQL. Not live = being built, in read_next.';

CREATE TABLE read.position (
    projection text COLLATE "C" NOT NULL,
    generation bigint NOT NULL,
    log        text COLLATE "C" NOT NULL,
    position   bigint NOT NULL,
    leaf       bytea NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (projection, generation, log),
    FOREIGN KEY (projection, generation) REFERENCES read.generation ON DELETE CASCADE
) WITH (fillfactor = 50);
COMMENT ON TABLE read.position IS 'The last entry that a read model holds, of each log; moved in the transaction that applies it.';

CREATE TABLE read.status (
    projection text COLLATE "C" NOT NULL,
    log        text COLLATE "C" NOT NULL,
    stopped_at bigint NOT NULL,
    reason     text NOT NULL,
    since      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (projection, log)
);
COMMENT ON TABLE read.status IS 'Projections, in PostgreSQL or Redis, that cannot go on after an entry. No row = nothing is wrong.';

-- players ----------------------------------------------------------------------------------------------------------------

CREATE TABLE read.player (
    id            text COLLATE "C" PRIMARY KEY,
    version       bigint NOT NULL,
    status        text NOT NULL,
    block_reason  text,
    brand         text NOT NULL,
    country       text NOT NULL,
    currency      text NOT NULL,
    registered_at timestamptz NOT NULL,
    sealed_by     text NOT NULL,
    personal      json NOT NULL
) WITH (fillfactor = 90);
COMMENT ON COLUMN read.player.version IS 'of the stream that the row follows; so in the tables below';
COMMENT ON COLUMN read.player.personal IS 'the sealed fields as they stand in the event sealed_by, whose id is needed to open them';

CREATE TABLE read.balance (
    player    text COLLATE "C" NOT NULL,
    currency  text COLLATE "C" NOT NULL,
    version   bigint NOT NULL,
    cash      bigint NOT NULL,
    reserved  bigint NOT NULL,
    deposits  bigint NOT NULL,
    deposited bigint NOT NULL,
    PRIMARY KEY (player, currency)
) WITH (fillfactor = 80);
COMMENT ON COLUMN read.balance.deposited IS 'the sum of all settled deposits; deposits = how many';

CREATE TABLE read.deposit_limit (
    player   text COLLATE "C" PRIMARY KEY,
    version  bigint NOT NULL,
    daily    bigint,
    currency text,
    day      date NOT NULL,
    used     bigint NOT NULL
) WITH (fillfactor = 80);
COMMENT ON COLUMN read.deposit_limit.used IS 'minor units that deposit requests of `day` have consumed';

-- transactions -----------------------------------------------------------------------------------------------------------

CREATE TABLE read.transaction (
    id             text COLLATE "C" PRIMARY KEY,
    version        bigint NOT NULL,
    player         text COLLATE "C" NOT NULL,
    kind           text NOT NULL,
    status         text NOT NULL,
    amount         bigint NOT NULL,
    currency       text NOT NULL,
    provider       text NOT NULL,
    reference      text NOT NULL,
    requested_at   timestamptz NOT NULL,
    settled_at     timestamptz,
    failed_at      timestamptz,
    failure_reason text
) WITH (fillfactor = 90);
CREATE INDEX ON read.transaction (player, requested_at, id);

-- wallets ----------------------------------------------------------------------------------------------------------------

CREATE TABLE read.account (
    account  text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    balance  bigint NOT NULL,
    postings bigint NOT NULL,
    PRIMARY KEY (account, currency)
) WITH (fillfactor = 50);
COMMENT ON COLUMN read.account.balance IS 'the sum of all postings (to cash and reserved: of all players); zero over a currency';

GRANT USAGE ON SCHEMA read TO countroom_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA read TO countroom_reader;
RESET ROLE;
