from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given as over
from hypothesis import strategies as st

from domain import eligibility, players
from domain.eligibility import BirthDateNeeded, JurisdictionElsewhere, JurisdictionNeeded, Underage
from domain.errors import AlreadyRegistered, GateClosed, NotFound, PlayerBlocked, PlayerNotActive, Rejected, UnderReview
from domain.kernel import PlayerId
from domain.players import (
    PLAYERS,
    TAGS_MAX,
    Activated,
    ActivationAwaited,
    Blocked,
    Channel,
    Closed,
    ConsentGiven,
    ConsentWithdrawn,
    DuplicatesFound,
    MadeDormant,
    Noted,
    Player,
    PlayerClosed,
    ProfileRecorded,
    Reactivated,
    Status,
    Tagged,
    TooManyTags,
    Unblocked,
    Untagged,
    Verdict,
)
from tests.domain.history import EUR, NOON, REGISTERED, fold, given

ACTIVE = Player(
    Status.ACTIVE,
    "DE",
    EUR,
    REGISTERED.key.id,
    REGISTERED.key.commitment,
    "main",
    "DE",
    registered_at=NOON,
    jurisdictions=("DE",),
)
WAITING = ActivationAwaited(("kyc",))


def test_a_new_player_is_registered() -> None:
    assert players.register(given(PLAYERS), registered=REGISTERED) == [REGISTERED]
    assert given(PLAYERS, REGISTERED) == ACTIVE


@pytest.mark.parametrize(
    "history", [[REGISTERED], [REGISTERED, Blocked(reason="fraud")], [REGISTERED, Closed("asked")]]
)
def test_a_player_is_registered_once(history: list[players.PlayerEvent]) -> None:
    with pytest.raises(AlreadyRegistered):
        players.register(given(PLAYERS, *history), registered=REGISTERED)


def test_what_is_told_at_the_registration_stands_behind_it() -> None:
    profile = ProfileRecorded(language="de")
    consents = [Channel.SMS, Channel.EMAIL, Channel.SMS]
    assert players.register(given(PLAYERS), registered=REGISTERED, profile=profile, consents=consents) == [
        REGISTERED,
        profile,
        ConsentGiven(Channel.EMAIL),
        ConsentGiven(Channel.SMS),
    ]


def test_who_is_like_another_waits_for_a_person_to_look() -> None:
    events = players.register(
        given(PLAYERS), registered=REGISTERED, alike={"phone": ["b", "a"], "email": ["a"]}, awaiting=("kyc",)
    )
    assert events[1:] == [
        DuplicatesFound(("email", "phone"), (PlayerId("player_a"), PlayerId("player_b"))),
        ActivationAwaited(("kyc", "duplicates")),
    ]
    assert fold(PLAYERS, events).status is Status.PENDING


def test_a_finding_names_a_bounded_number_of_players() -> None:
    alike = {"phone": [f"{n:026}" for n in range(100)]}
    [_, found, _] = players.register(given(PLAYERS), registered=REGISTERED, alike=alike)
    assert isinstance(found, DuplicatesFound)
    assert len(found.players) == players.DUPLICATES_MAX


@pytest.mark.parametrize(("jurisdiction", "minimum"), [("US-PA", 21), ("CA-ON", 19), ("GB", 18), ("nowhere", 18)])
def test_nobody_plays_before_the_age_of_their_jurisdiction(jurisdiction: str, minimum: int) -> None:
    birthday = date(2026 - minimum, 11, 22)
    eligibility.require_age(jurisdiction, birthday, NOON)
    eligibility.require_age(jurisdiction, None, NOON)
    with pytest.raises(Underage) as refused:
        eligibility.require_age(jurisdiction, birthday.replace(day=23), NOON)
    assert refused.value.facts["minimum"] == minimum


@pytest.mark.parametrize(
    ("jurisdiction", "rule", "verified"),
    [("US-PA", "age.minimum", True), ("GB", "age.minimum", False), ("FR", "house.age_minimum", True)],
)
def test_who_is_refused_for_their_age_is_told_the_rule_and_whether_it_was_read(
    jurisdiction: str, rule: str, verified: bool
) -> None:
    with pytest.raises(Underage) as refused:
        eligibility.require_age(jurisdiction, date(2020, 1, 1), NOON)
    assert (refused.value.facts["rule"], refused.value.facts["verified"]) == (rule, verified)


