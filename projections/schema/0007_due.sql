-- What is due when: what time will change if nobody does before, and what waits to be done in the outside world.

SET LOCAL ROLE countroom_projector;

CREATE TABLE read.due (
    stream    text COLLATE "C" NOT NULL,
    kind      text COLLATE "C" NOT NULL,
    due_at    timestamptz NOT NULL,
    cause     text COLLATE "C" NOT NULL,
    log       text COLLATE "C" NOT NULL,
    position  bigint NOT NULL,
    partition bigint NOT NULL,
    PRIMARY KEY (stream, kind)
) WITH (fillfactor = 80);
CREATE INDEX ON read.due (kind, due_at, stream);
COMMENT ON TABLE read.due IS 'One row for each thing that is to be done; the event that did it takes the row away.';
COMMENT ON COLUMN read.due.cause IS 'the id of the event that set the time, which stands at `position` of `log`';

GRANT SELECT ON read.due TO countroom_reader;
RESET ROLE;
