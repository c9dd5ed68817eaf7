-- Approvals: commands that wait, or have waited, for a second person.

SET LOCAL ROLE countroom_projector;
CREATE TABLE read.approval (
    id            text COLLATE "C" PRIMARY KEY,
    version       bigint NOT NULL,
    player        text COLLATE "C" NOT NULL,
    status        text NOT NULL,
    action        text NOT NULL,
    path          text NOT NULL,
    body          text NOT NULL,
    hash          text NOT NULL,
    reasons       text NOT NULL,
    requester     text NOT NULL,
    requested_at  timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL,
    decided_at    timestamptz,
    decided_by    text,
    reject_reason text
) WITH (fillfactor = 90);
COMMENT ON COLUMN read.approval.body IS 'the JSON text as it was sent; hash is over path, LF and this';
COMMENT ON COLUMN read.approval.reasons IS 'words of policies.approvals, with commas between them';
CREATE INDEX ON read.approval (expires_at, id);
CREATE INDEX ON read.approval (player, expires_at, id);
CREATE INDEX ON read.approval (status, expires_at, id);
GRANT SELECT ON read.approval TO countroom_reader;
RESET ROLE;
