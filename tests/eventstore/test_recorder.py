"""The eventsourcing library's own test cases, run on our recorders, and what they do not ask."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from eventsourcing.persistence import DataError, IntegrityError, ProgrammingError, StoredEvent, Tracking
from eventsourcing.postgres import PostgresAggregateRecorder, PostgresDatastore, PostgresTrackingRecorder
from eventsourcing.tests import application, persistence
from eventsourcing.utils import Environment, get_topic
from psycopg.conninfo import conninfo_to_dict

from eventstore.recorder import Factory, LogApplicationRecorder, LogProcessRecorder
from tests.ledger import Ledger, whole


def environment(dsn: str) -> dict[str, str]:
    place = conninfo_to_dict(dsn)
    return {
        "PERSISTENCE_MODULE": get_topic(Factory),
        "POSTGRES_DBNAME": str(place["dbname"]),
        "POSTGRES_HOST": str(place["host"]),
        "POSTGRES_PORT": str(place["port"]),
        "POSTGRES_USER": str(place["user"]),
        "POSTGRES_PASSWORD": str(place["password"]),
    }


def datastore_of(dsn: str, **options: Any) -> PostgresDatastore:
    names = ("DBNAME", "HOST", "PORT", "USER", "PASSWORD")
    given = environment(dsn)
    place = {name.lower(): given[f"POSTGRES_{name}"] for name in names}
    return PostgresDatastore(**place, pool_size=1, max_overflow=11, **options)  # type: ignore[arg-type]


@pytest.fixture
def datastore(migrated: str) -> Iterator[PostgresDatastore]:
    with datastore_of(migrated) as datastore:
        yield datastore


class OnALog:
    """What the library's test cases need."""

    @pytest.fixture(autouse=True)
    def _datastore(self, migrated: str, datastore: PostgresDatastore) -> Iterator[None]:
        self.datastore = datastore
        yield
        _assert_the_log_is_whole(migrated)

    def create_recorder(self) -> Any:
        recorder = LogProcessRecorder(self.datastore)
        recorder.create_table()
        return recorder


def _assert_the_log_is_whole(dsn: str) -> None:
    entries = Ledger(dsn).entries("storedevents")
    assert list(whole(entries, f"countroom.{conninfo_to_dict(dsn)['dbname']}/storedevents"))


class TestApplicationRecorder(OnALog, persistence.ApplicationRecorderTestCase[LogApplicationRecorder]):
    def create_recorder(self) -> LogApplicationRecorder:
        recorder = LogApplicationRecorder(self.datastore)
        recorder.create_table()
        return recorder

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestNotificationIds(OnALog, persistence.NonInterleavingNotificationIDsBaseCase):
    pass


class TestProcessRecorder(OnALog, persistence.ProcessRecorderTestCase):
    pass


class TestTrackingRecorder(OnALog, persistence.TrackingRecorderTestCase):
    pass


class SubclassedTrackingRecorder(PostgresTrackingRecorder):
    pass


class TestFactory(persistence.InfrastructureFactoryTestCase[Factory]):
    @pytest.fixture(autouse=True)
    def _environment(self, migrated: str) -> None:
        self.env = Environment("TestCase", environment(migrated))

    def setUp(self) -> None:
        """Leave it to `construct`, which runs once the fixtures have."""

    @pytest.fixture(autouse=True)
    def _construct(self, _environment: None) -> None:
        super().setUp()

    def expected_factory_class(self) -> type[Factory]:
        return Factory

    def expected_aggregate_recorder_class(self) -> type[PostgresAggregateRecorder]:
        return PostgresAggregateRecorder

    def expected_application_recorder_class(self) -> type[LogApplicationRecorder]:
        return LogApplicationRecorder

    def expected_tracking_recorder_class(self) -> type[PostgresTrackingRecorder]:
        return PostgresTrackingRecorder

    def tracking_recorder_subclass(self) -> type[PostgresTrackingRecorder]:
        return SubclassedTrackingRecorder

    def expected_process_recorder_class(self) -> type[LogProcessRecorder]:
        return LogProcessRecorder


