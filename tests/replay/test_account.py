"""A player's story: what concerns them, what counts, what changed, and the page that tells it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html.parser import HTMLParser

import msgspec
import pytest

from app.replaying import accounts
from app.replaying.accounts import Replayed
from domain.kernel import PlayerId
from eventstore.record import Entry, decode_body, encode_body, leaf_hash
from replay import timeline
from replay.difference import Change, changes
from replay.moment import END, Moment
from replay.timeline import amount
from tests.projections.books import Book
from tests.replay.logs import replaying, sound
from verifier.faults import CouldNotCheck

SCRIPT = "<script>alert('1')</script>&"


def replayed(entries: Sequence[Entry], player: str, at: Moment = END, since: Moment | None = None) -> Replayed:
    with replaying({"eu": entries}) as logs:
        return accounts.replayed(logs, accounts.read(logs, player, at, since), at, since)


def upto(position: int) -> Moment:
    return Moment(f"up to {position}", {"eu": position})


def with_entry(entries: list[Entry], **body: object) -> list[Entry]:
    """Another entry behind them, made of the last one's body."""
    last = entries[-1]
    raw = encode_body(msgspec.structs.replace(decode_body(last.body), **body))
    position, recorded = last.position + 1, last.recorded + 1
    return [*entries, Entry("eu", position, recorded, leaf_hash(last.leaf, position, recorded, raw), raw)]


@pytest.fixture
def book() -> Book:
    book = Book("eu")
    player = book.register(name="Ada")
    other = book.register()
    book.limit(player, 5_000)
    book.settle(book.request(player, 1_200, reference="r-1"))
    book.settle(book.request(other, 9_900))
    book.fail(book.request(player, 300), reason=SCRIPT)
    book.block(player, reason=SCRIPT)
    return book


def test_an_account_tells_who_what_and_how_much(book: Book) -> None:
    found = replayed(sound(book), book.players[0])
    assert found.account.player.status == "blocked"
    assert found.account.balances["EUR"].cash == 1_200
    assert found.account.deposited["EUR"].deposits == 1
    assert {payment.status for payment in found.account.transactions.values()} == {"settled", "failed"}
    assert [row.type for row in found.events] == [
        "player.registered", "limits.limit_set",
        "transaction.deposit_requested", "limits.headroom_consumed", "transaction.deposit_settled", "wallet.credited",
        "transaction.deposit_requested", "limits.headroom_consumed", "transaction.deposit_failed", "limits.headroom_released",
        "player.blocked",
    ]  # fmt: skip
    credited = found.events[5]
    assert credited.money is not None
    assert (credited.money.amount, credited.balance) == (1_200, {"cash": 1_200, "reserved": 0})
    assert credited.what == "deposit: psp:test → cash"


def test_nothing_of_another_player_is_told(book: Book) -> None:
    assert "9900" not in msgspec.json.encode(replayed(sound(book), book.players[0])).decode()


def test_somebody_whom_no_entry_names_is_not_found(book: Book) -> None:
    stranger = PlayerId("player_01ka7g0000e00800000000001a")
    with pytest.raises(CouldNotCheck, match=r"nothing at .* is about player_"):
        replayed(sound(book), stranger)


def test_an_entry_that_does_not_count_is_shown_as_stranded_and_not_folded(book: Book) -> None:
    entries = sound(book)
    without = replayed(entries, book.players[0])
    command = decode_body(entries[-1].body).command
    stranded = with_entry(
        entries,
        type="player.registered",
        epoch=2,
        version=1,
        command=msgspec.structs.replace(command, id="0" * 32),
        data=msgspec.Raw(b'{"brand":"evil"}'),
    )
    found = replayed(stranded, book.players[0])
    assert found.account == without.account
    assert [row.counts for row in found.events] == [True] * len(without.events) + [False]
    assert found.evidence.stranded == 1
    assert "stranded: does not count" in found.to_html()


def test_a_kind_of_event_of_a_later_release_stops_the_fold(book: Book) -> None:
    book.unknown(book.players[0])
    with pytest.raises(CouldNotCheck, match=r"no event of this release is called player\.renamed"):
        replayed(sound(book), book.players[0])


