"""
The `eventsourcing` library's recorders (eventsourcing.readthedocs.io, "Persistence") on our log, so that its applications,
projections and tools run on a chained, gapless log. Its PERSISTENCE_MODULE is `eventstore.recorder:Factory`.

Each recorder has a log of its own, named after its table of events and opened without partitions. What is inserted
together is a command; an event is an entry of the stream `region-<log>-originator_<id>`, and

    notification id = position - 1      log.opened stands at 1, so ids are contiguous from 1
    data            = {topic, state in base64, originator_id, originator_version}

Invariants:
    - an event's version counts from 1 and has no gaps, as in every stream; the library's own stands in the data, since its
      streams begin at whatever number they like (0 and 1 both occur);
    - an insert that is sent again after a lost connection has one effect, and the first answer;
    - a process's tracking record is committed together with its events.

Snapshots and tracking records are the library's own tables. `create_table` registers the log, which only the owner of the
ledger may do; from then on (CREATE_TABLE=n) countroom_writer is enough. Not for the hot path: all of this is synchronous.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, LiteralString, NamedTuple
from uuid import UUID

import msgspec
import psycopg
from eventsourcing.persistence import (
    DataError,
    IntegrityError,
    InterfaceError,
    Notification,
    OperationalError,
    ProgrammingError,
    StoredEvent,
)
from eventsourcing.postgres import (
    PostgresApplicationRecorder,
    PostgresDatastore,
    PostgresFactory,
    PostgresProcessRecorder,
)
from eventsourcing.utils import retry
from psycopg import Cursor
from psycopg.rows import TupleRow, tuple_row

from domain.kernel import suffix, uuid7
from eventstore.log import Malformed, Reason
from eventstore.postgres import refusal
from eventstore.record import COMMAND_BYTES_MAX, Body, CommandPart, encode_body

TAG = "originator.stored"
_ACTOR = "system"
_CHANNEL = "ledger"  # what the doors notify
_ENVELOPE_BYTES_MAX = 512  # of a body, beside its data and its stream's name

_DATA = "convert_from(e.body, 'UTF8')::json -> 'data'"
_LOG = "SELECT id, origin FROM ledger.log WHERE name = %s AND own"
_OWNER = "SELECT partition FROM ledger.ownership WHERE log = %s LIMIT 1"
_LAST = "SELECT position FROM ledger.entry WHERE log = %s::smallint ORDER BY position DESC LIMIT 1"
_APPEND = (
    "SELECT outcomes, positions FROM ledger.append(%s::smallint, %s::uuid[], %s::int[], %s::bytea[], '{}', '{}', '{}')"
)
_SHIFTS = f"""
    SELECT e.stream, ({_DATA} ->> 'originator_version')::bigint - 1 FROM ledger.entry AS e
     WHERE e.stream = ANY (%s) AND e.version = 1"""
_EVENTS = f"""
    WITH f AS (SELECT ({_DATA} ->> 'originator_version')::bigint - 1 AS shift
                 FROM ledger.entry AS e WHERE e.stream = %(stream)s AND e.version = 1)
    SELECT e.position, e.stream, e.body FROM ledger.entry AS e, f
     WHERE e.stream = %(stream)s AND e.version > coalesce(%(gt)s::bigint - f.shift, 0)
           AND (%(lte)s::bigint IS NULL OR e.version <= %(lte)s::bigint - f.shift)
     ORDER BY e.version"""
_NOTIFICATIONS = f"""
    SELECT e.position, e.stream, e.body FROM ledger.entry AS e
     WHERE e.log = %(log)s::smallint AND e.position > %(after)s::bigint + 1
           AND (%(upto)s::bigint IS NULL OR e.position <= %(upto)s::bigint + 1)
           AND (%(topics)s::text[] IS NULL OR {_DATA} ->> 'topic' = ANY (%(topics)s))
     ORDER BY e.position LIMIT %(limit)s"""


class Data(msgspec.Struct, frozen=True):
    """`state` is what the library's mapper made of an event."""

    topic: str
    state: bytes
    originator_id: str
    originator_version: int


class _Stored(msgspec.Struct, frozen=True):
    data: Data


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Stored).decode


