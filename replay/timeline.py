"""
What happened to a player, row by row: when, who did it, what, how much, and what was left.

Invariants:
    - a row is made from the bytes of its entry alone, also of a kind that this release does not know;
    - a sealed field stays sealed unless its key was given, and then is marked as opened;
    - whom else somebody has looked at is not told in a player's timeline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from domain.kernel import Money, PlayerId, Sealed, instant, parse_id
from domain.reads import ReadsRecorded
from eventstore.record import Body
from policies.currencies import EXPONENTS
from replay.account import Concerned

Reveal = Callable[[str, str, Sealed], str | None]
"""(event id, dotted path, sealed field) → in the clear, or None if its key was not given."""

WORDS: Mapping[str, str] = {
    "player.registered": "account opened: {brand}, {country}, {currency}",
    "player.profile_recorded": "profile recorded",
    "player.consent_given": "consent given: {channel}",
    "player.consent_withdrawn": "consent withdrawn: {channel}",
    "player.duplicates_found": "like others by {by}",
    "player.duplicates_compared": "compared with those that are like it",
    "player.comparison_awaited": "to be compared with those that are like it",
    "player.activation_awaited": "waits for {reasons}",
    "player.activated": "activated",
    "player.blocked": "blocked: {reason}",
    "player.erasure_due": "is to be erased by now",
    "player.erased": "erased: what was personal cannot be read any more",
    "player.unblocked": "unblocked: {reason}",
    "player.made_dormant": "made dormant",
    "player.reactivated": "active again",
    "player.closed": "account closed: {reason}",
    "player.tagged": "tagged {label}",
    "player.untagged": "no longer tagged {label}",
    "player.noted": "note written",
    "kyc.requested": "KYC asked for: {level}",
    "kyc.submitted": "KYC submitted: {level}, {method} {provider}",
    "kyc.approved": "KYC approved: {level}, {method}",
    "kyc.rejected": "KYC rejected: {level}, {method}: {reason}",
    "kyc.expired": "KYC document expired",
    "kyc.enhanced_expired": "KYC document expired: enhanced",
    "kyc.age_doubted": "Age to be verified again",
    "kyc.deadline_missed": "KYC deadline missed",
    "login.succeeded": "logged in: {device} {country}",
    "login.failed": "log-in failed: {reason}",
    "login.ended": "logged out",
    "protection.timed_out": "time-out until {until}, by {source}",
    "protection.excluded": "excluded: {term} {register}, by {source}",
    "protection.lift_requested": "end of the exclusion asked for, from {effective_at}, by {source}",
    "protection.lifted": "exclusion lifted, as was asked for: {source}",
    "protection.exclusion_ended": "exclusion over: {source}",
    "protection.match_dismissed": "not the same person as {of}, who is excluded",
    "protection.time_out_dismissed": "not the same person as {of}, who has a time-out",
    "protection.matches_shut_out": "the same person's other accounts shut out: {players}",
    "protection.action_blocked": "{action} stopped: {reason}",
    "protection.action_unblocked": "{action} not stopped any more: {reason}",
    "protection.safeguards_taken_up": "what {log} had recorded to protect them counts from now on",
    "limits.safeguards_taken_up": "limits that {log} had recorded count from now on",
    "player.safeguards_taken_up": "blocks and withdrawn consents that {log} had recorded count from now on",
    "safeguard.timed_out": "time-out until {until}, by {source}, recorded without the owner",
    "safeguard.excluded": "excluded: {term}, by {source}, recorded without the owner",
    "safeguard.action_blocked": "{action} stopped: {reason}, recorded without the owner",
    "safeguard.blocked": "blocked: {reason}, recorded without the owner",
    "safeguard.consent_withdrawn": "consent withdrawn: {channel}, recorded without the owner",
    "safeguard.limit_set": "limit of {kind} per {period} set, recorded without the owner",
    "protection.register_asked": "register {register} asked: {answer}",
    "protection.play_refused": "{action} refused: {code}",
    "limits.limit_set": "limit of {kind} per {period} set",
    "limits.limit_lifted": "the house's limit of {kind} per {period} lifted: {reason}",
    "limits.raise_requested": "a higher limit of {kind} per {period} asked for, by {source}, from {effective_at}",
    "limits.raise_attested": "what a higher limit of {kind} needs was seen: {need}",
    "limits.raise_confirmed": "the higher limit of {kind} per {period} confirmed, from {effective_at}",
    "limits.raise_withdrawn": "the higher limit of {kind} per {period} not wanted any more",
    "limits.headroom_consumed": "counted against the deposit limits of {day}",
    "limits.headroom_released": "given back to the deposit limits of {day}",
    "limits.withdrawal_counted": "net deposits of {day} are less by what was paid out",
    "limits.withdrawal_uncounted": "net deposits of {day} are more by what came back",
    "limits.deposit_refused": "deposit refused: {code}",
    "transaction.deposit_requested": "deposit requested from {provider} {reference}",
    "transaction.deposit_settled": "deposit settled",
    "transaction.deposit_failed": "deposit failed",
    "transaction.deposit_authorised": "deposit authorised {reference}",
    "transaction.deposit_expired": "deposit expired",
    "transaction.deposit_settled_for": "deposit settled for another amount",
    "transaction.deposit_disputed": "deposit disputed, {reference}",
    "transaction.dispute_won": "dispute won",
    "transaction.dispute_lost": "dispute lost: charged back",
    "transaction.deposit_refunded": "deposit refunded",
    "transaction.withdrawal_requested": "withdrawal requested from {provider}",
    "transaction.withdrawal_held": "withdrawal under review: {reasons}",
    "transaction.withdrawal_approved": "withdrawal approved",
    "transaction.withdrawal_sent": "withdrawal sent {reference}",
    "transaction.payout_held": "nobody is asked to pay it: {reason}",
    "transaction.payout_resumed": "its provider is asked to pay it again",
    "transaction.withdrawal_settled": "withdrawal paid",
    "transaction.withdrawal_rejected": "withdrawal rejected",
    "transaction.withdrawal_cancelled": "withdrawal cancelled",
    "transaction.withdrawal_expired": "withdrawal expired",
    "transaction.withdrawal_returned": "withdrawal returned",
    "transaction.provider_refused": "the provider said {verb} ({reference}), which was refused: {code}",
    "transaction.intervened": "by hand, {kind}",
    "wallet.credited": "{transfer[code]}: {transfer[source]} → {transfer[target]}",
    "wallet.reserved": "{transfer[code]}: {transfer[source]} → {transfer[target]}",
    "wallet.released": "{transfer[code]}: {transfer[source]} → {transfer[target]}",
    "wallet.debited": "{transfer[code]}: {transfer[source]} → {transfer[target]}",
    "wallet.moved": "{movements[0][code]}: {movements[0][source]} → {movements[0][target]}",
    "wallet.bonus_forfeited": "bonus money forfeited",
    "wallet.staked": "bet at {played[provider]}, {played[game]} {played[round]} ({reference})",
    "wallet.won": "{kind} at {played[provider]}, {played[game]} {played[round]} ({reference})",
    "wallet.rolled_back": "bet {bet} given back at {played[provider]} ({reference})",
    "wallet.round_closed": "round closed at {played[provider]}, {played[game]} {played[round]}",
    "wallet.stake_refused": "bet refused at {played[provider]}, {played[game]} ({reference}): {code}",
    "wallet.game_refused": "{played[provider]} said {verb} ({reference}), which was refused: {code}",
    "bet.claimed": "what was given back counts as taken",
    "round.voided": "stakes of the round {played[round]} at {played[provider]} given back by {operator}: {bets}",
    "play.session_launched": "let into {game} at {provider}, {kind}",
    "play.session_opened": "session opened",
    "play.session_resumed": "token of an open session shown again",
    "play.session_prolonged": "session goes on until {ends_at}",
    "play.session_ended": "session ended: {reason}",
    "play.reality_checked": "told how long they have played",
    "play.check_interval_set": "wants to be told every {minutes} minutes",
    "ticket.opened": "ticket opened by {by}, {channel}, {priority}",
    "ticket.assigned": "ticket given to {to}",
    "ticket.answered": "ticket answered",
    "ticket.noted": "ticket noted",
    "ticket.escalated": "ticket escalated to {priority}: {reason}",
    "ticket.closed": "ticket closed: {resolution}",
    "ticket.reopened": "ticket reopened: {reason}",
    "ticket.first_response_missed": "ticket's first answer did not come in time",
    "ticket.resolution_missed": "ticket's end did not come in time",
    "transaction.instrument_shared": "the card or account was named by others before: {players}",
    "notice.raised": "notice: {rule} {rule_version}, {severity}",
    "notice.acknowledged": "notice seen",
    "notice.assigned": "notice given to {to}",
    "notice.linked": "notice linked with {to}",
    "notice.released": "what the notice had stopped for a time is possible again",
    "notice.closed": "notice closed: {outcome}",
    "contact.opened": "to be contacted because of {reason}, until {due_at}",
    "contact.attempted": "not reached: {channel}",
    "contact.made": "spoken with: {channel}, {outcome}",
    "contact.followed_up": "followed up: {outcome}",
    "contact.unanswered": "not reached in time: suspended",
    "suppression.begun": "{rule} raises no notices until {until}: {reason}",
    "suppression.ended": "{rule} raises notices again: {reason}",
    "suppression.withheld": "{rule} {rule_version} found something, and raised no notice ({by})",
    "adjustment.made": "{direction} of {account} by {operator}: {reason_code} {ticket}",
    "approval.requested": "asked for approval: {path}, until {expires_at}",
    "approval.approved": "approved",
    "approval.rejected": "not approved",
    "approval.expired": "not approved in time",
    "payout.ordered": "payout ordered from {provider}",
    "payout.accepted": "payout accepted: {reference}",
    "payout.declined": "payout declined",
    "payout.dropped": "payout not asked for any more",
    "payout.disputed": "payout accepted although the withdrawal had ended: {reference}",
    "keys.disclosed": "keys disclosed to {recipient}: {reason}",
    "reads.recorded": "looked at: {reads}",
}
"""How events read; any other is told by its tag and its fields."""
_READS = ReadsRecorded.tag


class Opened(msgspec.Struct, frozen=True):
    """A personal field whose key was given."""

    opened: str


class Row(msgspec.Struct, frozen=True):
    """
    An entry. `leaf` in hex; `counts` is false for a stranded one; `occurred` only where that was not when it was recorded.

    `money` is what the event is about, `balance` (minor units of its currency) what the wallet held after it.
    """

    log: str
    position: int
    leaf: str
    recorded: datetime
    occurred: str | None
    counts: bool
    type: str
    what: str
    actor: str
    money: Money | None
    balance: dict[str, int] | None
    stream: str
    version: int
    id: str
    command: str
    cause: str | None
    data: Any


def rows(concerned: Iterable[Concerned], reveal: Reveal = lambda *_: None, player: PlayerId | None = None) -> list[Row]:
    """`player`: whose timeline it is, if it is one's."""
    return [_row(each, reveal, player) for each in concerned]