def test_who_looked_at_the_player_is_told(book: Book) -> None:
    one, other = book.players[0], "player_01ka7g0000e00800000000001b"
    card = "GET /v1/players/{player_id}"
    read = {
        "reads": [
            {"what": "audit.card", "query": f"player={one}"},
            {"what": card, "query": f"player_id={other}", "subjects": [other]},
            {"what": "GET /v1/transactions", "query": "", "subjects": [one, other]},
        ]
    }
    entries = sound(book)
    command = decode_body(entries[-1].body).command
    looked = with_entry(
        entries, stream="region-eu-reads_01ka7g0000e00800000000001a", version=1, partition=None, epoch=None,
        type="reads.recorded", actor="auditor:eve", command=msgspec.structs.replace(command, id="1" * 32),
        data=msgspec.Raw(msgspec.json.encode(read)),
    )  # fmt: skip
    last = replayed(looked, book.players[0]).events[-1]
    assert (last.type, last.actor, last.counts) == ("reads.recorded", "auditor:eve", True)
    assert last.what == "looked at: audit.card, GET /v1/transactions"
    assert other not in str(last.data), "whom else they looked at is not this player's"
    assert all(row.type != "reads.recorded" for row in replayed(looked, book.players[1]).events)


def test_a_difference_names_fields_and_the_events_between(book: Book) -> None:
    credited = next(e.position for e in book.entries if b"wallet.credited" in e.body)
    found = replayed(sound(book), book.players[0], upto(credited), upto(credited - 1))
    assert [row.type for row in found.events] == ["wallet.credited"]
    assert found.changes is not None
    assert [change for change in found.changes if not change.field.startswith("versions")] == [
        Change("balances.EUR", None, {"cash": 1_200, "bonus": 0, "reserved": 0, "receivable": 0})
    ]


def test_it_does_not_matter_which_of_two_moments_is_named_first(book: Book) -> None:
    entries = sound(book)
    one = replayed(entries, book.players[0], upto(6), upto(12))
    other = replayed(entries, book.players[0], upto(12), upto(6))
    assert (one.changes, one.events, one.account) == (other.changes, other.events, other.account)


def test_states_that_are_equal_differ_in_nothing() -> None:
    state = {"a": [{"id": "x", "n": 1}, {"id": "y", "n": 2}], "b": None}
    assert changes(state, state) == []
    other = {"a": [{"id": "y", "n": 2}, {"id": "x", "n": 3}], "b": None}
    assert changes(state, other) == [Change("a.x.n", 1, 3)]


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_the_page_stands_alone_and_escapes_what_comes_from_a_log(book: Book) -> None:
    page = replayed(sound(book), book.players[0]).to_html()
    tags = Tags()
    tags.feed(page)
    assert tags.names & {"script", "link", "img", "iframe", "object", "form", "a"} == set()
    assert tags.attributes <= {"lang", "charset", "http-equiv", "content", "name", "class"}
    assert re.search(r"url\(|@import|https?://(?!127\.0\.0\.1)", page) is None
    assert "&lt;script&gt;" in page
    assert f"eu/{len(book.entries)}" in page


def test_a_page_that_forgot_to_escape_would_be_noticed(book: Book) -> None:
    tags = Tags()
    tags.feed(replayed(sound(book), book.players[0]).to_html().replace("&lt;", "<").replace("&gt;", ">"))
    assert "script" in tags.names


def test_an_event_of_any_shape_is_told() -> None:
    for data in ({}, [], 7, {"transfer": 3}, {"transfer": {"code": []}}, {"money": {"amount": "x"}}):
        for tag in (*timeline.WORDS, "something.else"):
            assert isinstance(timeline.in_words(tag, data), str)


def test_money_is_written_in_the_units_of_its_currency() -> None:
    assert [amount(*each) for each in ((123_456, "EUR"), (5, "EUR"), (-5, "EUR"), (1_234, "JPY"), (1, "BHD"))] == [
        "1,234.56", "0.05", "-0.05", "1,234", "0.001",
    ]  # fmt: skip


def test_a_list_reads_as_people_write_one() -> None:
    said = timeline.in_words("transaction.withdrawal_held", {"reasons": ["kyc", "threshold"]})
    assert said == "withdrawal under review: kyc, threshold"