def test_who_registers_says_when_they_were_born_where_the_law_has_an_age_for_it() -> None:
    eligibility.require_birth_date("FR", None, NOON)
    eligibility.require_birth_date("SE", date(2000, 1, 1), NOON)
    with pytest.raises(BirthDateNeeded):
        eligibility.require_birth_date("SE", None, NOON)
    with pytest.raises(Underage):
        eligibility.require_birth_date("SE", date(2020, 1, 1), NOON)


def test_a_part_of_a_country_is_a_jurisdiction_of_those_who_live_there() -> None:
    for jurisdiction, country in (("US-PA", "US"), ("US-NJ", "US"), ("DE-BY", "DE"), ("MT", "AT"), ("GB-SCT", "GB")):
        eligibility.require_jurisdiction(jurisdiction, country)
    with pytest.raises(JurisdictionElsewhere):
        eligibility.require_jurisdiction("US-PA", "CA")
    for country in ("US", "CA"):
        with pytest.raises(JurisdictionNeeded) as refused:
            eligibility.require_jurisdiction(country, country)
        assert refused.value.facts == {"country": country}


def test_a_profile_may_move_a_player_to_another_jurisdiction() -> None:
    anna = given(PLAYERS, REGISTERED)
    moved = ProfileRecorded(jurisdiction="US-PA", address_country="US", language="en")
    born = date(2005, 11, 22)
    assert players.record_profile(anna, profile=moved, birth_date=born, at=NOON) == [moved]
    assert given(PLAYERS, REGISTERED, moved, ProfileRecorded(language="es")).jurisdiction == "US-PA"
    with pytest.raises(Underage):
        players.record_profile(anna, profile=moved, birth_date=born.replace(day=23), at=NOON)
    with pytest.raises(JurisdictionElsewhere):
        players.record_profile(anna, profile=ProfileRecorded(jurisdiction="US-PA"), birth_date=born, at=NOON)


def test_who_moves_to_where_people_play_later_says_again_when_they_were_born() -> None:
    anna = given(PLAYERS, REGISTERED)
    moved = ProfileRecorded(jurisdiction="US-PA", address_country="US")
    with pytest.raises(BirthDateNeeded) as refused:
        players.record_profile(anna, profile=moved, birth_date=None, at=NOON)
    assert refused.value.facts == {"minimum": 21, "rule": "age.minimum", "verified": True}
    back = ProfileRecorded(jurisdiction="DE")
    assert players.record_profile(given(PLAYERS, REGISTERED, moved), profile=back, birth_date=None, at=NOON) == [back]


def test_a_profile_that_is_like_anothers_is_found_and_blocks_nobody() -> None:
    told = ProfileRecorded(email="x")
    events = players.record_profile(
        given(PLAYERS, REGISTERED), profile=told, birth_date=None, at=NOON, alike={"email": ["a"]}
    )
    assert events == [told, DuplicatesFound(("email",), (PlayerId("player_a"),))]
    assert fold(PLAYERS, [REGISTERED, *events]).status is Status.ACTIVE


# Consent


def test_a_consent_is_given_and_withdrawn_once() -> None:
    player = given(PLAYERS, REGISTERED, ConsentGiven(Channel.SMS))
    assert players.give_consent(player, channels=[Channel.SMS, Channel.PUSH]) == [ConsentGiven(Channel.PUSH)]
    assert players.withdraw_consent(player, channels=[Channel.SMS, Channel.PUSH]) == [ConsentWithdrawn(Channel.SMS)]
    assert players.withdraw_consent(given(PLAYERS, REGISTERED), channels=[Channel.SMS]) == []


def test_a_consent_can_be_withdrawn_whatever_has_happened() -> None:
    for end in (Closed("asked"), Blocked("fraud"), WAITING):
        player = given(PLAYERS, REGISTERED, ConsentGiven(Channel.SMS), end)
        assert players.withdraw_consent(player, channels=[Channel.SMS]) == [ConsentWithdrawn(Channel.SMS)]


