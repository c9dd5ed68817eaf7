"""`countroom verify`: databases, and copies of one log wherever they are kept."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from psycopg.conninfo import conninfo_to_dict

from app import checking
from eventstore import schema
from eventstore.record import Entry, entry_bytes, genesis, leaf_hash
from tests.ledger import EU, Ledger, command, opening
from tests.stack import Servers
from tests.verifier.region import TOKEN, Region, serving

LENGTH = 30


@pytest.fixture
def origin(migrated: str) -> Ledger:
    """A database that writes the log eu."""
    made = Ledger(migrated)
    made.sql("SELECT ledger.register_log('eu', %s, true)", EU)
    assert made.append(opening(EU, (0, 127))) == [0]
    assert set(made.append(*(command((f"wallet {n}", 1)) for n in range(1, LENGTH)))) == {0}
    return made


@pytest.fixture
def copy(servers: Servers, origin: Ledger) -> Ledger:
    """A database that holds a copy of most of it."""
    return copy_of(origin, servers, LENGTH - 5)


def copy_of(origin: Ledger, servers: Servers, length: int) -> Ledger:
    dsn = servers.fresh_database("copy")
    schema.migrate(dsn, [("ledger", schema.HERE)])
    made = Ledger(dsn)
    made.sql("SELECT ledger.register_log('eu', %s, false)", EU)
    assert made.append_copy(origin.entries()[:length], log=1) == length
    return made


def rewrite(ledger: Ledger, position: int) -> None:
    """Change an entry and chain all after it anew, past triggers, as only a superuser can."""
    entries = ledger.entries()
    leaf = entries[position - 2].leaf
    with ledger.admin.transaction():
        ledger.sql("SET LOCAL session_replication_role = replica")
        for entry in entries[position - 1 :]:
            body = entry.body.replace(b"service:test", b"service:evil") if entry.position == position else entry.body
            leaf = leaf_hash(leaf, entry.position, entry.recorded, body)
            ledger.sql(
                "UPDATE ledger.entry SET body = %s, leaf = %s WHERE log = 1 AND position = %s",
                body,
                leaf,
                entry.position,
            )


def verify(*targets: str, log: str | None = None) -> checking.Verification:
    return checking.verify(targets, TOKEN, log, lambda *_: None)


def named(dsn: str) -> str:
    known = conninfo_to_dict(dsn)
    return f"postgresql://{known['host']}:{known['port']}/{known['dbname']}"


def shown(entries: Sequence[Entry]) -> Region:
    """A region that shows these entries over HTTP."""
    leaves = [genesis(EU), *(entry.leaf for entry in entries)]
    return Region(
        {
            "eu": [
                (e.position, entry_bytes(before, e.position, e.recorded, e.body), e.leaf)
                for before, e in zip(leaves, entries, strict=False)
            ]
        }
    )


def test_copies_in_two_databases_that_agree_are_intact_though_one_lags(origin: Ledger, copy: Ledger) -> None:
    found = verify(origin.dsn, copy.dsn)
    assert found.status == checking.INTACT, found.to_text()
    assert [(f.target, f.log, f.position) for f in found.findings] == [
        (named(origin.dsn), "eu", LENGTH),
        (named(copy.dsn), "eu", LENGTH - 5),
    ]


@pytest.mark.parametrize("position", [2, 13, LENGTH - 5])
def test_a_rewritten_suffix_in_one_of_two_databases_is_found_at_its_first_position(
    origin: Ledger, copy: Ledger, position: int
) -> None:
    rewrite(copy, position)
    for each in (origin, copy):
        assert verify(each.dsn).status == checking.INTACT, "each is in order by itself"
    found = verify(origin.dsn, copy.dsn)
    assert found.status == checking.NOT_INTACT
    assert found.differences == [f"eu at position {position}: {named(origin.dsn)} and {named(copy.dsn)} differ"]
    assert all(finding.shown["intact"] for finding in found.findings)


def test_a_database_is_compared_with_a_region_that_is_asked_by_url(origin: Ledger, copy: Ledger) -> None:
    with serving(shown(origin.entries())) as region:
        assert verify(copy.dsn, region.url).status == checking.INTACT
        rewrite(copy, 20)
        found = verify(copy.dsn, region.url + "/")
    assert found.differences == [f"eu at position 20: {region.url} and {named(copy.dsn)} differ"]


def test_a_third_copy_that_lags_hides_no_difference(origin: Ledger, copy: Ledger, servers: Servers) -> None:
    short = copy_of(origin, servers, 3)
    rewrite(copy, 20)
    found = verify(short.dsn, copy.dsn, origin.dsn)
    assert found.differences == [f"eu at position 20: {named(origin.dsn)} and {named(copy.dsn)} differ"]


def test_an_index_column_that_differs_from_its_body_is_found(origin: Ledger) -> None:
    with origin.admin.transaction():
        origin.sql("SET LOCAL session_replication_role = replica")
        origin.sql("UPDATE ledger.entry SET version = 2 WHERE position = 7")
        origin.sql("UPDATE ledger.entry SET version = 2 WHERE position = 9")
    [finding] = verify(origin.dsn).findings
    assert finding.shown["intact"] is False
    assert finding.shown["fault"] == {
        "position": 7,
        "reason": "index_differs",
        "detail": "the index column version differs from the body",
    }


def test_what_cannot_be_read_is_not_intact_and_no_password_is_told(origin: Ledger, servers: Servers) -> None:
    empty = servers.fresh_database("empty")
    origin.sql("SELECT ledger.register_log('us', 'countroom.test/us', false)")
    found = verify(origin.dsn, empty)
    assert found.status == checking.NOT_CHECKED
    assert found.errors[0] == f"{named(origin.dsn)} us: the log has no entry yet"
    assert found.errors[1].startswith(f"{named(empty)}: ")
    assert verify(origin.dsn, log="asia").errors == [f"{named(origin.dsn)}: it holds no log 'asia'"]
    assert verify(origin.dsn, log="eu").status == checking.INTACT
    assert str(conninfo_to_dict(empty)["password"]) not in found.to_text()
