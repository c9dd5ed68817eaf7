-- Tickets: what support works on, by due time. What people wrote stands sealed in ticket_message.

SET LOCAL ROLE countroom_projector;

CREATE TABLE read.ticket (
    id                    text COLLATE "C" PRIMARY KEY,
    version               bigint NOT NULL,
    player                text COLLATE "C" NOT NULL,
    status                text NOT NULL,
    priority              text NOT NULL,
    channel               text NOT NULL,
    opened_by             text NOT NULL,
    transaction           text COLLATE "C",
    assignee              text COLLATE "C",
    opened_at             timestamptz NOT NULL,
    first_response_due    timestamptz NOT NULL,
    resolution_due        timestamptz NOT NULL,
    due_at                timestamptz NOT NULL,
    awaits_answer         bigint NOT NULL,
    first_response_missed bigint NOT NULL,
    resolution_missed     bigint NOT NULL,
    answered_at           timestamptz,
    closed_at             timestamptz,
    resolution            text
) WITH (fillfactor = 80);
CREATE INDEX ON read.ticket (status, due_at, id);
CREATE INDEX ON read.ticket (player, due_at, id);
CREATE INDEX ON read.ticket (assignee, status, due_at, id);
COMMENT ON COLUMN read.ticket.due_at IS 'what is due next; of a closed ticket, when its end was due';
COMMENT ON COLUMN read.ticket.awaits_answer IS '1: a first answer is still promised; the two below: 1 = that promise was not kept';

CREATE TABLE read.ticket_message (
    ticket  text COLLATE "C" NOT NULL,
    event   text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    kind    text NOT NULL,
    author  text COLLATE "C" NOT NULL,
    at      timestamptz NOT NULL,
    sealed  json NOT NULL,
    PRIMARY KEY (ticket, event)
);
CREATE INDEX ON read.ticket_message (ticket, version);
COMMENT ON COLUMN read.ticket_message.sealed IS 'the sealed fields as they stand in the event, whose id is needed to open them';

GRANT SELECT ON read.ticket, read.ticket_message TO countroom_reader;
RESET ROLE;
