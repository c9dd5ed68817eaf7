-- Payments both ways: what became of each, how many stand where, and what the house held of players' money each day.

SET LOCAL ROLE countroom_projector;

ALTER TABLE read.transaction
    ADD COLUMN settled    bigint NOT NULL DEFAULT 0,
    ADD COLUMN refunded   bigint NOT NULL DEFAULT 0,
    ADD COLUMN lost       bigint NOT NULL DEFAULT 0,
    ADD COLUMN outside    text,
    ADD COLUMN expires_at timestamptz;
COMMENT ON COLUMN read.transaction.settled IS 'minor units that have arrived, or were paid out; refunded, lost: those that went back';
COMMENT ON COLUMN read.transaction.failed_at IS 'when it ended, or would have ended, without money: failed, expired, rejected, cancelled, returned';
COMMENT ON COLUMN read.transaction.outside IS 'the reference of the provider: of the authorisation, of the payout';
UPDATE read.transaction SET settled = amount WHERE status = 'settled';
CREATE INDEX ON read.transaction (requested_at, id);
CREATE INDEX ON read.transaction (status, requested_at, id);

CREATE TABLE read.payments (
    kind     text COLLATE "C" NOT NULL,
    status   text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    count    bigint NOT NULL,
    amount   bigint NOT NULL,
    PRIMARY KEY (kind, status, currency)
) WITH (fillfactor = 50);
COMMENT ON TABLE read.payments IS 'How many transactions stand where, and the sum of what was asked for. No row = none.';
INSERT INTO read.payments
    SELECT kind, status, currency, count(*), sum(amount) FROM read.transaction GROUP BY kind, status, currency;

ALTER TABLE read.balance
    ADD COLUMN bonus      bigint NOT NULL DEFAULT 0,
    ADD COLUMN receivable bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN read.balance.receivable IS 'never positive: what the player owes';

CREATE TABLE read.funds (
    day      text COLLATE "C" NOT NULL,
    account  text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    received bigint NOT NULL,
    paid     bigint NOT NULL,
    PRIMARY KEY (day, account, currency)
) WITH (fillfactor = 50);
COMMENT ON TABLE read.funds IS 'What entered and left the accounts of all players on a day (YYYY-MM-DD, UTC), by when it happened.';

GRANT SELECT ON ALL TABLES IN SCHEMA read TO countroom_reader;
RESET ROLE;
