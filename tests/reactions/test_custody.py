"""Keys that travel: whom a region may read it can, whoever was erased or has moved away it cannot, in whatever order that comes."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator

import psycopg
import pytest

from access.credentials import CredentialsReader
from domain import operators, players
from domain.kernel import OperatorId
from eventstore import postgres
from eventstore.copies import Counts, counts
from eventstore.postgres import PostgresStreams
from eventstore.rewrapping import ROLE, Left, Rewrapping
from eventstore.vault import Owed, RegionKey, Vault
from policies.residency import Residency
from reactions.custody import AGAIN_S, ERASED, NOT_ALLOWED, UNKNOWN, WRONG, Wants, may_hold
from replication.errors import Interrupted
from replication.keys import Found
from tests.ledger import Ledger
from tests.reactions.custody import CODEC, EVERYWHERE, NOW, ONLY_US, RESIDENCY, Pair, Who, paired


@pytest.fixture
async def pair(ledger: Ledger, migrated: str) -> AsyncIterator[Pair]:
    async with paired(ledger, migrated) as made:
        yield made


async def why(pair: Pair, who: Who) -> str | None:
    [(refused,)] = pair.eu.sql("SELECT refused FROM vault.copy WHERE subject = %s", who.subject)
    return str(refused) if refused else None


def again(pair: Pair) -> None:
    """As if the pause were over."""
    pair.eu.sql("UPDATE vault.copy SET again = 'epoch'")


async def status(pair: Pair, residency: Residency = RESIDENCY) -> Counts:
    async with pair.eu_pool.connection() as connection:
        return (await counts(connection, may_hold(residency, "eu")))["us"]


async def test_a_player_of_another_region_is_read_and_found_once_the_key_has_come(pair: Pair) -> None:
    who = await pair.register(phone="+43 1", birth_date="1980-01-02", external_id="X-7")
    pair.replicate()
    assert not await pair.holds(who)
    assert await pair.fetch() == 1
    assert await pair.holds(who)
    found = [("email", who.email.upper()), ("name", "berg"), ("phone", "+43 1"), ("external_id", "x-7"),
             ("person", "Anna Berg\n1980-01-02")]  # fmt: skip
    for field, value in found:
        assert await pair.vault.find(field, value) == [who.subject], field
    assert await pair.fetch() == 0
    assert len(pair.asked) == 1


async def test_an_operator_is_found_and_their_secrets_open_in_every_region(pair: Pair) -> None:
    who = await pair.invite()
    assert await pair.fetch(pair.wanting(Residency({"*": ("us",)}))) == 1
    assert await pair.holds(who)
    assert await pair.vault.find("operator_email", who.email) == [who.subject]


async def test_an_operator_shows_password_and_code_in_a_region_that_did_not_invite_them(pair: Pair) -> None:
    who = await pair.invite()
    pair.say(who, operators.PasswordSet("the hash"))
    pair.say(who, operators.FactorEnrolled(factor="one", kind=operators.FactorKind.TOTP, secret="the secret"))
    reader = CredentialsReader("eu", PostgresStreams(pair.eu_pool), pair.vault, CODEC)
    pair.replicate()
    assert await reader.find(who.email) == []
    before = await reader.of(OperatorId(f"operator_{who.subject}"))
    assert (before.password, before.secrets) == (None, {})
    await pair.fetch()
    [found] = await reader.find(who.email)
    credentials = await reader.of(found)
    assert (credentials.password, credentials.secrets) == ("the hash", {"one": "the secret"})


async def test_what_is_told_of_a_player_later_is_found_without_asking_again(pair: Pair) -> None:
    who = await pair.register()
    await pair.fetch()
    pair.say(who, players.ProfileRecorded(email="new@example.com", language="de"))
    pair.say(who, players.ProfileRecorded(language="fr"))
    assert await pair.fetch() == 1
    assert await pair.vault.find("email", "new@example.com") == await pair.vault.find("email", who.email)
    assert len(pair.asked) == 1


async def test_what_is_decided_here_does_not_depend_on_whose_keys_have_come(pair: Pair) -> None:
    who = await pair.register()
    await pair.fetch()
    assert await pair.vault.find("email", who.email) == [who.subject]
    assert await pair.vault.find_registered([("email", who.email)]) == {}
    assert await pair.theirs.find_registered([("email", who.email)]) == {("email", who.email): [who.subject]}


async def test_many_are_asked_for_in_questions_of_at_most_so_many(pair: Pair) -> None:
    made = [await pair.register() for _ in range(5)]
    pair.replicate()
    await pair.wants.follow()
    assert [await pair.wants.step(pair.ask, 2) for _ in range(4)] == [2, 2, 1, 0]
    assert [len(asked) for asked in pair.asked] == [2, 2, 1]
    assert all([await pair.holds(who) for who in made])
    assert await status(pair) == Counts(held=5)


async def test_where_residency_forbids_it_nobody_asks_and_nobody_is_given_anything(pair: Pair) -> None:
    who = await pair.register(country=ONLY_US)
    assert await pair.fetch() == 0
    assert pair.asked == []
    assert await status(pair) == Counts(not_allowed=1)
    assert await pair.fetch(pair.wanting(Residency())) == 0  # the asker's file is another
    assert pair.asked == [[who.key.id]]
    assert await why(pair, who) == NOT_ALLOWED
    assert pair.rows(who) == 0
    assert await status(pair, Residency()) == Counts(missing=1, refused=1)


async def test_what_was_refused_is_asked_for_again_later_and_not_at_once(pair: Pair) -> None:
    who = await pair.register()
    pair.us.sql("DELETE FROM vault.data_key")
    assert [await pair.fetch(), await pair.fetch(), len(pair.asked)] == [0, 0, 1]
    assert await why(pair, who) == UNKNOWN
    [(waits,)] = pair.eu.sql("SELECT extract(epoch FROM again - now())::float FROM vault.copy")
    assert AGAIN_S / 2 < waits <= AGAIN_S
    await pair.theirs.keep([Owed(who.subject, who.key, [])])
    again(pair)
    assert await pair.fetch() == 1
    assert await why(pair, who) is None


async def test_a_key_that_was_lost_here_is_wanted_again(pair: Pair) -> None:
    who = await pair.register()
    await pair.fetch()
    pair.eu.sql("DELETE FROM vault.data_key")
    assert await pair.fetch(pair.wanting(RESIDENCY)) == 1
    assert await pair.holds(who)


async def test_an_outage_is_mended_by_itself(pair: Pair) -> None:
    who = await pair.register()

    def silent() -> None:
        raise Interrupted("us does not answer")

    pair.before_answer = silent
    with pytest.raises(Interrupted):
        await pair.fetch()
    pair.before_answer = lambda: None
    assert await pair.fetch() == 1
    assert await pair.holds(who)


async def test_a_key_that_is_not_the_committed_one_is_not_kept(pair: Pair) -> None:
    anna, ben = await pair.register(), await pair.register()
    pair.change = lambda found: Found({anna.key.id: ben.key.key, ben.key.id: ben.key.key}, {})
    assert await pair.fetch() == 1
    assert (pair.rows(anna), await why(pair, anna)) == (0, WRONG)
    assert await pair.holds(ben)


async def test_a_planted_key_at_the_origin_is_not_given_and_holds_up_nobody_else(pair: Pair) -> None:
    anna, ben = await pair.register(), await pair.register()
    planted = pair.us_key.wrap(anna.key._replace(key=bytes(32)), bytes(12))
    pair.us.sql("UPDATE vault.data_key SET wrapped = %s WHERE id = %s", planted, anna.key.id)
    assert await pair.fetch() == 1
    assert await why(pair, anna) == WRONG
    assert await pair.holds(ben)


async def test_a_region_gives_no_keys_that_it_has_not_made(pair: Pair) -> None:
    """Who was registered elsewhere is asked about there, where it is known who was erased."""
    who = await pair.register()
    await pair.fetch()
    given = await type(pair.gives)("eu", pair.eu_pool, pair.vault, pair.gives._codec, RESIDENCY).give(
        [who.key.id], "us"
    )
    assert given == ({}, {who.key.id: UNKNOWN})


async def test_a_region_that_goes_on_with_a_closed_log_gives_what_was_made_there(pair: Pair) -> None:
    who = await pair.register()
    await pair.fetch()
    made = type(pair.gives)
    given = await made("us.2", pair.eu_pool, pair.vault, pair.gives._codec, RESIDENCY, ["us"]).give([who.key.id], "eu")
    assert given.keys == {who.key.id: who.key.key}


async def test_who_was_erased_before_the_fetch_is_not_given(pair: Pair) -> None:
    who = await pair.register()
    pair.replicate()
    await pair.wants.follow()
    pair.say(who, players.Erased(who.key.id, "asked", NOW, (), ""))  # and us has not carried it out yet
    assert await pair.wants.step(pair.ask, 256) == 0
    assert await why(pair, who) == ERASED
    assert pair.rows(who) == 0


async def test_who_is_erased_while_the_answer_is_under_way_is_not_kept(pair: Pair) -> None:
    who, other = await pair.register(), await pair.register()

    def meanwhile() -> None:
        pair.say(who, players.Erased(who.key.id, "asked", NOW, (), ""))
        pair.replicate()

    pair.after_answer = meanwhile
    assert await pair.fetch() == 1
    assert pair.rows(who) == 0
    assert await pair.holds(other)


async def test_who_moves_away_while_the_answer_is_under_way_is_not_kept(pair: Pair) -> None:
    who = await pair.register()
    pair.after_answer = lambda: pair.eu.sql(
        "UPDATE vault.copy SET jurisdiction = %s", ONLY_US
    )  # as another process follows
    assert await pair.fetch() == 0
    assert pair.rows(who) == 0


async def test_an_erasure_destroys_the_copy_and_its_words(pair: Pair) -> None:
    who = await pair.register()
    await pair.fetch()
    assert pair.rows(who) > 2
    await pair.erase(who)
    pair.replicate()
    assert await pair.vault.apply_erasures() == 1
    assert pair.rows(who) == 0
    await pair.fetch()
    assert pair.eu.sql("SELECT * FROM vault.copy") == []


async def test_a_move_to_where_the_key_may_not_be_destroys_the_copy_and_leaves_the_original(pair: Pair) -> None:
    who, other = await pair.register(), await pair.register()
    await pair.fetch()
    pair.move(who, ONLY_US)
    await pair.fetch()
    assert (pair.rows(who), await pair.holds(who), await pair.holds(other)) == (0, False, True)
    assert who.key.id in await pair.theirs.keys({who.key.id: who.key.commitment})
    pair.move(who, EVERYWHERE)
    assert await pair.fetch() == 1
    assert await pair.holds(who)


async def test_what_the_house_forbids_from_now_on_is_destroyed(pair: Pair) -> None:
    who = await pair.register()
    await pair.fetch()
    await pair.fetch(pair.wanting(Residency({EVERYWHERE: ("us",)})))
    assert pair.rows(who) == 0


async def test_the_door_gives_up_copies_and_nothing_that_was_made_here(pair: Pair) -> None:
    who = await pair.register()
    await pair.fetch()
    assert await pair.theirs.give_up([who.subject]) == 0
    assert who.key.id in await pair.theirs.keys_to_disclose({who.key.id: who.key.commitment})
    assert await pair.vault.give_up([who.subject]) == 1
    not_registered = pair.vault.new_key(bytes(16))
    await pair.vault.keep([Owed("0" * 26, not_registered, [])])
    assert await pair.vault.give_up(["0" * 26]) == 0
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        pair.eu.sql(b"DELETE FROM vault.data_key", role="writer")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        pair.eu.sql(b"SELECT vault.give_up('{}')", role="reader")


async def test_a_rotation_of_the_region_key_takes_the_copies_along(pair: Pair) -> None:
    who = await pair.register()
    await pair.fetch()
    fresh = RegionKey(b"f" * 32)
    async with await postgres.connect(pair.eu.dsn, ROLE) as connection:
        work = Rewrapping(connection, pair.eu_key, fresh)
        await work.begin()
        while await work.step():
            pass
        assert await work.left() == Left(0, 0)
    rotated = Vault(pair.eu_pool, fresh)
    assert who.key.id in await rotated.keys({who.key.id: who.key.commitment})
    assert await rotated.find("email", who.email) == [who.subject]
    pair.vault, pair.eu_key = rotated, fresh
    pair.wants = pair.wanting(RESIDENCY)
    later = await pair.register()
    assert await pair.fetch() == 1
    assert await rotated.find("email", later.email) == [later.subject]


async def test_an_entry_that_cannot_be_read_holds_up_nothing(pair: Pair) -> None:
    who = await pair.register()
    broken = Who("player", who.key)
    pair.say(broken, type("Odd", (players.Tagged,), {}, tag=players.Registered.tag)("x"))
    later = await pair.register()
    assert await pair.fetch() == 2
    assert await pair.holds(who)
    assert await pair.holds(later)


# Players who were handed over, of whom another log goes on to tell


async def test_what_the_new_owner_is_told_is_found_where_the_key_was_made(pair: Pair) -> None:
    who, other = await pair.register(), await pair.register()
    await pair.fetch()
    pair.hand_over()
    pair.say(who, players.ProfileRecorded(email="new@example.com", phone="+43 7"))
    pair.say(other, players.ProfileRecorded(jurisdiction="AT"))
    pair.send_back()
    await pair.followed.follow()
    for field, value in (("email", "NEW@example.com"), ("phone", "+43 7"), ("email", who.email)):
        assert await pair.theirs.find(field, value) == [who.subject], value
    found = await pair.theirs.find_registered([("email", "new@example.com")])
    assert found == {("email", "new@example.com"): [who.subject]}, "whom the own log has registered"


async def test_what_the_new_owner_is_told_comes_with_a_copy_that_is_made_later(pair: Pair) -> None:
    who = await pair.register()
    pair.hand_over()
    pair.say(who, players.ProfileRecorded(email="new@example.com"))
    assert await pair.fetch() == 1
    assert await pair.vault.find("email", "new@example.com") == [who.subject]


async def test_who_was_erased_by_the_new_owner_is_not_indexed_and_not_missed(pair: Pair) -> None:
    who = await pair.register()
    pair.hand_over()
    pair.say(who, players.ProfileRecorded(email="new@example.com"))
    pair.say(who, players.Erased(who.key.id, "asked", NOW, (), ""))
    pair.send_back()
    await pair.followed.follow()
    await pair.theirs.apply_erasures()
    assert pair.us.sql("SELECT subject FROM vault.blind_index WHERE subject = %s", who.subject) == []
    assert await pair.fetch() == 0
    assert pair.asked == []
    assert await status(pair) == Counts()
    assert (await pair.gives.give([who.key.id], "eu")).keys == {}


async def test_a_copy_is_forgotten_when_the_log_that_erases_is_not_the_one_that_made_the_key(pair: Pair) -> None:
    """In a third region: it follows both logs. Here eu stands for it, since it holds what was made by us."""
    who = await pair.register()
    await pair.fetch()
    pair.hand_over()
    pair.say(who, players.Erased(who.key.id, "asked", NOW, (), ""))
    third = Wants("ap", "eu", pair.us_pool, pair.theirs, CODEC, RESIDENCY)
    pair.send_back()
    pair.us.sql(
        "INSERT INTO vault.copy (log, subject, key, commitment, jurisdiction, told)"
        " SELECT l.id, %s, %s::uuid, %s, 'DE', 2 FROM ledger.log AS l WHERE l.name = 'us'",
        who.subject, who.key.id, who.key.commitment,
    )  # fmt: skip
    assert len(pair.us.sql("SELECT subject FROM vault.copy")) == 1
    await third.follow()
    assert pair.us.sql("SELECT subject FROM vault.copy") == []


async def test_by_which_jurisdiction_a_key_is_given_and_kept_is_said_by_any_log(pair: Pair) -> None:
    who = await pair.register()
    pair.hand_over()
    pair.say(who, players.ProfileRecorded(jurisdiction=ONLY_US))
    pair.send_back()
    assert (await pair.gives.give([who.key.id], "eu")).refused == {who.key.id: NOT_ALLOWED}
    assert await pair.fetch() == 0
    assert pair.asked == [], "it may not be held here, whichever log says so"
    assert await status(pair) == Counts(not_allowed=1)


async def test_of_whom_the_new_owner_says_what_cannot_be_read_the_key_is_not_given_and_others_are(pair: Pair) -> None:
    who, other = await pair.register(), await pair.register()
    pair.hand_over()
    pair.say(who, type("Odd", (players.Tagged,), {}, tag=players.ProfileRecorded.tag)("x"))
    pair.send_back()
    given = await pair.gives.give([who.key.id, other.key.id], "eu")
    assert (given.keys.keys(), given.refused) == ({other.key.id}, {who.key.id: UNKNOWN})


async def test_a_new_owner_who_may_hold_the_key_by_now_asks_for_it(pair: Pair) -> None:
    who = await pair.register(country=ONLY_US)
    assert await pair.fetch() == 0
    pair.hand_over()
    pair.say(who, players.ProfileRecorded(jurisdiction=EVERYWHERE))
    pair.send_back()
    assert await pair.fetch() == 1
    assert await pair.holds(who)


async def test_a_new_owner_who_erases_does_not_miss_the_key(pair: Pair) -> None:
    who = await pair.register()
    assert await pair.fetch() == 1
    pair.hand_over()
    pair.say(who, players.Erased(who.key.id, "asked", NOW, (), ""))
    pair.send_back()
    await pair.vault.apply_erasures()
    pair.asked.clear()
    assert await pair.fetch(pair.wanting(RESIDENCY)) == 0
    assert (await status(pair), pair.asked) == (Counts(), [])


async def test_of_two_keys_the_one_of_the_registration_opens_what_the_new_owner_is_told(pair: Pair) -> None:
    who = await pair.register()
    await pair.theirs.keep([Owed(who.subject, pair.theirs.new_key(uuid.uuid4().bytes), [])])
    pair.hand_over()
    pair.say(who, players.ProfileRecorded(email="new@example.com"))
    pair.send_back()
    await pair.followed.follow()
    assert await pair.theirs.find("email", "new@example.com") == [who.subject]


async def test_a_key_of_a_planted_row_holds_up_nobody_who_was_handed_over(pair: Pair) -> None:
    one, two = await pair.register(), await pair.register()
    pair.hand_over()
    wrong = pair.theirs.new_key(uuid.UUID(one.key.id).bytes)
    pair.us.sql("DELETE FROM vault.data_key WHERE id = %s", one.key.id)
    await pair.theirs.keep([Owed(one.subject, wrong, [])])
    for who in (one, two):
        pair.say(who, players.ProfileRecorded(email=f"new.{who.email}"))
    pair.send_back()
    await pair.followed.follow()
    assert await pair.theirs.find("email", f"new.{two.email}") == [two.subject]
    assert await pair.theirs.find("email", f"new.{one.email}") == []


ORDERS = [
    order
    for order in itertools.permutations(("fetch", "move", "erase", "backup", "restore"))
    if order.index("backup") < order.index("restore")
]


async def test_in_every_order_the_copy_is_held_if_the_log_allows_it_and_not_otherwise(pair: Pair) -> None:
    """Each order is somebody's life; after each of its steps the vault is looked at by a process that has just started."""
    assert len(ORDERS) == 60
    for order in ORDERS:
        who, kept = await pair.register(), pair.backup()
        jurisdiction, erased, seen = EVERYWHERE, False, EVERYWHERE
        for step in order:
            match step:
                case "fetch":
                    await pair.fetch()
                    seen = jurisdiction
                case "move":
                    jurisdiction = ONLY_US
                    pair.move(who, jurisdiction)
                case "erase":
                    await pair.erase(who)
                    pair.replicate()
                    erased = True
                case "backup":
                    kept = pair.backup()
                case "restore":
                    pair.restore(kept)
            held = await pair.holds(who)
            assert not (held and erased), (order, step)
            if step == "fetch":
                assert held == (seen == EVERYWHERE and not erased), (order, step)
        again(pair)
        await pair.fetch()
        assert not await pair.holds(who), order
        assert pair.rows(who) == 0, order
        assert pair.eu.sql("SELECT subject FROM vault.copy WHERE subject = %s", who.subject) == [], order
