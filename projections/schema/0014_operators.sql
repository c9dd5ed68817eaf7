-- Operators and tokens; and approvals that concern an operator.

SET LOCAL ROLE countroom_projector;

CREATE TABLE read.operator (
    id      text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,
    status  text COLLATE "C" NOT NULL,
    since   timestamptz NOT NULL,
    words   text,
    state   json NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX ON read.operator (since, id);
CREATE INDEX ON read.operator (status, since, id);
COMMENT ON COLUMN read.operator.words IS 'sealed: name and e-mail address';

CREATE TABLE read.token (LIKE read.operator INCLUDING ALL);
COMMENT ON COLUMN read.token.words IS 'always null';

GRANT SELECT ON read.operator, read.token TO countroom_reader;

ALTER TABLE read.approval
    ALTER COLUMN player DROP NOT NULL,
    ADD COLUMN operator         text COLLATE "C",
    ADD COLUMN requester_person text NOT NULL DEFAULT '',
    ADD COLUMN decider_person   text;
CREATE INDEX ON read.approval (operator, expires_at, id) WHERE operator IS NOT NULL;
COMMENT ON COLUMN read.approval.requester_person IS 'who is behind the requester, if that does not speak for itself';

RESET ROLE;