class _Names:
    """What a recorder's log and streams are called."""

    def __init__(self, table: str, id_type: str) -> None:
        self.log = re.sub("[^a-z0-9]", "", table.lower())
        self._prefix = f"region-{self.log}-originator_"
        self._has_uuids = id_type == "uuid"

    @property
    def own_stream(self) -> str:
        return f"region-{self.log}-log"

    def stream(self, originator: UUID | str) -> str:
        """A UUID's own suffix; for any other text, that of its digest."""
        text = str(originator)
        number = UUID(text).bytes if self._has_uuids else hashlib.sha256(text.encode()).digest()[:16]
        return self._prefix + suffix(number)

    def originator(self, data: Data) -> UUID | str:
        return UUID(data.originator_id) if self._has_uuids else data.originator_id


class _Event(NamedTuple):
    """An event on its way into a stream."""

    stream: str
    version: int
    data: bytes


class LogApplicationRecorder(PostgresApplicationRecorder):
    """Keeps an application's events in a log."""

    def __init__(self, datastore: PostgresDatastore, *, events_table_name: str = "stored_events") -> None:
        super().__init__(datastore, events_table_name=events_table_name)
        self.sql_create_statements = []
        self.channel_name = _CHANNEL
        self._names = _Names(events_table_name, datastore.originator_id_type)
        self._id: int | None = None

    def create_table(self) -> None:
        """Register and open the log. Harmless where it is open. Raises ProgrammingError if a region has a log of its name."""
        super().create_table()
        with (
            self.datastore.get_connection() as connection,
            connection.transaction(),
            connection.cursor(row_factory=tuple_row) as cursor,
        ):
            known = cursor.execute(_LOG, (self._names.log,)).fetchone()
            origin = known[1] if known else f"countroom.{connection.info.dbname}/{self._names.log}"
            found = cursor.execute("SELECT ledger.register_log(%s, %s, true)", (self._names.log, origin)).fetchone()
            assert found is not None  # noqa: S101 — a function returns one row
            if cursor.execute(_OWNER, found).fetchone() is not None:
                raise ProgrammingError(f"{self._names.log} is the log of a region")
            if cursor.execute(_LAST, found).fetchone() is None:
                opened = _encode({"origin": origin, "epoch": 1, "partitions": []})
                self._append(cursor, found[0], _new_uuid(), [_Event(self._names.own_stream, 1, opened)], "log.opened")

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Insert all or none, and return their notification ids (None for no events).

        Raises IntegrityError where a version is taken or left out, DataError for an event of more than 60 KiB.
        """
        inserted: Sequence[int] | None = self._insert(_new_uuid(), stored_events, **kwargs)
        return inserted

    @retry((InterfaceError, OperationalError), max_attempts=10, wait=0.2)
    def _insert(self, command: UUID, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        with self.datastore.get_connection() as connection, connection.transaction():
            positions: list[int] = []
            done_before = False
            with connection.cursor(row_factory=tuple_row) as cursor:
                events = self._versioned(cursor, stored_events)
                for place, part in enumerate(_parts(events)):
                    id_ = UUID(int=command.int + place)
                    outcome, first = self._append(cursor, self._log_id(cursor), id_, part, TAG)
                    if outcome == Reason.CONFLICT:
                        raise IntegrityError(f"a version of {part[0].stream} is taken already")
                    done_before = outcome == Reason.DUPLICATE
                    positions += range(first, first + len(part))
            if not done_before:
                with connection.cursor() as others:
                    self._insert_events(others, stored_events, **kwargs)  # a process's tracking record
        return [position - 1 for position in positions] or None

    def _versioned(self, cursor: Cursor[TupleRow], stored_events: Sequence[StoredEvent]) -> list[_Event]:
        """The events with their versions in our streams. Raises IntegrityError for versions that leave a gap."""
        streams = [self._names.stream(stored.originator_id) for stored in stored_events]
        shifts: dict[str, int] = dict(cursor.execute(_SHIFTS, (list(set(streams)),)).fetchall()) if streams else {}
        last: dict[str, int] = {}
        events = []
        for stream, stored in zip(streams, stored_events, strict=True):
            version = stored.originator_version - shifts.setdefault(stream, stored.originator_version - 1)
            if version != last.get(stream, version - 1) + 1 or version < 1:
                raise IntegrityError(f"version {stored.originator_version} of {stored.originator_id} is not the next")
            last[stream] = version
            data = _encode(Data(stored.topic, stored.state, str(stored.originator_id), stored.originator_version))
            events.append(_Event(stream, version, data))
        return events

    def _append(
        self, cursor: Cursor[TupleRow], log: int, id_: UUID, events: Sequence[_Event], tag: str
    ) -> tuple[int, int]:
        """Outcome and first position of one command."""
        bodies = [
            encode_body(
                Body(
                    stream=event.stream,
                    version=event.version,
                    type=tag,
                    id=str(_new_uuid()),
                    actor=_ACTOR,
                    command=CommandPart(id=id_.hex, i=i, n=len(events)),
                    data=msgspec.Raw(event.data),
                )
            )
            for i, event in enumerate(events, 1)
        ]
        try:
            row = cursor.execute(_APPEND, (log, [id_], [len(bodies)], bodies), prepare=True).fetchone()
        except psycopg.DatabaseError as error:
            meant = refusal(error)
            raise (DataError(str(meant)) if isinstance(meant, Malformed) else error) from error
        assert row is not None  # noqa: S101 — a function of OUT parameters returns one row
        (outcome,), (position,) = row
        return outcome, position

    @retry((InterfaceError, OperationalError), max_attempts=10, wait=0.2)
    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        query = _EVENTS + (" DESC LIMIT %(limit)s" if desc else " ASC LIMIT %(limit)s")
        arguments = {"stream": self._names.stream(originator_id), "gt": gt, "lte": lte, "limit": limit}
        return [
            StoredEvent(originator_id, data.originator_version, data.topic, data.state)
            for _, _, data in self._select(query, arguments)
        ]

    @retry((InterfaceError, OperationalError), max_attempts=10, wait=0.2)
    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        after = max(0, (start or 0) - (1 if inclusive_of_start else 0))
        arguments = {"after": after, "upto": stop, "topics": list(topics) or None, "limit": limit}
        return [
            Notification(
                id=position - 1,
                originator_id=self._names.originator(data),
                originator_version=data.originator_version,
                topic=data.topic,
                state=data.state,
            )
            for position, _, data in self._select(_NOTIFICATIONS, arguments)
        ]

    @retry((InterfaceError, OperationalError), max_attempts=10, wait=0.2)
    def max_notification_id(self) -> int | None:
        with self.datastore.get_connection() as connection, connection.cursor(row_factory=tuple_row) as cursor:
            row = cursor.execute(_LAST, (self._log_id(cursor),)).fetchone()
        return row[0] - 1 or None if row else None

    def _select(self, query: LiteralString, arguments: dict[str, Any]) -> Iterable[tuple[int, str, Data]]:
        with self.datastore.get_connection() as connection, connection.cursor(row_factory=tuple_row) as cursor:
            cursor.execute(query, {**arguments, "log": self._log_id(cursor)}, prepare=True)
            return [(position, stream, _decode(body).data) for position, stream, body in cursor.fetchall()]

    def _log_id(self, cursor: Cursor[TupleRow]) -> int:
        if self._id is None:
            row = cursor.execute(_LOG, (self._names.log,)).fetchone()
            if row is None:
                raise ProgrammingError(f"there is no log called {self._names.log}; create_table() makes it")
            self._id = row[0]
        return self._id


class LogProcessRecorder(PostgresProcessRecorder, LogApplicationRecorder):
    """Keeps a process's events in a log, and with them, in the same transaction, how far it has read of others."""


class Factory(PostgresFactory):
    application_recorder_class = LogApplicationRecorder
    process_recorder_class = LogProcessRecorder


def _parts(events: Sequence[_Event]) -> Iterator[list[_Event]]:
    """Commands of at most 256 KiB. They are committed together; only a copy of the log may see one without the next."""
    part: list[_Event] = []
    size = 0
    for event in events:
        bytes_max = len(event.data) + len(event.stream) + _ENVELOPE_BYTES_MAX
        if part and size + bytes_max > COMMAND_BYTES_MAX:
            yield part
            part, size = [], 0
        part.append(event)
        size += bytes_max
    if part:
        yield part


def _new_uuid() -> UUID:
    return UUID(bytes=uuid7(datetime.now(UTC), os.urandom(10)))
