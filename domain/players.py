"""
Players: who has an account, what we know of them, and whether they may use it.

Invariants:
    - what identifies a person (name, e-mail, address, …) is sealed under the player's own data key;
    - only an active player may deposit or play; money that is on its way still arrives;
    - whoever is not active, or has not consented to a channel, gets no marketing there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple, get_args

import msgspec

from domain import eligibility
from domain.errors import AlreadyRegistered, Conflict, GateClosed, NotFound, PlayerBlocked, PlayerNotActive, UnderReview
from domain.kernel import EPOCH, NO_KEY, STREAMS_CACHED, Aggregate, Event, Personal, PlayerId, Stream, parse_id
from policies import gates
from policies.limits import MONEY_LAUNDERING, SystemLimit, system
from policies.retention import Period, longest

TAGS_MAX = 50
DUPLICATES_MAX = 20
"""How many other players a finding names."""


class Channel(StrEnum):
    EMAIL = "email"
    SMS = "sms"
    PUSH = "push"
    PHONE = "phone"
    POST = "post"


# Events: the tags and fields are the storage format.


class DataKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    r"""Names the player's data key and commits to it: SHA-256("countroom/data-key/v1\n" ‖ id ‖ "\n" ‖ key), in hex."""

    id: str
    commitment: str


class Registered(Event, frozen=True, kw_only=True, tag="player.registered"):
    """A player opened an account of `brand`, in the currency in which all of its money is, and lives in `country`
    (ISO 3166-1 alpha-2). `key` is the data key under which the personal fields are sealed. `birth_year`: in the clear, because
    limits depend on it (0: not known).
    """

    brand: str
    country: str
    currency: str
    key: DataKey
    birth_year: int = 0
    name: Personal | None = None
    email: Personal | None = None
    phone: Personal | None = None
    birth_date: Personal | None = None
    external_id: Personal | None = None


class ProfileRecorded(Event, frozen=True, kw_only=True, tag="player.profile_recorded"):
    """What is known of the player from now on; a field that is not there stays as it was. `jurisdiction`: whose rules
    hold, ISO 3166-1 or 3166-2 (until one is recorded: the country). `device`: on which they registered.
    """

    language: str = ""
    jurisdiction: str = ""
    acquisition_source: str = ""
    device: str = ""
    address_country: str = ""
    birth_year: int = 0
    street: Personal | None = None
    city: Personal | None = None
    postcode: Personal | None = None
    name: Personal | None = None
    email: Personal | None = None
    phone: Personal | None = None
    birth_date: Personal | None = None


class ConsentGiven(Event, frozen=True, tag="player.consent_given"):
    """The player wants to hear of offers through `channel`."""

    channel: Channel


class ConsentWithdrawn(Event, frozen=True, tag="player.consent_withdrawn"):
    """The player does not want to hear of offers through `channel` any more."""

    channel: Channel


class DuplicatesFound(Event, frozen=True, tag="player.duplicates_found"):
    """`players` have the same values in some of the fields `by`; person: name and birth date together."""

    by: tuple[str, ...]
    players: tuple[PlayerId, ...]


class DuplicatesCompared(Event, frozen=True, tag="player.duplicates_compared"):
    """Those found so far have been looked at: if one of them is shut out from gambling, this one is too, by now."""


class ComparisonAwaited(Event, frozen=True, tag="player.comparison_awaited"):
    """Those found so far are to be looked at again: one was dismissed, and another may be shut out."""


class ActivationAwaited(Event, frozen=True, tag="player.activation_awaited"):
    """The account is not active until what `reasons` name is settled: kyc, duplicates."""

    reasons: tuple[str, ...]


class Activated(Event, frozen=True, tag="player.activated"):
    """The account that waited may be used."""


class Blocked(Event, frozen=True, tag="player.blocked"):
    """The player may not deposit any more. `reason`: a word, in the clear; text in entries of the first release."""

    reason: str


class SafeguardsTakenUp(Event, frozen=True, tag="player.safeguards_taken_up"):
    """As `protection.safeguards_taken_up`, of blocks and consents."""

    log: str
    upto: int


class Unblocked(Event, frozen=True, tag="player.unblocked"):
    """The block is over. `reason`: a word, in the clear."""

    reason: str


class MadeDormant(Event, frozen=True, tag="player.made_dormant"):
    """The account has not been used for long, and sleeps."""


class Reactivated(Event, frozen=True, tag="player.reactivated"):
    """The sleeping account is used again."""