def test_marketing_writes_only_where_it_was_allowed() -> None:
    player = given(PLAYERS, REGISTERED, ConsentGiven(Channel.SMS))
    assert player.may_contact(Channel.SMS, NOON) == Verdict(allowed=True)
    assert player.may_contact(Channel.EMAIL, NOON) == Verdict(allowed=False, reason="no_consent")
    assert Player().may_contact(Channel.SMS, NOON) == Verdict(allowed=False, reason="unknown")


@pytest.mark.parametrize(
    ("last", "reason"),
    [(Blocked("fraud"), "blocked"), (Closed("asked"), "closed"), (WAITING, "pending"), (MadeDormant(), None)],
)
def test_marketing_writes_to_nobody_who_is_blocked_closed_or_waiting(last: Any, reason: str | None) -> None:
    player = given(PLAYERS, REGISTERED, ConsentGiven(Channel.SMS), last)
    assert player.may_contact(Channel.SMS, NOON) == Verdict(allowed=reason is None, reason=reason)


# Statuses


def test_a_registered_player_can_be_blocked() -> None:
    assert players.block(given(PLAYERS, REGISTERED), reason="fraud") == [Blocked(reason="fraud")]


def test_blocking_again_records_nothing() -> None:
    blocked = given(PLAYERS, REGISTERED, Blocked(reason="fraud"))
    assert players.block(blocked, reason="fraud") == []


def test_a_reason_that_holds_the_money_stands_over_one_that_does_not() -> None:
    blocked = given(PLAYERS, REGISTERED, Blocked("chargeback"))
    blocked.require_payable()
    events = players.block(blocked, reason="fraud")
    assert events == [Blocked("fraud")]
    held = fold(PLAYERS, events, state=blocked)
    with pytest.raises(PlayerBlocked):
        held.require_payable()
    assert players.block(held, reason="chargeback") == []
    assert players.block(held, reason="aml") == [Blocked("aml")]
    assert players.block(blocked, reason="rude") == [Blocked("rude")]


def test_closing_an_account_keeps_the_hold_on_its_money_until_the_block_is_ended() -> None:
    closed = given(PLAYERS, REGISTERED, Blocked("fraud"), Closed("asked"))
    with pytest.raises(PlayerBlocked):
        closed.require_payable()
    events = players.unblock(closed, reason="cleared")
    assert events == [Unblocked("cleared")]
    freed = fold(PLAYERS, events, state=closed)
    freed.require_payable()
    assert freed.status is Status.CLOSED
    assert players.unblock(freed, reason="cleared") == []


def test_nobody_can_be_blocked_who_is_not_there() -> None:
    with pytest.raises(NotFound):
        players.block(given(PLAYERS), reason="fraud")


def test_a_blocked_player_keeps_all_the_rest() -> None:
    blocked = given(PLAYERS, REGISTERED, Tagged("vip"), Blocked(reason="fraud"))
    assert (blocked.status, blocked.block_reason) == (Status.BLOCKED, "fraud")
    assert (blocked.country, blocked.currency, blocked.key, blocked.tags) == ("DE", EUR, REGISTERED.key.id, ("vip",))


def test_an_account_that_waited_waits_on_when_its_block_ends() -> None:
    waiting = given(PLAYERS, REGISTERED, WAITING, Blocked("fraud"))
    assert players.unblock(waiting, reason="cleared") == [Unblocked("cleared")]
    assert given(PLAYERS, REGISTERED, WAITING, Blocked("fraud"), Unblocked("cleared")).status is Status.PENDING
    active = given(PLAYERS, REGISTERED, Blocked("fraud"), Unblocked("cleared"))
    assert (active.status, active.block_reason) == (Status.ACTIVE, None)
    assert players.unblock(active, reason="again") == []