def _row(concerned: Concerned, reveal: Reveal, player: PlayerId | None) -> Row:
    entry, body, counts = concerned
    data = _opened(body, "data", msgspec.json.decode(body.data), reveal)
    if body.type == _READS and player is not None:
        data = _of_player(data, player)
    money, balance = _money(data)
    return Row(
        log=entry.log,
        position=entry.position,
        leaf=entry.leaf.hex(),
        recorded=instant(entry.recorded),
        occurred=body.occurred,
        counts=counts,
        type=body.type,
        what=in_words(body.type, data),
        actor=body.actor,
        money=money,
        balance=balance,
        stream=body.stream,
        version=body.version,
        id=body.id,
        command=body.command.id,
        cause=body.cause,
        data=data,
    )


def in_words(tag: str, data: Any) -> str:
    """What an event says, in a line."""
    words = WORDS.get(tag)
    if words is not None and isinstance(data, dict):
        try:
            return words.format_map(_Missing(_listed(data))).strip()
        except (KeyError, TypeError, IndexError, ValueError, AttributeError):
            pass  # of an unexpected shape: told like an event that is not known
    fields = data.items() if isinstance(data, dict) else ()
    said = ", ".join(f"{name} {value}" for name, value in fields if isinstance(value, str | int))
    return f"{tag}: {said}" if said else tag


