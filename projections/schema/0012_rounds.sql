-- What is played: game rounds and whether their outcome is known, gross gaming revenue, and sessions with their time and loss.

SET LOCAL ROLE countroom_projector;

CREATE TABLE read.round (
    id         text COLLATE "C" PRIMARY KEY,
    player     text COLLATE "C" NOT NULL,
    provider   text COLLATE "C" NOT NULL,
    game       text COLLATE "C" NOT NULL,
    round      text COLLATE "C" NOT NULL,
    session    text COLLATE "C" NOT NULL,
    currency   text COLLATE "C" NOT NULL,
    opened_at  timestamptz NOT NULL,
    last_at    timestamptz NOT NULL,
    first      bigint NOT NULL,
    last       bigint NOT NULL,
    closed_at  timestamptz,
    bets       bigint NOT NULL,
    outcomes   bigint NOT NULL,
    taken_back bigint NOT NULL,
    stakes     bigint NOT NULL,
    wins       bigint NOT NULL,
    returned   bigint NOT NULL,
    status     text COLLATE "C" NOT NULL GENERATED ALWAYS AS (
        CASE WHEN closed_at IS NULL AND outcomes = 0
                  AND (stakes > returned OR (bets > 0 AND stakes = 0 AND taken_back = 0))
             THEN 'open' ELSE 'closed' END) STORED
) WITH (fillfactor = 80);
CREATE INDEX ON read.round (last_at, id);
CREATE INDEX ON read.round (player, last_at, id);
CREATE INDEX ON read.round (status, last_at, id);
COMMENT ON COLUMN read.round.first IS 'first, last: versions of the player''s wallet between which its events stand';
COMMENT ON COLUMN read.round.status IS 'open while its outcome is to come: not closed, no win told, not all of its stakes given back';

CREATE TABLE read.ggr (
    day            text COLLATE "C" NOT NULL,
    provider       text COLLATE "C" NOT NULL,
    game           text COLLATE "C" NOT NULL,
    player         text COLLATE "C" NOT NULL,
    currency       text COLLATE "C" NOT NULL,
    bets           bigint NOT NULL,
    stakes_cash    bigint NOT NULL,
    stakes_bonus   bigint NOT NULL,
    wins_cash      bigint NOT NULL,
    wins_bonus     bigint NOT NULL,
    returned_cash  bigint NOT NULL,
    returned_bonus bigint NOT NULL,
    gifts          bigint NOT NULL,
    PRIMARY KEY (day, provider, game, player, currency)
) WITH (fillfactor = 80);
COMMENT ON TABLE read.ggr IS 'By the player''s local day (YYYY-MM-DD): stakes less wins less returned is what house:ggr has received; gifts came from house:bonus.';

CREATE TABLE read.session (
    id            text COLLATE "C" NOT NULL,
    player        text COLLATE "C" NOT NULL,
    version       bigint NOT NULL,
    provider      text COLLATE "C",
    game          text COLLATE "C",
    kind          text COLLATE "C",
    launched_at   timestamptz,
    opened_at     timestamptz,
    ends_at       timestamptz,
    ended_at      timestamptz,
    reason        text,
    currency      text COLLATE "C",
    bets          bigint NOT NULL,
    staked        bigint NOT NULL,
    staked_cash   bigint NOT NULL,
    won           bigint NOT NULL,
    won_cash      bigint NOT NULL,
    returned      bigint NOT NULL,
    returned_cash bigint NOT NULL,
    status        text COLLATE "C" NOT NULL GENERATED ALWAYS AS (
        CASE WHEN ended_at IS NOT NULL THEN 'ended' WHEN opened_at IS NOT NULL THEN 'open'
             WHEN launched_at IS NOT NULL THEN 'launched' ELSE 'unknown' END) STORED,
    PRIMARY KEY (id, player)
) WITH (fillfactor = 80);
CREATE INDEX ON read.session (launched_at, id);
CREATE INDEX ON read.session (player, launched_at, id);
CREATE INDEX ON read.session (status, launched_at, id);
CREATE INDEX ON read.session (player, status, launched_at, id);
COMMENT ON COLUMN read.session.status IS 'unknown: a provider has named it, but nobody has launched it for this player';

GRANT SELECT ON read.round, read.ggr, read.session TO countroom_reader;
RESET ROLE;
