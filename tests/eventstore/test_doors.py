"""The doors to the tables in PostgreSQL, and every way around them that we could think of."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, LiteralString

import msgspec
import psycopg
import pytest
from psycopg import errors

from eventstore.record import Entry, genesis, leaf_hash
from tests.ledger import EU, US, Clock, Ledger, body, chained, command, new_id, opening, stream, whole

DOORS = {  # beside those of every reader
    "reader": {"may_write"},
    "writer": {"append"},
    "applier": {"append_copy"},
    "projector": set[str](),
    "heads": {"keep_checkpoint", "clear_to_write", "restore"},
}
ROLES = tuple(DOORS)
PLAIN = {"number_of", "is_for"}  # of readers: they see what the reader sees
TABLES = {  # and a column of each
    "ledger.log": "name",
    "ledger.entry": "leaf",
    "ledger.entry_1": "leaf",
    "ledger.ownership": "epoch",
    "ledger.snapshot": "state",
    "ledger.subtree": "hash",
    "ledger.checkpoint": "root",
}
CACHES = {  # kept by a role, and by which statements
    ("ledger.snapshot", "writer"): ("INSERT", "UPDATE", "DELETE", "COPY"),
    ("ledger.subtree", "heads"): ("INSERT", "COPY"),
}


@pytest.fixture
def written(ledger: Ledger) -> Ledger:
    """A log with a few entries and a snapshot."""
    ledger.append(command(("wallet 1", 1), ("limits 1", 1)), command(("wallet 2", 1)))
    ledger.sql(b"INSERT INTO ledger.snapshot VALUES ('wallet-x', 1, '\\x00', 's', '{}')")
    return ledger


# What each role may do


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("table", TABLES)
def test_every_service_may_read(written: Ledger, role: str, table: str) -> None:
    written.sql(f"SELECT * FROM {table} LIMIT 1".encode(), role=role)


@pytest.mark.parametrize("role", ROLES)
def test_no_service_changes_a_table_of_the_log(written: Ledger, role: str) -> None:
    """Whoever logs in as a superuser and only acts as a role can drop the role again: services have logins of their own."""
    before = written.entries()
    with psycopg.connect(written.login(role), autocommit=True) as connection:
        for table, column in TABLES.items():
            for change in (
                f"INSERT INTO {table} SELECT * FROM {table} LIMIT 1",
                f"UPDATE {table} SET {column} = {column}",
                f"DELETE FROM {table}",
                f"TRUNCATE {table}",
                f"DROP TABLE {table}",
                f"ALTER TABLE {table} DISABLE TRIGGER ALL",
                f"CREATE TRIGGER t BEFORE INSERT ON {table} EXECUTE FUNCTION ledger.refuse_change()",
                f"COPY {table} FROM STDIN",
            ):
                if change.startswith(CACHES.get((table, role), ())):
                    continue
                with pytest.raises(errors.InsufficientPrivilege):
                    connection.execute(change.encode())
        for other in (
            "SET session_replication_role = replica",
            "SET ROLE countroom_ledger",
            "CREATE TABLE ledger.another (a int)",
            "SELECT ledger.register_log('xx', 'countroom.test/xx', true)",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(other.encode())
    assert written.entries() == before


def functions(ledger: Ledger) -> list[tuple[str, bool]]:
    rows = ledger.sql(
        "SELECT p.oid::regprocedure::text, p.prosecdef FROM pg_proc AS p WHERE p.pronamespace = 'ledger'::regnamespace"
    )
    return [(name, definer) for name, definer in rows]


def test_each_role_may_execute_its_own_door_and_no_other_function(ledger: Ledger) -> None:
    for role in ROLES:
        allowed = {
            name.partition("(")[0].removeprefix("ledger.")
            for name, _ in functions(ledger)
            if ledger.sql("SELECT has_function_privilege(%s, %s, 'EXECUTE')", f"countroom_{role}", name) == [(True,)]
        }
        assert allowed == DOORS[role] | DOORS["reader"] | PLAIN, role


def test_only_the_doors_run_with_their_owners_rights(ledger: Ledger) -> None:
    definers = {name.partition("(")[0] for name, definer in functions(ledger) if definer}
    assert definers == {f"ledger.{door}" for door in {"register_log", "guard"}.union(*DOORS.values())}
    pinned = ledger.sql(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'ledger'::regnamespace AND prosecdef"
        " AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), false)"
    )
    assert pinned == []


def test_the_owner_of_the_tables_cannot_log_in_and_nobody_is_a_member(ledger: Ledger) -> None:
    assert ledger.sql("SELECT rolcanlogin, rolsuper FROM pg_roles WHERE rolname = 'countroom_ledger'") == [
        (False, False)
    ]
    members = "SELECT FROM pg_auth_members AS m JOIN pg_roles AS r ON r.oid = m.member WHERE m.roleid = 'countroom_ledger'::regrole AND NOT r.rolsuper"
    assert ledger.sql(members.encode()) == []


def test_a_writer_reaches_no_copy_and_an_applier_no_own_log(ledger: Ledger) -> None:
    with psycopg.connect(ledger.as_role("writer"), autocommit=True) as connection:
        with pytest.raises(psycopg.DatabaseError) as refused:
            ledger.append(command(("wallet 1", 1)), log=2, connection=connection)
        assert refused.value.sqlstate == "CR002"
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("SELECT ledger.append_copy(2::smallint, 1, '{}', '{}', '{}')")
    entries = chained(EU, [body("wallet 1", 1, new_id())])
    with pytest.raises(psycopg.DatabaseError) as refused:
        ledger.append_copy(entries, log=1)
    assert refused.value.sqlstate == "CR002"
    with pytest.raises(psycopg.DatabaseError) as refused:
        ledger.append_copy(entries, log=77)
    assert refused.value.sqlstate == "CR002"


# Written once, even for the owner


@pytest.mark.parametrize("role", ["ledger", None], ids=["owner", "superuser"])
@pytest.mark.parametrize("table", ["ledger.entry", "ledger.entry_1"])
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE {} SET recorded = recorded + 1",
        "UPDATE {} SET stream = NULL WHERE position = 2",
        "UPDATE {} SET leaf = leaf WHERE position = 2",
        "DELETE FROM {} WHERE position = 2",
        "TRUNCATE {}",
        "TRUNCATE {} CASCADE",
    ],
)
def test_the_log_is_written_once(written: Ledger, role: str | None, table: str, change: LiteralString) -> None:
    before = written.entries()
    with pytest.raises(psycopg.DatabaseError) as refused:
        written.sql(change.format(table).encode(), role=role)
    assert refused.value.sqlstate == "CR001"
    assert written.entries() == before


def test_a_log_that_is_registered_later_is_guarded_too(migrated: str) -> None:
    made = Ledger(migrated)
    for name in ("eu", "eu.2"):
        made.sql("SELECT ledger.register_log(%s, %s, true)", name, f"countroom.test/{name}")
    made.append(opening("countroom.test/eu.2"), log=2)
    for change in ("UPDATE ledger.entry_2 SET recorded = 0", "DELETE FROM ledger.entry_2", "TRUNCATE ledger.entry_2"):
        with pytest.raises(psycopg.DatabaseError) as refused:
            made.sql(change.encode(), role="ledger")
        assert refused.value.sqlstate == "CR001"


# Sessions that could lose or miss something


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_an_older_snapshot_may_not_append(ledger: Ledger, level: str) -> None:
    with psycopg.connect(ledger.as_role("writer")) as connection:
        connection.execute(f"SET TRANSACTION ISOLATION LEVEL {level}".encode())
        with pytest.raises(psycopg.DatabaseError) as refused:
            ledger.append(command(("wallet 1", 1)), connection=connection)
    assert refused.value.sqlstate == "CR003"
    with psycopg.connect(ledger.as_role("applier")) as connection:
        connection.execute(f"SET TRANSACTION ISOLATION LEVEL {level}".encode())
        with pytest.raises(psycopg.DatabaseError) as refused:
            connection.execute("SELECT ledger.append_copy(2::smallint, 1, '{}', '{}', '{}')")
    assert refused.value.sqlstate == "CR003"


@pytest.mark.parametrize("setting", ["SET synchronous_commit = off", "SET LOCAL synchronous_commit = off"])
def test_a_session_that_does_not_wait_for_the_disk_may_not_append(ledger: Ledger, setting: LiteralString) -> None:
    with psycopg.connect(ledger.as_role("writer")) as connection:
        connection.execute(setting)
        with pytest.raises(psycopg.DatabaseError) as refused:
            ledger.append(command(("wallet 1", 1)), connection=connection)
    assert refused.value.sqlstate == "CR003"


# Whoever calls a door cannot make it mean something else

HOSTILE = """
    CREATE SCHEMA hostile;
    GRANT ALL ON SCHEMA hostile TO PUBLIC;
    CREATE FUNCTION hostile.sha256(bytea) RETURNS bytea LANGUAGE sql RETURN '\\x00'::bytea;
    CREATE FUNCTION hostile.int8send(bigint) RETURNS bytea LANGUAGE sql RETURN '\\x00'::bytea;
    CREATE FUNCTION hostile.clock_timestamp() RETURNS timestamptz LANGUAGE sql RETURN '1970-01-01Z'::timestamptz;
    CREATE FUNCTION hostile.convert_from(bytea, name) RETURNS text LANGUAGE sql RETURN '{}';
    CREATE FUNCTION hostile.current_setting(text) RETURNS text LANGUAGE sql RETURN 'read committed';
    CREATE FUNCTION hostile.pg_advisory_xact_lock(int, int) RETURNS void LANGUAGE sql RETURN NULL;
    CREATE FUNCTION hostile.cat(bytea, bytea) RETURNS bytea LANGUAGE sql RETURN $1;
    CREATE OPERATOR hostile.|| (LEFTARG = bytea, RIGHTARG = bytea, FUNCTION = hostile.cat);
    CREATE FUNCTION hostile.never(bigint, bigint) RETURNS boolean LANGUAGE sql RETURN false;
    CREATE OPERATOR hostile.<> (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = hostile.never);
    CREATE FUNCTION hostile.always(uuid, uuid) RETURNS boolean LANGUAGE sql RETURN true;
    CREATE OPERATOR hostile.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = hostile.always);
    CREATE TABLE hostile.entry (a int);
    CREATE TYPE hostile.text AS (a int);