def amount(minor: int, currency: str) -> str:
    """Minor units as people write them: 1234 EUR → 12.34."""
    digits = EXPONENTS.get(currency, 0)
    whole, rest = divmod(abs(minor), 10**digits)
    return f"{'-' if minor < 0 else ''}{whole:,}" + (f".{rest:0{digits}}" if digits else "")


def _listed(data: dict[str, Any]) -> dict[str, Any]:
    """Lists of words as people write them; where somebody has played may leave out the rest."""
    listed = {
        name: ", ".join(value) if isinstance(value, list) and all(isinstance(each, str) for each in value) else value
        for name, value in data.items()
    }
    if isinstance(data.get("reads"), list):
        listed["reads"] = ", ".join(dict.fromkeys(each["what"] for each in data["reads"]))
    return listed | {"played": _Missing(data["played"])} if isinstance(data.get("played"), dict) else listed


def _of_player(data: Any, player: PlayerId) -> Any:
    """What was read of the player, of all that somebody has read; as it is, if it is of an unexpected shape."""
    try:
        found = msgspec.convert(data, ReadsRecorded)
    except msgspec.ValidationError:
        return data
    suffix = parse_id("player", player)
    of = [
        msgspec.structs.replace(each, subjects=tuple(one for one in each.subjects if one == player))
        for each in found.reads
        if player in each.subjects or suffix in each.query
    ]
    return msgspec.json.decode(msgspec.json.encode(ReadsRecorded(tuple(of))))