class Closed(Event, frozen=True, tag="player.closed"):
    """The account has ended for good; what is in it may still be paid out. `reason`: a word, in the clear. `erase_by`: from when on
    nothing that identifies the player may be left, by the rules of the day; null if no row says so.
    """

    reason: str
    erase_by: datetime | None = None


class ErasureDue(Event, frozen=True, tag="player.erasure_due"):
    """Nothing that identifies the player may be left by now, and it is there."""


class Erased(Event, frozen=True, tag="player.erased"):
    """What identifies the player is given up: data key `key` is destroyed wherever it is held. `basis`: why, a word. `kept`: the
    retention periods since `closed_at` that were over, by the table of rules with the SHA-256 `rules`.
    """

    key: str
    basis: str
    closed_at: datetime
    kept: tuple[Period, ...]
    rules: str


class Tagged(Event, frozen=True, tag="player.tagged"):
    """The player is one of those whom the house calls `label`."""

    label: str


class Untagged(Event, frozen=True, tag="player.untagged"):
    """The player is none of those any more."""

    label: str


class Noted(Event, frozen=True, tag="player.noted"):
    """Somebody of the house wrote something down about the player."""

    text: Personal


PlayerEvent = (
    Registered | ProfileRecorded | ConsentGiven | ConsentWithdrawn | DuplicatesFound | DuplicatesCompared
    | ComparisonAwaited | ActivationAwaited | Activated | Blocked | SafeguardsTakenUp | Unblocked | MadeDormant
    | Reactivated | Closed | ErasureDue | Erased | Tagged | Untagged | Noted
)  # fmt: skip


# State


class Status(StrEnum):
    UNKNOWN = "unknown"
    PENDING = "pending"
    ACTIVE = "active"
    BLOCKED = "blocked"
    DORMANT = "dormant"
    CLOSED = "closed"


class Verdict(NamedTuple):
    """Whether marketing may write. `reason`: why not, in a word."""

    allowed: bool
    reason: str | None = None


class Player(msgspec.Struct, frozen=True):
    """`key`, `commitment`: of the player's data key. `awaiting`: why the account is not active yet, also behind a block.
    `block_reason`: of the block that has not ended; it outlasts the closing of the account.
    `registered_at`: when that was recorded here. `consents` and `tags` in order. `duplicates`: others that may be the same
    person, the first of them. `birth_year`: 0 if it is not known. `jurisdictions`: all whose rules have ever held. `erase_by`: as
    long as nobody was told that it has come. `taken_up`: as of Protection.
    """

    status: Status = Status.UNKNOWN
    country: str = ""
    currency: str = ""
    key: str = ""
    commitment: str = ""
    brand: str = ""
    jurisdiction: str = ""
    registered_at: datetime = EPOCH
    block_reason: str | None = None
    awaiting: tuple[str, ...] = ()
    consents: tuple[Channel, ...] = ()
    tags: tuple[str, ...] = ()
    duplicates: tuple[PlayerId, ...] = ()
    birth_year: int = 0
    closed_at: datetime | None = None
    erased_at: datetime | None = None
    taken_up: dict[str, int] = {}
    jurisdictions: tuple[str, ...] = ()
    erase_by: datetime | None = None

    def require(self) -> None:
        """Raises NotFound."""
        if self.status is Status.UNKNOWN:
            raise NotFound("no such player")

    def sealing_key(self) -> tuple[str, str]:
        """The data key under which what is personal of this player is sealed, for Plan.key: of one who was erased, none. Raises NotFound."""
        self.require()
        return (self.key, self.commitment) if self.erased_at is None else NO_KEY

    def require_active(self) -> None:
        """What deposits, bets and bonuses need. Raises NotFound, UnderReview, PlayerBlocked, PlayerNotActive (status)."""
        self.require()
        if self.block_reason in MONEY_LAUNDERING:
            raise UnderReview
        if self.status is Status.BLOCKED:
            raise PlayerBlocked
        if self.status is not Status.ACTIVE:
            raise PlayerNotActive(status=self.status)

    def require_payable(self) -> None:
        """What withdrawals need: a block may be of a kind that holds money. Raises NotFound, UnderReview, PlayerBlocked."""
        self.require()
        if self.block_reason in MONEY_LAUNDERING:
            raise UnderReview
        if self.block_reason in gates.BLOCKS_THAT_HOLD_MONEY:
            raise PlayerBlocked

    def system_limits(self, at: datetime) -> tuple[SystemLimit, ...]:
        """The limits that the law sets for this player."""
        return system(self.jurisdiction, birth_year=self.birth_year, at=at)

    def may_contact(self, channel: Channel, _at: datetime) -> Verdict:
        """Whether marketing may use the channel: the one place to ask."""
        if self.status not in {Status.ACTIVE, Status.DORMANT}:
            return Verdict(allowed=False, reason=self.status)
        if channel not in self.consents:
            return Verdict(allowed=False, reason="no_consent")
        return Verdict(allowed=True)