"""
SHADOWS = """
    CREATE TEMP TABLE entry (log smallint, position bigint, recorded bigint, leaf bytea, stream text, version bigint);
    CREATE TEMP TABLE log (id smallint, name text, genesis bytea, own boolean, origin text);
    CREATE TEMP TABLE ownership (partition smallint, epoch int, log smallint, cut bigint);
    CREATE TEMP TABLE pg_class (oid oid);
    CREATE TYPE pg_temp.indexed AS (o int);
    CREATE TYPE pg_temp.uuid AS (a int);
    CREATE FUNCTION pg_temp.sha256(bytea) RETURNS bytea LANGUAGE sql RETURN '\\x00'::bytea;
    CREATE FUNCTION pg_temp.read_bodies(bytea[], int[]) RETURNS int LANGUAGE sql RETURN 1;
    CREATE FUNCTION pg_temp.current_setting(text) RETURNS text LANGUAGE sql RETURN 'read committed';
    INSERT INTO ownership SELECT p, 1, 1, NULL FROM generate_series(0, 255) AS p;
"""


@pytest.mark.parametrize("path", ["hostile, pg_catalog", "pg_temp, hostile, pg_catalog", "hostile, ledger", "pg_temp"])
def test_neither_search_path_nor_temporary_objects_change_what_a_door_does(migrated: str, path: LiteralString) -> None:
    ledger = Ledger(migrated)
    ledger.sql("SELECT ledger.register_log('eu', %s, true)", EU)
    ledger.append(opening(EU, (0, 127)))
    ledger.admin.execute(HOSTILE)
    with psycopg.connect(ledger.as_role("writer"), autocommit=True) as connection:
        connection.execute(SHADOWS)
        connection.execute(f"SET search_path = {path}".encode())
        call = b"""
            SELECT outcomes FROM ledger.append(1::pg_catalog.int2, $1::pg_catalog.uuid[], $2::pg_catalog.int4[], $3::pg_catalog.bytea[],
                                               '{}'::pg_catalog.int4[], '{}'::pg_catalog.text[], '{}'::pg_catalog.int8[])"""
        connection.execute(b"PREPARE call AS " + call)
        for each, outcome in (
            (command(("wallet 1", 1)), 0),
            (command(("wallet 1", 1)), 2),
            (command(("wallet 200", 1)), 3),
            (command(("wallet 1", 2)), 0),
        ):
            bodies = ", ".join(f"'\\x{raw.hex()}'::pg_catalog.bytea" for raw in each.bodies)
            cursor = connection.execute(
                f"EXECUTE call(ARRAY['{each.id.hex()}'::pg_catalog.uuid], ARRAY[1], ARRAY[{bodies}])".encode()
            )
            assert cursor.fetchone() == ([outcome],)
    assert len(list(whole(ledger.entries(), EU))) == 3


# Opening


def test_the_first_entry_opens_the_log_and_no_other_does(migrated: str) -> None:
    made = Ledger(migrated)
    made.sql("SELECT ledger.register_log('eu', %s, true)", EU)
    with pytest.raises(psycopg.DatabaseError) as refused:
        made.append(command(("region-eu-settings", 1)))
    assert refused.value.sqlstate == "CR005"
    made.append(opening(EU, (0, 127)))
    second = opening(EU, (0, 127))
    again = msgspec.structs.replace(second, bodies=[second.bodies[0].replace(b'"version":1', b'"version":2')])
    with pytest.raises(psycopg.DatabaseError) as refused:
        made.append(again)
    assert refused.value.sqlstate == "CR005"
    assert len(made.entries()) == 1


def test_a_log_is_opened_under_its_own_origin(migrated: str) -> None:
    made = Ledger(migrated)
    made.sql("SELECT ledger.register_log('eu', %s, true)", EU)
    with pytest.raises(psycopg.DatabaseError) as refused:
        made.append(opening("countroom.other/eu", (0, 127)))
    assert refused.value.sqlstate == "CR005"


def test_two_logs_do_not_open_with_the_same_partition(ledger: Ledger) -> None:
    with pytest.raises(psycopg.DatabaseError) as refused:
        ledger.append_copy(chained(US, opening(US, (127, 255)).bodies))
    assert refused.value.sqlstate == "CR006"
    assert ledger.entries("us") == []
    ledger.append_copy(chained(US, opening(US, (128, 255)).bodies))


def test_a_log_keeps_its_origin_and_stays_what_it_is(ledger: Ledger) -> None:
    register: LiteralString = "SELECT ledger.register_log(%s, %s, %s)"
    assert ledger.sql(register, "eu", EU, True) == ledger.sql(register, "eu", EU, True) == [(1,)]
    for origin, own in (("countroom.other/eu", True), (EU, False)):
        with pytest.raises(psycopg.DatabaseError) as refused:
            ledger.sql(register, "eu", origin, own)
        assert refused.value.sqlstate == "CR002"


@pytest.mark.parametrize("name", ["", "EU", "1eu", "eu-2", "eu.0", "eu.01", "eu.", "e u", "eu\n"])
def test_a_log_has_a_proper_name(ledger: Ledger, name: str) -> None:
    with pytest.raises(errors.CheckViolation):
        ledger.sql("SELECT ledger.register_log(%s, %s, true)", name, f"countroom.test/{name}")


# Copies


def us_log() -> list[Entry]:
    """us: opened, then commands of 2, 1 and 3 events; the last stands on a partition that us never owned."""
    two, one, three = new_id(), new_id(), new_id()
    return chained(
        US,
        [
            *opening(US, (128, 255)).bodies,
            body("wallet 200", 1, two, 1, 2),
            body("limits 200", 1, two, 2, 2),
            body("region-us-settings", 1, one),
            body("wallet 5", 1, three, 1, 3),
            body("wallet 200", 2, three, 2, 3),
            body("wallet 201", 1, three, 3, 3, epoch=2),
        ],
    )


def test_a_copy_is_what_the_origin_has(ledger: Ledger) -> None:
    entries = us_log()
    assert ledger.append_copy(entries[:3]) == 3
    assert ledger.append_copy(entries[3:]) == 7
    assert ledger.entries("us") == entries
    assert list(whole(ledger.entries("us"), US)) == entries


@pytest.mark.parametrize("cuts", [(1,), (3,), (1, 3, 4), (4,), ()])
def test_what_counts_does_not_depend_on_how_a_copy_arrives(ledger: Ledger, cuts: Sequence[int]) -> None:
    entries = us_log()
    for start, stop in itertools.pairwise((0, *cuts, len(entries))):
        ledger.append_copy(entries[start:stop])
    counted = ledger.sql(
        "SELECT position, stream, version, type, partition, command_id IS NOT NULL FROM ledger.entry WHERE log = 2 ORDER BY 1"
    )
    nothing = (None, None, None, None, False)
    assert counted == [
        (1, "region-us-log", 1, "log.opened", None, True),
        (2, stream("wallet 200"), 1, "test.happened", 200, True),
        (3, stream("limits 200"), 1, "test.happened", 200, False),
        (4, "region-us-settings", 1, "test.happened", None, True),
        (5, *nothing),
        (6, stream("wallet 200"), 2, "test.happened", 200, False),
        (7, *nothing),
    ]
    assert ledger.sql("SELECT count(*), min(partition), max(partition) FROM ledger.ownership WHERE log = 2") == [
        (128, 128, 255)
    ]


def test_a_stream_of_another_region_never_counts(ledger: Ledger) -> None:
    id_ = new_id()
    entries = chained(US, [*opening(US, (128, 255)).bodies, body("region-eu-settings", 1, id_)])
    ledger.append_copy(entries)
    assert ledger.sql("SELECT stream, command_id FROM ledger.entry WHERE log = 2 AND position = 2") == [(None, None)]
    assert ledger.append(command(("region-eu-settings", 1))) == [0]


def changed_byte(entries: list[Entry]) -> list[Entry]:
    return [*entries[:3], entries[3]._replace(body=entries[3].body.replace(b"test.h", b"test.H")), *entries[4:]]


def changed_time(entries: list[Entry]) -> list[Entry]:
    return [*entries[:3], entries[3]._replace(recorded=entries[3].recorded + 1), *entries[4:]]


def changed_leaf(entries: list[Entry]) -> list[Entry]:
    return [*entries[:3], entries[3]._replace(leaf=bytes(32)), *entries[4:]]


def reordered(entries: list[Entry]) -> list[Entry]:
    return [*entries[:2], entries[3], entries[2], *entries[4:]]


def rehashed_with_standing_clock(entries: list[Entry]) -> list[Entry]:
    """A chain that is right in itself, but whose time stands still."""
    leaf, made = genesis(US), []
    for entry in entries:
        leaf = leaf_hash(leaf, entry.position, 1_000_000, entry.body)
        made.append(entry._replace(recorded=1_000_000, leaf=leaf))
    return made


@pytest.mark.parametrize(
    ("change", "state"),
    [
        (changed_byte, "CR009"),
        (changed_time, "CR009"),
        (changed_leaf, "CR009"),
        (reordered, "CR009"),
        (rehashed_with_standing_clock, "CR009"),
        (lambda entries: entries[1:], "CR008"),
        (lambda entries: [entries[0], *entries[2:]], "CR009"),
        (lambda entries: entries[:2], "CR010"),
        (lambda entries: entries[:5], "CR010"),
        (lambda entries: entries[:6], "CR010"),
    ],
    ids=[
        "a changed byte",
        "a changed time",
        "a changed leaf",
        "reordered",
        "time stands still",
        "a gap before",
        "a gap within",
        "a command's first event",
        "split after one of three",
        "split after two of three",
    ],
)
def test_a_copy_refuses(ledger: Ledger, change: Any, state: str) -> None:
    with pytest.raises(psycopg.DatabaseError) as refused:
        ledger.append_copy(change(us_log()))
    assert refused.value.sqlstate == state
    assert ledger.entries("us") == []


def test_a_copy_refuses_what_it_has_and_what_it_cannot_place(ledger: Ledger) -> None:
    entries = us_log()
    ledger.append_copy(entries[:3])
    for wrong in (entries[:3], entries[1:], entries[2:4], entries[4:]):
        with pytest.raises(psycopg.DatabaseError) as refused:
            ledger.append_copy(wrong)
        assert refused.value.sqlstate == "CR008"
    with pytest.raises(psycopg.DatabaseError) as refused:
        ledger.append_copy([entries[3]._replace(leaf=bytes(32))])
    assert refused.value.sqlstate == "CR009"
    ledger.append_copy(entries[3:])


def test_a_copied_command_id_is_a_duplicate_here(ledger: Ledger) -> None:
    entries = us_log()
    ledger.append_copy(entries)
    [(id_,)] = ledger.sql("SELECT command_id FROM ledger.entry WHERE log = 2 AND position = 2")
    assert ledger.append(command(("wallet 1", 1), id_=id_.bytes)) == [1]


# Several at once


def test_two_writers_make_one_chain_without_gaps_and_lose_nothing(ledger: Ledger) -> None:
    """Each of four appends to a stream of its own and to one that all share; who loses a race tries again."""

    def write(person: int) -> Iterator[bytes]:
        with psycopg.connect(ledger.as_role("writer"), autocommit=True) as connection:
            shared = 0
            for version in range(1, 26):
                each = command((f"wallet {person}", version))
                assert ledger.append(each, connection=connection) == [0]
                yield each.id
                while True:
                    each = command(("region-eu-shared", shared + 1))
                    if ledger.append(each, connection=connection) == [0]:
                        break
                    shared += 1
                yield each.id

    with ThreadPoolExecutor(4) as threads:
        acknowledged = [id_ for ids in threads.map(lambda person: list(write(person)), range(4)) for id_ in ids]
    assert len(set(acknowledged)) == 200
    assert len(list(whole(ledger.entries(), EU))) == 201
    found = ledger.sql("SELECT command_id FROM ledger.entry WHERE log = 1 AND position > 1")
    assert {id_.bytes for (id_,) in found} == set(acknowledged)


def test_a_batch_waits_for_the_one_before_it_and_sees_it(ledger: Ledger) -> None:
    with psycopg.connect(ledger.as_role("writer")) as slow, ThreadPoolExecutor(1) as threads:
        assert ledger.append(command(("wallet 1", 1)), connection=slow) == [0]
        second = threads.submit(ledger.append, command(("wallet 1", 1)))
        with pytest.raises(TimeoutError):
            second.result(0.3)
        slow.commit()
        assert second.result(10) == [2]


def test_a_rolled_back_batch_leaves_no_gap(ledger: Ledger) -> None:
    with psycopg.connect(ledger.as_role("writer")) as connection:
        ledger.append(command(("wallet 1", 1)), connection=connection)
        connection.rollback()
    assert ledger.append(command(("wallet 1", 1))) == [0]
    assert [entry.position for entry in ledger.entries()] == [1, 2]


def test_the_clock_is_the_databases(ledger: Ledger) -> None:
    [(before,)] = ledger.sql("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
    ledger.append(command(("wallet 1", 1)))
    assert 0 <= ledger.entries()[-1].recorded - before < 60_000_000
    assert Clock()() > 0
