-- What the rules remember of each player, what they have found that is no notice yet; notices, and contacts with players.

SET LOCAL ROLE countroom_projector;

CREATE TABLE read.watched (
    player  text COLLATE "C" PRIMARY KEY,
    picture text NOT NULL
) WITH (fillfactor = 80);
COMMENT ON COLUMN read.watched.picture IS 'domain.findings.Picture, as JSON: sums by part of a span and ids of events, nothing personal';

CREATE TABLE read.finding (
    cause     text COLLATE "C" NOT NULL,
    rule      text COLLATE "C" NOT NULL,
    version   bigint NOT NULL,
    player    text COLLATE "C" NOT NULL,
    at        timestamptz NOT NULL,
    finding   json NOT NULL,
    log       text COLLATE "C" NOT NULL,
    position  bigint NOT NULL,
    partition bigint NOT NULL,
    PRIMARY KEY (cause, rule)
);
CREATE INDEX ON read.finding (at, cause, rule);
COMMENT ON TABLE read.finding IS 'One row for each finding that is to become a notice; the event that says it has, or was withheld, takes the row away.';

CREATE TABLE read.notice (
    id       text COLLATE "C" PRIMARY KEY,
    version  bigint NOT NULL,
    player   text COLLATE "C" NOT NULL,
    status   text COLLATE "C" NOT NULL,
    rule     text COLLATE "C" NOT NULL,
    kind     text COLLATE "C" NOT NULL,
    severity text COLLATE "C" NOT NULL,
    assignee text COLLATE "C",
    due_at   timestamptz NOT NULL,
    state    json NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX ON read.notice (due_at, id);
CREATE INDEX ON read.notice (player, due_at, id);
CREATE INDEX ON read.notice (status, due_at, id);
CREATE INDEX ON read.notice (rule, due_at, id);
CREATE INDEX ON read.notice (kind, status, due_at, id);
CREATE INDEX ON read.notice (assignee, status, due_at, id);

CREATE TABLE read.contact (
    id       text COLLATE "C" PRIMARY KEY,
    version  bigint NOT NULL,
    player   text COLLATE "C" NOT NULL,
    status   text COLLATE "C" NOT NULL,
    reason   text COLLATE "C" NOT NULL,
    trigger  text COLLATE "C",
    due_at   timestamptz NOT NULL,
    state    json NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX ON read.contact (due_at, id);
CREATE INDEX ON read.contact (player, due_at, id);
CREATE INDEX ON read.contact (status, due_at, id);
CREATE INDEX ON read.contact (reason, due_at, id);
CREATE INDEX ON read.contact (trigger, due_at, id);
COMMENT ON COLUMN read.contact.due_at IS 'what is due next; of a contact that is over, when it was made';

CREATE TABLE read.contact_note (
    contact text COLLATE "C" NOT NULL,
    event   text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    kind    text NOT NULL,
    author  text COLLATE "C" NOT NULL,
    at      timestamptz NOT NULL,
    sealed  text,
    PRIMARY KEY (contact, event)
);
CREATE INDEX ON read.contact_note (contact, version);

GRANT SELECT ON read.watched, read.finding, read.notice, read.contact, read.contact_note TO countroom_reader;
RESET ROLE;