def test_an_account_is_activated_once_what_it_waits_for_is_settled() -> None:
    waiting = given(PLAYERS, REGISTERED, WAITING)
    with pytest.raises(GateClosed) as refused:
        players.activate(waiting, identified=False)
    assert refused.value.facts == {
        "action": "activate",
        "level": "identity",
        "reason": "kyc.deadline",
        "verified": True,
    }
    assert players.activate(waiting, identified=True) == [Activated()]
    duplicate = given(PLAYERS, REGISTERED, ActivationAwaited(("duplicates",)))
    assert players.activate(duplicate, identified=False) == [Activated()]
    assert players.activate(given(PLAYERS, REGISTERED), identified=False) == []
    with pytest.raises(PlayerBlocked):
        players.activate(given(PLAYERS, REGISTERED, WAITING, Blocked("fraud")), identified=True)


def test_an_account_sleeps_and_wakes() -> None:
    assert players.make_dormant(given(PLAYERS, REGISTERED)) == [MadeDormant()]
    asleep = given(PLAYERS, REGISTERED, MadeDormant())
    assert players.make_dormant(asleep) == []
    assert players.activate(asleep, identified=False) == [Reactivated()]
    assert players.make_dormant(given(PLAYERS, REGISTERED, Blocked("fraud"))) == []


def test_a_closed_account_is_closed_for_good() -> None:
    assert players.close(given(PLAYERS, REGISTERED), reason="asked", at=NOON) == [
        Closed("asked", datetime(2037, 1, 1, tzinfo=UTC))
    ]
    closed = given(PLAYERS, REGISTERED, Closed("asked"))
    assert players.close(closed, reason="again", at=NOON) == []
    assert players.unblock(closed, reason="x") == []
    assert players.make_dormant(closed) == []
    for refused in (
        lambda: players.activate(closed, identified=True),
        lambda: players.block(closed, reason="fraud"),
        lambda: players.give_consent(closed, channels=[Channel.SMS]),
        lambda: players.record_profile(closed, profile=ProfileRecorded(language="de"), birth_date=None, at=NOON),
    ):
        with pytest.raises(PlayerClosed):
            refused()


@pytest.mark.parametrize(
    ("last", "refusal"),
    [
        (Blocked("x"), PlayerBlocked),
        (Closed("x"), PlayerNotActive),
        (WAITING, PlayerNotActive),
        (MadeDormant(), PlayerNotActive),
    ],
)
def test_only_an_active_player_may_put_money_at_stake(last: Any, refusal: type[Rejected]) -> None:
    given(PLAYERS, REGISTERED).require_active()
    with pytest.raises(refusal):
        given(PLAYERS, REGISTERED, last).require_active()
    with pytest.raises(NotFound):
        Player().require_active()


def test_only_a_block_for_fraud_or_laundering_holds_the_players_own_money() -> None:
    for last in (Blocked("chargeback"), Closed("asked"), MadeDormant()):
        given(PLAYERS, REGISTERED, last).require_payable()
    with pytest.raises(PlayerBlocked):
        given(PLAYERS, REGISTERED, Blocked("fraud")).require_payable()


def test_who_is_looked_at_for_laundering_hears_a_neutral_word() -> None:
    held = given(PLAYERS, REGISTERED, Blocked("aml"))
    for asks in (held.require_payable, held.require_active):
        with pytest.raises(UnderReview) as refused:
            asks()
        assert refused.value.facts == {}


# Tags and notes


def test_a_tag_is_there_once_and_gone_once() -> None:
    player = given(PLAYERS, REGISTERED, Tagged("vip"), Tagged("fast_payout"))
    assert player.tags == ("fast_payout", "vip")
    assert players.tag(player, tag="vip") == []
    assert players.untag(player, tag="vip") == [Untagged("vip")]
    assert players.untag(player, tag="new") == []


def test_tags_are_bounded() -> None:
    full = given(PLAYERS, REGISTERED, *(Tagged(f"t{n}") for n in range(TAGS_MAX)))
    with pytest.raises(TooManyTags):
        players.tag(full, tag="one_more")
    assert players.tag(full, tag="t0") == []


def test_every_note_is_one_more() -> None:
    assert players.note(given(PLAYERS, REGISTERED, Noted("a")), text="a") == [Noted("a")]