class _Missing(dict[str, Any]):
    def __missing__(self, _key: str) -> str:
        return ""


def _money(data: Any) -> tuple[Money | None, dict[str, int] | None]:
    if not isinstance(data, dict):
        return None, None
    transfer, movements = data.get("transfer"), data.get("movements")
    given = next(
        (m for m in (data.get("money"), data.get("limit"), transfer and transfer.get("money")) if m is not None), None
    )
    try:
        money = _together(movements) if movements else None if given is None else msgspec.convert(given, Money)
        held = data["balance"] if transfer is not None else data.get("accounts")
        balance = None if held is None else msgspec.convert(held, dict[str, int])
    except (msgspec.ValidationError, KeyError):
        return None, None
    return money, None if balance is None else {"cash": 0, "reserved": 0, **balance}


def _together(movements: Any) -> Money:
    """What movements of one currency come to. Raises ValidationError, KeyError."""
    moved = [msgspec.convert(each["money"], Money) for each in msgspec.convert(movements, list[dict[str, Any]])]
    return Money(sum(money.amount for money in moved), moved[0].currency)


def _opened(body: Body, path: str, value: Any, reveal: Reveal) -> Any:
    """The data, with those of its sealed fields opened whose keys were given."""
    if isinstance(value, list):
        return [_opened(body, f"{path}.{place}", part, reveal) for place, part in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"sealed", "key"}:
        text = reveal(body.id, path, msgspec.convert(value, Sealed))
        return value if text is None else {"opened": text}
    return {name: _opened(body, f"{path}.{name}", part, reveal) for name, part in value.items()}
