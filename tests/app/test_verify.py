"""`countroom verify`: databases, and copies of one log wherever they are kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from app import checking, cli
from eventstore import schema
from eventstore.record import Entry, entry_bytes, genesis, leaf_hash
from eventstore.tree import Tree
from tests.ledger import EU, Ledger, command, opening
from tests.stack import Servers
from tests.verifier.region import TOKEN, Region, serving
from tests.verifier.shown import OTHER_LOG, note, policy, policy_text, write
from verifier import cli as regions
from verifier.proof import format_proof

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


def verify(*targets: str, log: str | None = None, how: regions.How = regions.UNTRUSTING) -> checking.Verification:
    return checking.verify(targets, TOKEN, log, lambda *_: None, how)


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


# Signed heads.


def root_at(ledger: Ledger, size: int) -> bytes:
    tree = Tree()
    tree.extend(entry.leaf for entry in ledger.entries()[:size])
    return tree.root()


def keep(ledger: Ledger, size: int, root: bytes | None = None, **more: Any) -> None:
    """A head that the log signed, as the checkpointer keeps it."""
    root = root_at(ledger, size) if root is None else root
    signed = note(size, root, origin=EU, **more)
    ledger.sql("SELECT ledger.keep_checkpoint(1::smallint, %s, %s, %s, true)", size, root, signed)


def seconds(ledger: Ledger, position: int) -> int:
    return ledger.entries()[position - 1].recorded // 1_000_000


TRUSTING = regions.How(trust=policy(origin=EU))


def test_a_database_whose_heads_fit_says_how_many_entries_are_not_witnessed(origin: Ledger) -> None:
    keep(origin, 10, witnessed={"us": seconds(origin, 10)})
    keep(origin, 20)
    found = verify(origin.dsn, how=TRUSTING)
    assert found.status == checking.INTACT, found.to_text()
    [finding] = found.findings
    assert finding.shown["witnessed"]["size"] == 10
    assert finding.shown["unwitnessed_entries"] == LENGTH - 10
    assert f"witnessed up to 10 by 'us'; {LENGTH - 10} entries not yet" in found.to_text()
    assert "NO signature was checked" in verify(origin.dsn).to_text()


def test_a_rewritten_suffix_of_a_single_database_is_found_by_its_signed_heads(origin: Ledger) -> None:
    keep(origin, 10)
    keep(origin, 20)
    rewrite(origin, 15)
    [finding] = verify(origin.dsn).findings
    assert (finding.shown["fault"]["reason"], finding.shown["fault"]["position"]) == ("root_mismatch", 20)


def test_a_head_of_another_key_is_found_in_a_database(origin: Ledger) -> None:
    keep(origin, 10)
    [finding] = verify(origin.dsn, how=regions.How(trust=policy(OTHER_LOG, origin=EU))).findings
    assert (finding.shown["fault"]["reason"], finding.shown["fault"]["position"]) == ("head_unsigned", 10)


def test_entries_removed_at_the_end_of_a_database_are_missed(origin: Ledger) -> None:
    keep(origin, LENGTH)
    with origin.admin.transaction():
        origin.sql("SET LOCAL session_replication_role = replica")
        origin.sql("DELETE FROM ledger.entry WHERE position > 20")
    [finding] = verify(origin.dsn).findings
    assert (finding.shown["fault"]["reason"], finding.shown["fault"]["position"]) == ("head_beyond_log", 20)


def test_entries_removed_in_the_middle_of_a_database_are_missed(origin: Ledger) -> None:
    with origin.admin.transaction():
        origin.sql("SET LOCAL session_replication_role = replica")
        origin.sql("DELETE FROM ledger.entry WHERE position = 20")
    [finding] = verify(origin.dsn).findings
    assert (finding.shown["fault"]["reason"], finding.shown["fault"]["position"]) == ("position_gap", 20)


def test_a_kept_subtree_that_is_not_the_trees_is_found(origin: Ledger) -> None:
    for version in (1, 2, 3):
        assert set(origin.append(*(command((f"wallet {n}b", version)) for n in range(100)))) == {0}
    origin.sql("INSERT INTO ledger.subtree VALUES (1, 1, 0, %s)", root_at(origin, 256))
    assert verify(origin.dsn).status == checking.INTACT
    with origin.admin.transaction():
        origin.sql("SET LOCAL session_replication_role = replica")
        origin.sql("UPDATE ledger.subtree SET hash = %s", bytes(32))
    [finding] = verify(origin.dsn).findings
    assert (finding.shown["fault"]["reason"], finding.shown["fault"]["position"]) == ("subtree_differs", 1)


# The command.


def test_the_command_takes_a_policy_and_directories(
    origin: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trust, tiles = tmp_path / "policy", tmp_path / "tiles"
    trust.write_text(policy_text(origin=EU))
    log = shown(origin.entries()).logs["eu"]
    write(tiles, [entry for _, entry, _ in log], [], note(LENGTH, root_at(origin, LENGTH), origin=EU))
    for arguments in ([str(tiles), "--trust", str(trust)], [str(tiles), "--merkle-only"], [origin.dsn, str(tiles)]):
        with pytest.raises(SystemExit) as left:
            cli.app(["verify", *arguments, "--json"])
        shown_json = json.loads(capsys.readouterr().out)
        assert left.value.code == 0, shown_json
        assert shown_json["intact"] is True
    with pytest.raises(SystemExit) as left:
        cli.app(["verify", str(tiles), "--trust", str(tmp_path / "none")])
    assert left.value.code == 2


def test_the_command_checks_a_proof_without_any_connection(
    origin: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (_, entry, leaf), *_ = shown(origin.entries()).logs["eu"]
    files = {name: tmp_path / name for name in ("policy", "proof", "entry")}
    files["policy"].write_text(policy_text(origin=EU, quorum="none"))
    files["proof"].write_bytes(format_proof(0, [], note(1, leaf, origin=EU), entry))
    files["entry"].write_bytes(entry)
    for arguments, status in (
        ([], 0),
        (["--entry", str(files["entry"])], 0),
        (["--leaf", leaf.hex()], 0),
        (["--leaf", "00" * 32], 1),
        (["--leaf", "xx"], 2),
    ):
        with pytest.raises(SystemExit) as left:
            cli.app(["verify", "proof", str(files["proof"]), "--trust", str(files["policy"]), *arguments])
        assert left.value.code == status, capsys.readouterr()
        assert ("proved: " in capsys.readouterr().out) is (status == 0)
