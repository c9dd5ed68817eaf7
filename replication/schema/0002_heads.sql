-- The checkpointer and the witness keep evidence, too: heads that disagree, copies that differ.
SET LOCAL ROLE countroom_ledger;

ALTER TABLE replication.evidence DROP CONSTRAINT evidence_role_check;
ALTER TABLE replication.evidence ADD CONSTRAINT evidence_role_check CHECK (role IN ('relay', 'applier', 'checkpointer', 'witness'));
ALTER TABLE replication.status DROP CONSTRAINT status_role_check;
ALTER TABLE replication.status ADD CONSTRAINT status_role_check CHECK (role IN ('relay', 'applier', 'checkpointer', 'witness'));

GRANT USAGE ON SCHEMA replication TO countroom_heads;
GRANT INSERT, UPDATE ON replication.status TO countroom_heads;
GRANT INSERT ON replication.evidence TO countroom_heads;
GRANT EXECUTE ON FUNCTION replication.report, replication.halt TO countroom_heads;
RESET ROLE;