def evolve(player: Player, event: PlayerEvent, at: datetime) -> Player:  # noqa: C901, PLR0911, PLR0912 — one case an event
    change = msgspec.structs.replace
    match event:
        case Registered(brand=brand, country=country, currency=currency, key=key):
            return Player(
                Status.ACTIVE, country, currency, key.id, key.commitment, brand, jurisdiction=country, registered_at=at,
                birth_year=event.birth_year, jurisdictions=(country,),
            )  # fmt: skip
        case ProfileRecorded():
            here, birth_year = event.jurisdiction or player.jurisdiction, event.birth_year or player.birth_year
            ever = tuple(dict.fromkeys((*player.jurisdictions, here)))
            return change(player, jurisdiction=here, jurisdictions=ever, birth_year=birth_year)
        case ConsentGiven(channel):
            return change(player, consents=tuple(sorted({*player.consents, channel})))
        case ConsentWithdrawn(channel):
            return change(player, consents=tuple(each for each in player.consents if each is not channel))
        case Tagged(label):
            return change(player, tags=tuple(sorted({*player.tags, label})))
        case Untagged(label):
            return change(player, tags=tuple(each for each in player.tags if each != label))
        case ActivationAwaited(reasons):
            return change(player, status=Status.PENDING, awaiting=reasons)
        case Activated():
            return change(player, status=Status.ACTIVE, awaiting=())
        case Blocked(reason):
            return change(player, status=Status.BLOCKED, block_reason=reason)
        case SafeguardsTakenUp(log, upto):
            return change(player, taken_up={**player.taken_up, log: upto})
        case Unblocked():
            ended = Status.PENDING if player.awaiting else Status.ACTIVE
            return change(player, status=player.status if player.status is Status.CLOSED else ended, block_reason=None)
        case MadeDormant():
            return change(player, status=Status.DORMANT)
        case Reactivated():
            return change(player, status=Status.ACTIVE)
        case Closed():
            return change(player, status=Status.CLOSED, closed_at=at, erase_by=event.erase_by)
        case ErasureDue():
            return change(player, erase_by=None)
        case Erased():
            return change(player, erased_at=at, birth_year=0, erase_by=None)
        case DuplicatesFound(players=found):
            known = dict.fromkeys((*player.duplicates, *found))
            return change(player, duplicates=tuple(known)[:DUPLICATES_MAX])
        case DuplicatesCompared() | ComparisonAwaited() | Noted():
            return player


PLAYERS = Aggregate("player", initial=Player(), evolve=evolve, events=get_args(PlayerEvent))


@lru_cache(STREAMS_CACHED)
def stream(player_id: PlayerId) -> Stream[Player]:
    return Stream(PLAYERS, parse_id("player", player_id))


# Decisions


class PlayerClosed(Conflict):
    code = "player_closed"
    title = "The player's account has been closed"


class TooManyTags(Conflict):
    code = "too_many_tags"
    title = f"A player has at most {TAGS_MAX} tags"


def register(
    player: Player,
    *,
    registered: Registered,
    profile: ProfileRecorded | None = None,
    consents: Sequence[Channel] = (),
    alike: Mapping[str, Sequence[str]] | None = None,
    awaiting: Sequence[str] = (),
) -> list[PlayerEvent]:
    """Open an account. It waits for what `awaiting` names, and for a person to look at those who are `alike` (suffixes by field).
    Country, currency and age are checked where the request enters.
    """
    if player.status is not Status.UNKNOWN:
        raise AlreadyRegistered
    events: list[PlayerEvent] = [registered]
    if profile is not None:
        events.append(profile)
    events += [ConsentGiven(channel) for channel in sorted(set(consents))]
    reasons = tuple(awaiting)
    if alike:
        events.append(_duplicates(alike))
        reasons = (*reasons, "duplicates")
    if reasons:
        events.append(ActivationAwaited(reasons))
    return events


def record_profile(
    player: Player,
    *,
    profile: ProfileRecorded,
    birth_date: date | None,
    at: datetime,
    alike: Mapping[str, Sequence[str]] | None = None,
) -> list[PlayerEvent]:
    """Record what is known from now on. Whether it is new cannot be told, because what was known is sealed."""
    player.require()
    if player.status is Status.CLOSED:
        raise PlayerClosed
    jurisdiction = profile.jurisdiction or player.jurisdiction
    if profile.jurisdiction:
        eligibility.require_jurisdiction(jurisdiction, profile.address_country or player.country)
    eligibility.require_age_to_move(player.jurisdiction, jurisdiction, birth_date, at)
    return [profile, _duplicates(alike)] if alike else [profile]


