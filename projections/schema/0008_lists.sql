-- Lists find what is rare by an index (queries/listing.py): a filter's columns, then the time and the id that make the order.
-- And what is overdue is counted by log and duty (queries/due.py), however much of it is another region's.

SET LOCAL ROLE countroom_projector;

DROP INDEX IF EXISTS read.player_status_id_idx;
CREATE INDEX ON read.player (registered_at, id);
CREATE INDEX ON read.player (status, registered_at, id);
CREATE INDEX ON read.player (brand, registered_at, id);
CREATE INDEX ON read.player (country, registered_at, id);

CREATE INDEX ON read.transaction (kind, requested_at, id);
CREATE INDEX ON read.transaction (provider, requested_at, id);

CREATE INDEX ON read.ticket (due_at, id);
CREATE INDEX ON read.ticket (priority, due_at, id);
CREATE INDEX ON read.ticket (assignee, due_at, id);

CREATE INDEX ON read.due (log, kind, due_at);

RESET ROLE;
