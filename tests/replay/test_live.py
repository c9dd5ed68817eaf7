"""An account replayed as of a position is what was folded live when the log ended there: on a real log."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple

import pytest

from app.replaying import accounts
from app.replaying.verified import Verified, verified
from domain.catalog import aggregate_of
from domain.kernel import PlayerId
from domain.limits import Limits
from domain.players import Player
from domain.tickets import Ticket
from domain.transactions import Transaction
from domain.wallets import Wallet
from eventstore import schema
from eventstore.log import Command
from queries.history import Account
from replay import moment
from replay.account import Incomplete, Story
from replay.moment import Moment
from tests.ledger import EU, Ledger, opening
from tests.projections.books import CODEC, Book
from tests.projections.histories import VERBS, played
from tests.replay.logs import sound
from tests.stack import Servers
from verifier.faults import CouldNotCheck

SEED = 4
POSITIONS = 100

States = Mapping[str, Any]
"""The folded state of each stream."""


def history(seed: int) -> Book:
    chance = random.Random(seed)
    acts = [(chance.choice(VERBS), chance.randrange(8), chance.randrange(1, 900)) for _ in range(220)]
    return played("eu", [("register", 0, 0), ("register", 1, 0), *acts])


def appended(ledger: Ledger, book: Book) -> list[States]:
    """Appends the book's commands one by one, and folds each as it came in; the states after every position."""
    bodies = [entry.body for entry in sound(book)]
    states: list[States] = [{}]
    done = 1
    for command, parts in book.commands[1:]:
        assert ledger.append(Command(command, bodies[done : done + len(parts)])) == [0]
        done += len(parts)
    for entry in ledger.entries():
        read = CODEC.decode(entry)
        aggregate = aggregate_of(read.body.stream)
        assert aggregate is not None
        before = states[-1].get(read.body.stream, aggregate.initial)
        states.append({**states[-1], read.body.stream: aggregate.evolve(before, read.event, read.at)})
    return states


def differ(account: Account, states: States, player: PlayerId) -> list[str]:
    """What the account has otherwise than the states that were folded live."""
    suffix = player.removeprefix("player_")
    payments = {
        stream.replace("-", "_"): state
        for stream, state in states.items()
        if isinstance(state, Transaction) and state.player == player
    }
    tickets = {
        stream.replace("-", "_"): state
        for stream, state in states.items()
        if isinstance(state, Ticket) and state.player == player
    }
    wallet: Wallet = states.get(f"wallet-{suffix}", Wallet())
    pairs = {
        "player": (account.player, states.get(f"player-{suffix}", Player())),
        "limits": (account.limits, states.get(f"limits-{suffix}", Limits())),
        "balances": (account.balances, wallet.balances),
        "transactions": (account.transactions, payments),
        "tickets": (account.tickets, tickets),
    }
    return [name for name, (replayed, live) in pairs.items() if replayed != live]


class Lived(NamedTuple):
    """A log that has been written, what was folded meanwhile after each position, and the log as it was verified."""

    book: Book
    ledger: Ledger
    states: list[States]
    logs: Verified


@pytest.fixture(scope="module")
def lived(servers: Servers) -> Lived:
    ledger = Ledger(servers.fresh_database("replayed"))
    schema.migrate(ledger.dsn, [("ledger", schema.HERE)])
    ledger.sql("SELECT ledger.register_log('eu', %s, true)", EU)
    assert ledger.append(opening(EU, (0, 127))) == [0]
    book = history(SEED)
    states = appended(ledger, book)
    return Lived(book, ledger, states, verified(ledger.dsn, "", None, lambda *_: None, 1))


def test_as_of_100_positions_every_account_is_what_was_folded_live(lived: Lived) -> None:
    chosen = random.Random(SEED).sample(range(1, len(lived.states)), POSITIONS)
    wrong = {}
    off_by_one = 0
    moments = {position: lived.logs.moment(f"eu/{position}") for position in chosen}
    for player in lived.book.players[:3]:
        story = accounts.read(lived.logs, player).story
        for position, at in moments.items():
            if found := differ(story.account(lived.logs.codec, at), lived.states[position], player):
                wrong[player, position] = found
            earlier = Moment("planted", {"eu": position - 1})
            off_by_one += bool(differ(story.account(lived.logs.codec, earlier), lived.states[position], player))
    assert wrong == {}, f"seed {SEED}"
    assert off_by_one > 0, "an account of the position before would have been noticed"


def test_as_of_a_time_is_what_was_recorded_by_then(lived: Lived) -> None:
    player = lived.book.players[0]
    story = accounts.read(lived.logs, player).story
    for entry in random.Random(SEED).sample(lived.ledger.entries(), 20):
        at = lived.logs.moment(moment.rfc3339(entry.recorded))
        assert differ(story.account(lived.logs.codec, at), lived.states[entry.position], player) == []


def test_a_fold_that_forgets_something_is_caught(lived: Lived) -> None:
    """A planted fault: a kind of event is lost on the way, and nobody looks at versions."""
    found = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Story, "_decoded", staticmethod(lambda codec, _, stream: [codec.decode(e) for e, _, _ in stream]))
        for player in lived.book.players[:3]:
            story = accounts.read(lived.logs, player).story
            story._found = [each for each in story._found if each.body.type != "limits.headroom_consumed"]
            found.update(differ(story.account(lived.logs.codec), lived.states[-1], player))
    assert found == {"limits"}


@pytest.mark.parametrize("lost", ["player.registered", "limits.headroom_consumed", "transaction.deposit_requested"])
def test_a_gap_in_a_stream_is_refused(lived: Lived, lost: str) -> None:
    story = accounts.read(lived.logs, lived.book.players[0]).story
    story._found.remove(next(each for each in story._found if each.body.type == lost))
    with pytest.raises(Incomplete, match="is missing"):
        story.account(lived.logs.codec)


def test_an_entry_that_is_changed_after_it_was_verified_is_noticed(lived: Lived) -> None:
    entry = lived.ledger.entries()[40]
    rewrite(lived.ledger, entry.position, entry.body.replace(b"operator:test", b"operator:evil"))
    with pytest.raises(CouldNotCheck, match="does not continue the chain"):
        list(lived.logs.entries("eu"))
    rewrite(lived.ledger, entry.position, entry.body)
    assert list(lived.logs.entries("eu")) == lived.ledger.entries()


def rewrite(ledger: Ledger, position: int, body: bytes) -> None:
    """As only a superuser can."""
    with ledger.admin.transaction():
        ledger.sql("SET LOCAL session_replication_role = replica")
        ledger.sql("UPDATE ledger.entry SET body = %s WHERE position = %s", body, position)


def test_the_history_holds_days() -> None:
    """Or no limit would ever begin anew in it."""
    book = history(SEED)
    assert book.entries[-1].recorded - book.entries[0].recorded > timedelta(days=2) / timedelta(microseconds=1)