class TestApplication(application.ExampleApplicationTestCase):
    expected_factory_topic = get_topic(Factory)

    @pytest.fixture(autouse=True)
    def _environment(self, migrated: str, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in environment(migrated).items():
            monkeypatch.setenv(name, value)


def stored(originator: uuid.UUID | str, version: int, state: bytes = b"state") -> StoredEvent:
    return StoredEvent(originator, version, "topic", state)


@pytest.fixture
def recorder(datastore: PostgresDatastore) -> LogProcessRecorder:
    recorder = LogProcessRecorder(datastore)
    recorder.create_table()
    return recorder


@pytest.mark.parametrize("first", [0, 1, 7])
def test_a_stream_may_begin_at_any_version_and_has_no_gap(recorder: LogProcessRecorder, first: int) -> None:
    originator = uuid.uuid4()
    recorder.insert_events([stored(originator, first), stored(originator, first + 1)])
    recorder.insert_events([stored(originator, first + 2)])
    for wrong in (first - 1, first, first + 2, first + 4):
        with pytest.raises(IntegrityError):
            recorder.insert_events([stored(originator, wrong)])
    with pytest.raises(IntegrityError):
        recorder.insert_events([stored(originator, first + 3), stored(originator, first + 5)])
    versions = [event.originator_version for event in recorder.select_events(originator)]
    assert versions == [first, first + 1, first + 2]
    (one,) = recorder.select_events(originator, gt=first, lte=first + 1)
    assert one.originator_version == first + 1


def test_a_tracking_record_and_its_events_are_there_together_or_not_at_all(recorder: LogProcessRecorder) -> None:
    originator = uuid.uuid4()
    recorder.insert_events([stored(originator, 1)], tracking=Tracking("upstream", 5))
    with pytest.raises(IntegrityError):
        recorder.insert_events([stored(originator, 2)], tracking=Tracking("upstream", 5))
    with pytest.raises(IntegrityError):
        recorder.insert_events([stored(originator, 1)], tracking=Tracking("upstream", 6))
    assert len(recorder.select_events(originator)) == 1
    assert recorder.max_tracking_id("upstream") == 5
    assert recorder.max_notification_id() == 1


def test_an_insert_whose_answer_was_lost_has_one_effect_and_the_first_answer(recorder: LogProcessRecorder) -> None:
    originator, command = uuid.uuid4(), uuid.uuid4()
    events = [stored(originator, 1), stored(originator, 2)]
    first, again = (recorder._insert(command, events, tracking=Tracking("upstream", 9)) for _ in range(2))
    assert first == again == [1, 2]
    assert recorder.max_notification_id() == 2
    assert recorder.max_tracking_id("upstream") == 9


def test_an_insert_of_more_than_256_kib_becomes_several_commands_and_stays_atomic(recorder: LogProcessRecorder) -> None:
    originator = uuid.uuid4()
    many = [stored(originator, version, b"s" * 30_000) for version in range(1, 21)]
    with pytest.raises(IntegrityError):
        recorder.insert_events([*many, stored(originator, 22)])
    assert recorder.max_notification_id() is None
    assert recorder.insert_events(many) == list(range(1, 21))
    assert recorder.select_events(originator) == many


def test_an_event_of_more_than_60_kib_is_refused(recorder: LogProcessRecorder) -> None:
    with pytest.raises(DataError, match="60 KiB"):
        recorder.insert_events([stored(uuid.uuid4(), 1, b"s" * 60_000)])


def test_identifiers_may_be_text(migrated: str) -> None:
    with datastore_of(migrated, originator_id_type="text") as datastore:
        recorder = LogApplicationRecorder(datastore)
        recorder.create_table()
        recorder.insert_events([stored("Konto/Ä-1", 1)])
        assert recorder.select_events("Konto/Ä-1") == [stored("Konto/Ä-1", 1)]
        (notification,) = recorder.select_notifications(1, 10)
        assert notification.originator_id == "Konto/Ä-1"


def test_a_writer_that_may_create_nothing_can_use_what_was_created(migrated: str, datastore: PostgresDatastore) -> None:
    LogApplicationRecorder(datastore).create_table()
    LogApplicationRecorder(datastore).create_table()  # harmless
    with datastore_of(Ledger(migrated).login("writer")) as restricted:
        recorder = LogApplicationRecorder(restricted)
        assert recorder.insert_events([stored(uuid.uuid4(), 1)]) == [1]
        with pytest.raises(ProgrammingError):
            recorder.create_table()


def test_a_recorder_does_not_write_into_the_log_of_a_region(ledger: Ledger) -> None:
    with datastore_of(ledger.dsn) as datastore, pytest.raises(ProgrammingError, match="log of a region"):
        LogApplicationRecorder(datastore, events_table_name="eu").create_table()
