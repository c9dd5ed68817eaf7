-- What `caught_up` says, in words that are true also where too few witnesses have signed a head that was published.
SET LOCAL ROLE countroom_ledger;

COMMENT ON COLUMN replication.catch_up.target IS 'how far the log went at its source, as far as that is wanted here';
COMMENT ON COLUMN replication.catch_up.vouched IS 'up to where a witnessed head stood for entries before they were taken; 0: they came from the origin';
COMMENT ON VIEW replication.caught_up IS 'A copy has caught up once `vouched` is `target` or more: the size of the newest published head that it agrees with. Who has witnessed that, the policy says.';

RESET ROLE;
