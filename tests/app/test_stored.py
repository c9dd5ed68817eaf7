"""What a superuser can put into a log's table, beyond what its constraints let in, is found where it stands."""

from __future__ import annotations

import psycopg
import pytest

from app import checking
from eventstore.log import Command
from tamper.shown import loosen
from tests.ledger import EU, Ledger, body, command, new_id, opening, stream
from tests.stack import Servers
from tests.verifier.region import TOKEN

LENGTH = 30


@pytest.fixture(scope="module")
def loose(servers: Servers, ledger_template: str) -> Ledger:
    """A log of 30 entries, without unique indexes and triggers."""
    server, _, _ = servers.endpoints.postgres.rpartition("/")
    with psycopg.connect(servers.endpoints.postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE stored TEMPLATE {ledger_template}".encode())
    made = Ledger(f"{server}/stored")
    made.sql("SELECT ledger.register_log('eu', %s, true)", EU)
    assert made.append(opening(EU, (0, 127))) == [0]
    assert set(made.append(*(command((f"wallet {n}", 1)) for n in range(1, LENGTH)))) == {0}
    loosen(made.admin, 1)
    made.sql("SET session_replication_role = replica")
    made.sql("CREATE TABLE public.clean AS SELECT * FROM ledger.entry")
    return made


@pytest.fixture
def origin(loose: Ledger) -> Ledger:
    """The same, whatever another test has made of it."""
    loose.sql("DELETE FROM ledger.entry")
    loose.sql("INSERT INTO ledger.entry SELECT * FROM public.clean")
    return loose


def fault(ledger: Ledger) -> tuple[str, int]:
    found = checking.verify([ledger.dsn], TOKEN, None, lambda *_: None)
    assert found.status == checking.NOT_INTACT, found.to_text()
    [finding] = found.findings
    return finding.shown["fault"]["reason"], finding.shown["fault"]["position"]


@pytest.mark.parametrize("position", [0, -7, -(2**63)])
def test_a_row_below_the_first_position_is_found(origin: Ledger, position: int) -> None:
    origin.sql(
        "INSERT INTO ledger.entry SELECT log, %s, recorded, leaf, body, version + 1, partition, NULL, stream, type"
        " FROM ledger.entry WHERE position = 9",
        position,
    )
    assert fault(origin) == ("position_gap", 1)


def test_a_row_far_behind_the_others_is_found_at_the_gap_without_looking_for_its_end(origin: Ledger) -> None:
    origin.sql("UPDATE ledger.entry SET position = %s WHERE position = %s", 2**62, LENGTH)
    assert fault(origin) == ("position_gap", LENGTH)


def test_a_second_row_at_a_position_is_found_also_where_a_page_ends(origin: Ledger) -> None:
    for first in range(1, 1_024 - LENGTH + 2, 200):
        writes = [("wallet 30", version) for version in range(first, min(first + 200, 1_024 - LENGTH + 2))]
        origin.sql("SET session_replication_role = origin")
        assert origin.append(command(*writes)) == [0]
    origin.sql("SET session_replication_role = replica")
    assert checking.verify([origin.dsn], TOKEN, None, lambda *_: None).status == checking.INTACT
    origin.sql("INSERT INTO ledger.entry SELECT * FROM ledger.entry WHERE position = 1024")
    assert fault(origin) == ("position_gap", 1_025)


def test_a_time_below_zero_is_found(origin: Ledger) -> None:
    origin.sql("UPDATE ledger.entry SET recorded = -5 WHERE position = 9")
    assert fault(origin) == ("leaf_mismatch", 9)


@pytest.mark.parametrize("column", ["leaf", "body", "recorded"])
def test_a_null_is_found(origin: Ledger, column: str) -> None:
    origin.sql(f"ALTER TABLE ledger.entry ALTER {column} DROP NOT NULL".encode())
    origin.sql(f"UPDATE ledger.entry SET {column} = NULL WHERE position = 9".encode())
    assert fault(origin) == ("leaf_mismatch", 9)


def test_leaves_of_other_lengths_are_found_even_if_they_make_up_for_one_another(origin: Ledger) -> None:
    origin.sql(
        "UPDATE ledger.entry AS e SET leaf = e.leaf || (SELECT substr(o.leaf, 1, 1) FROM ledger.entry AS o WHERE o.position = 10)"
        " WHERE e.position = 9"
    )
    origin.sql("UPDATE ledger.entry SET leaf = substr(leaf, 2) WHERE position = 10")
    assert fault(origin) == ("leaf_mismatch", 9)
    origin.sql("UPDATE ledger.entry SET leaf = leaf || leaf WHERE position = 30")
    assert fault(origin) == ("leaf_mismatch", 9)


def test_a_longer_leaf_at_the_end_is_found(origin: Ledger) -> None:
    origin.sql("UPDATE ledger.entry SET leaf = leaf || leaf WHERE position = 30")
    assert fault(origin) == ("leaf_mismatch", LENGTH)


@pytest.mark.parametrize("spelled", ["claims", r"cl\u0061ims"])
def test_an_id_in_the_place_of_the_one_that_is_claimed_is_found_on_later_pages_too(
    origin: Ledger, spelled: str
) -> None:
    origin.sql("SET session_replication_role = origin")
    for first in range(1, 1_201, 200):
        assert origin.append(command(*(("wallet 30", version) for version in range(first, first + 200)))) == [0]
    id_, claimed = new_id(), new_id()
    claiming = body("wallet 2", 2, id_, claims=claimed.hex()).replace(b'"claims"', f'"{spelled}"'.encode())
    assert origin.append(Command(id_, [claiming], (), frozenset([stream("wallet 2")]))) == [0]
    origin.sql("SET session_replication_role = replica")
    assert checking.verify([origin.dsn], TOKEN, None, lambda *_: None).status == checking.INTACT
    origin.sql("UPDATE ledger.entry SET command_id = encode(%s, 'hex')::uuid WHERE position = 1231", id_)
    assert fault(origin) == ("index_differs", 1_231)