def find_alike(player: Player, *, by: Sequence[str], others: Mapping[str, Player], holds: bool) -> list[PlayerEvent]:
    """Name those of the others, by their ids, who are not named yet, as long as there is room. `holds`: an account that can be
    used, or waits to be, waits for a person to look, if one of them was there first.
    """
    player.require()
    room = DUPLICATES_MAX - len(player.duplicates)
    new = [PlayerId(each) for each in sorted(others) if each not in player.duplicates][:room]
    if not new:
        return []
    is_later = any(others[each].registered_at < player.registered_at for each in new)
    usable = player.status in {Status.ACTIVE, Status.PENDING} and "duplicates" not in player.awaiting
    found = DuplicatesFound(tuple(by), tuple(new))
    return [found, ActivationAwaited((*player.awaiting, "duplicates"))] if holds and is_later and usable else [found]


def _duplicates(alike: Mapping[str, Sequence[str]]) -> DuplicatesFound:
    found = sorted({PlayerId(f"player_{suffix}") for suffixes in alike.values() for suffix in suffixes})
    return DuplicatesFound(tuple(sorted(alike)), tuple(found[:DUPLICATES_MAX]))


def give_consent(player: Player, *, channels: Sequence[Channel]) -> list[PlayerEvent]:
    """Asking again records nothing."""
    player.require()
    if player.status is Status.CLOSED:
        raise PlayerClosed
    return [ConsentGiven(channel) for channel in sorted(set(channels) - set(player.consents))]


def withdraw_consent(player: Player, *, channels: Sequence[Channel]) -> list[PlayerEvent]:
    """Never refused to anyone who is there. Asking again records nothing."""
    player.require()
    return [ConsentWithdrawn(channel) for channel in sorted(set(channels) & set(player.consents))]


def activate(player: Player, *, identified: bool) -> list[PlayerEvent]:
    """Let a waiting account be used. Raises GateClosed if it waits for an identity that is not verified."""
    player.require()
    if player.status is Status.CLOSED:
        raise PlayerClosed
    if player.status is Status.BLOCKED:
        raise PlayerBlocked
    if "kyc" in player.awaiting and not identified:
        waits = gates.awaited(player.jurisdiction, player.registered_at)
        raise GateClosed(action="activate", level=waits.level, reason=waits.reason, verified=waits.verified)
    if player.status is Status.PENDING:
        return [Activated()]
    return [Reactivated()] if player.status is Status.DORMANT else []


def block(player: Player, *, reason: str) -> list[PlayerEvent]:
    """Stop deposits at once. A further reason stands instead of the first, unless that holds the money and this does not."""
    player.require()
    if player.status is Status.CLOSED:
        raise PlayerClosed
    lighter = player.block_reason in gates.BLOCKS_THAT_HOLD_MONEY and reason not in gates.BLOCKS_THAT_HOLD_MONEY
    return [] if lighter or reason == player.block_reason else [Blocked(reason=reason)]


def unblock(player: Player, *, reason: str) -> list[PlayerEvent]:
    """End a block; an account that was waiting waits on, and one that is closed stays closed."""
    player.require()
    return [] if player.block_reason is None else [Unblocked(reason=reason)]


def make_dormant(player: Player) -> list[PlayerEvent]:
    """Let an account that nobody uses sleep. Nobody else's changes by that."""
    player.require()
    return [MadeDormant()] if player.status is Status.ACTIVE else []


def close(player: Player, *, reason: str, at: datetime) -> list[PlayerEvent]:
    """End an account for good. Asking again records nothing."""
    player.require()
    is_closed = player.status is Status.CLOSED
    return [] if is_closed else [Closed(reason, longest(player.jurisdictions, at, at).due)]


def tag(player: Player, *, tag: str) -> list[PlayerEvent]:
    player.require()
    if tag in player.tags:
        return []
    if len(player.tags) >= TAGS_MAX:
        raise TooManyTags
    return [Tagged(tag)]


def untag(player: Player, *, tag: str) -> list[PlayerEvent]:
    player.require()
    return [Untagged(tag)] if tag in player.tags else []


def note(player: Player, *, text: str) -> list[PlayerEvent]:
    """Write something down; each time is one more."""
    player.require()
    return [Noted(text)]
