"""What a regulator took home, replayed there; and the keys that were disclosed with it."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest

from app.replaying import accounts, figures
from app.replaying.disclosed import read_keys, revealing
from app.replaying.verified import NotIntact, Verified, verified
from domain.players import DataKey as Committed
from eventstore.vault import DataKey
from queries.history import Account
from replay.moment import END
from tests.app.exports import make, region_of, small_book, trust_file
from tests.projections.books import Book
from tests.verifier.region import TOKEN
from verifier.export import SUMS, sums_of
from verifier.faults import CouldNotCheck


@pytest.fixture(scope="module")
def book() -> Book:
    return small_book()


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory, book: Book) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("exports")
    with pytest.MonkeyPatch.context() as patch, region_of(book) as region:
        patch.setenv("NO_PROXY", "*")
        make(region.url, folder / "whole")
        make(region.url, folder / "player", player=book.players[1])
        make(region.url, folder / "range", first="eu/3")
        yield folder


def taken(folder: Path) -> Verified:
    return verified(str(folder), TOKEN, trust_file(folder.parent), lambda *_: None, 1)


def account(logs: Verified, player: str) -> Account:
    return accounts.replayed(logs, accounts.read(logs, player, END)).account


def test_an_export_of_a_player_makes_the_account_that_the_whole_log_makes(exports: Path, book: Book) -> None:
    whole, chosen = taken(exports / "whole"), taken(exports / "player")
    player = book.players[1]
    assert account(chosen, player) == account(whole, player)
    found = accounts.replayed(chosen, accounts.read(chosen, player, END))
    assert "all taken to count, since the log's opening is not among them" in found.evidence.logs[0].found


def test_figures_are_not_made_of_chosen_entries(exports: Path) -> None:
    assert figures.as_of(taken(exports / "whole"), END)["dashboard"].positions["eu"] > 0
    with pytest.raises(CouldNotCheck, match="a selection of log eu"):
        figures.as_of(taken(exports / "player"), END)


def test_an_account_is_not_made_of_the_end_of_streams(exports: Path, book: Book) -> None:
    with pytest.raises(CouldNotCheck, match="is missing"):
        account(taken(exports / "range"), book.players[0])


def test_a_selection_that_is_changed_after_it_was_verified_is_noticed(
    exports: Path, book: Book, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(exports / "player", tmp_path / "player"))
    logs = taken(folder)
    file = folder / "eu" / "entries.ndjson"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[0]["entry"] = base64.b64encode(base64.b64decode(lines[0]["entry"]).replace(b"Ada", b"Eve")).decode()
    file.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    with pytest.raises(CouldNotCheck, match="is not proved"):
        accounts.read(logs, book.players[1], END)
    names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != SUMS]
    (folder / SUMS).write_bytes(sums_of(folder, names))
    with pytest.raises(NotIntact):
        taken(folder)


# Disclosed keys

KEY = DataKey("019a8f00-0000-7000-8000-000000000001", bytes(range(32)))
EVENT = "019a8f00-0000-7000-8000-000000000002"
SEALED = KEY.seal("Ada", event_id=EVENT, path="data.name", nonce=bytes(12))


@pytest.fixture
def disclosed(tmp_path: Path) -> Path:
    """A folder with keys.age and the regulator's identity that opens it."""
    identity = pyrage.x25519.Identity.generate()
    secret = base64.urlsafe_b64encode(KEY.key).rstrip(b"=").decode()
    keys = [{"player": "player_1", "key": KEY.id, "secret": secret, "commitment": KEY.commitment}]
    file = json.dumps({"format": "countroom/data-keys/1", "keys": keys, "missing": []}).encode()
    (tmp_path / "keys.age").write_bytes(pyrage.encrypt(file, [identity.to_public()]))
    (tmp_path / "identity").write_text(f"# the regulator's\n{identity}\n")
    return tmp_path


def test_a_disclosed_key_opens_what_was_sealed_under_it(disclosed: Path) -> None:
    reveal = revealing(read_keys(disclosed, disclosed / "identity"), [Committed(KEY.id, KEY.commitment)])
    assert reveal(EVENT, "data.name", SEALED) == "Ada"


def test_a_key_to_which_no_registration_commits_opens_nothing(disclosed: Path) -> None:
    keys = read_keys(disclosed, disclosed / "identity")
    assert revealing(keys, [])(EVENT, "data.name", SEALED) is None
    with pytest.raises(CouldNotCheck, match="not the one that the registration in the log commits to"):
        revealing(keys, [Committed(KEY.id, "00" * 32)])


def test_a_field_that_was_moved_does_not_open(disclosed: Path) -> None:
    reveal = revealing(read_keys(disclosed, disclosed / "identity"), [Committed(KEY.id, KEY.commitment)])
    with pytest.raises(CouldNotCheck, match="was not sealed there"):
        reveal(EVENT, "data.email", SEALED)


def test_another_identity_opens_nothing(disclosed: Path) -> None:
    (disclosed / "identity").write_text(str(pyrage.x25519.Identity.generate()))
    with pytest.raises(CouldNotCheck, match="do not open with the identity"):
        read_keys(disclosed, disclosed / "identity")
    with pytest.raises(CouldNotCheck, match=r"there is no keys\.age"):
        read_keys(disclosed / "nowhere", disclosed / "identity")