def test_the_state_holds_nothing_personal() -> None:
    assert set(Player.__struct_fields__) == {
        "status", "country", "currency", "key", "commitment", "brand", "jurisdiction", "registered_at", "block_reason",
        "awaiting", "consents", "tags", "duplicates", "birth_year", "closed_at", "erased_at", "jurisdictions", "erase_by",
        "taken_up",
    }  # fmt: skip


# Whatever is done to a player, in any order

ACTS: dict[str, Any] = {
    "block": lambda p: players.block(p, reason="rude"),
    "hold": lambda p: players.block(p, reason="fraud"),
    "unblock": lambda p: players.unblock(p, reason="x"),
    "close": lambda p: players.close(p, reason="x", at=NOON),
    "sleep": players.make_dormant,
    "activate": lambda p: players.activate(p, identified=False),
    "identify": lambda p: players.activate(p, identified=True),
    "consent": lambda p: players.give_consent(p, channels=list(Channel)),
    "withdraw": lambda p: players.withdraw_consent(p, channels=list(Channel)),
    "tag": lambda p: players.tag(p, tag="vip"),
    "untag": lambda p: players.untag(p, tag="vip"),
}


@over(st.lists(st.sampled_from(sorted(ACTS)), max_size=25), st.booleans())
def test_asking_again_records_nothing_and_nobody_leaves_a_closed_account(acts: list[str], waits: bool) -> None:
    player = given(PLAYERS, REGISTERED, *([WAITING] if waits else []))
    known = not waits
    for act in acts:
        before = player
        try:
            events = ACTS[act](player)
        except Rejected:
            continue
        player = fold(PLAYERS, events, state=player)
        known = known or act == "identify"
        assert ACTS[act](player) == []
        assert before.status is not Status.CLOSED or player.status is Status.CLOSED
        assert (player.block_reason is not None) == (player.status is Status.BLOCKED) or player.status is Status.CLOSED
        assert known or player.status not in {Status.ACTIVE, Status.DORMANT}
        assert player.status in {Status.ACTIVE, Status.DORMANT} or not player.may_contact(Channel.SMS, NOON).allowed


FAULTS: list[tuple[str, Any]] = [
    ("close", lambda _p: [Closed("x")]),
    ("activate", lambda p: [Activated()] if p.status is Status.PENDING else []),
    ("unblock", lambda _p: [Unblocked("x")]),
    ("consent", lambda _p: [ConsentGiven(Channel.SMS)]),
]


@pytest.mark.parametrize(("act", "fault"), FAULTS, ids=[act for act, _ in FAULTS])
def test_a_planted_fault_is_found(monkeypatch: pytest.MonkeyPatch, act: str, fault: Any) -> None:
    monkeypatch.setitem(ACTS, act, fault)
    with pytest.raises((AssertionError, ExceptionGroup)):
        test_asking_again_records_nothing_and_nobody_leaves_a_closed_account()


def test_who_was_there_first_is_named_but_does_not_wait_and_a_block_stays_one() -> None:
    first = given(PLAYERS, REGISTERED)
    later = msgspec.structs.replace(first, registered_at=first.registered_at + timedelta(seconds=1))
    found = DuplicatesFound(("email",), (PlayerId("player_b"),))
    ask = {"by": ["email"], "holds": True}
    assert players.find_alike(first, others={"player_b": later}, **ask) == [found]  # type: ignore[arg-type]
    waits = ActivationAwaited(("duplicates",))
    assert players.find_alike(later, others={"player_b": first}, **ask) == [found, waits]  # type: ignore[arg-type]
    blocked = fold(PLAYERS, [Blocked("fraud")], state=later)
    assert players.find_alike(blocked, others={"player_b": first}, **ask) == [found]  # type: ignore[arg-type]
    knows = fold(PLAYERS, [found], state=later)
    assert players.find_alike(knows, others={"player_b": first}, **ask) == []  # type: ignore[arg-type]
    waiting = fold(PLAYERS, [ActivationAwaited(("kyc",))], state=later)
    assert players.find_alike(waiting, others={"player_b": first}, **ask)[1:] == [  # type: ignore[arg-type]
        ActivationAwaited(("kyc", "duplicates"))
    ]
