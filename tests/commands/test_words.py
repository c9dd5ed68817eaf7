"""What people write in a command: sealed in the log, and what happens where there is no key to seal it under."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
import pytest

from commands import payouts
from commands.catalog import ENDPOINTS
from commands.edge import Endpoint, Word
from commands.sealing import KeyNotHeld
from domain.kernel import Event, TransactionId
from domain.transactions import Intervened
from tests.commands.house import House, euros
from tests.commands.test_payments import reacts, rich, tell, withdraw

SAID = "Zebulonius has phoned"
WHY = {"kind": "complaint", "reason": SAID}
PERSON = {"actor": "supervisor:bo"}
PASSPORT = {"level": "identity", "method": "document", "age_verified": True}


async def deposited(house: House) -> str:
    payment = await house.deposit(await house.player(), 50)
    await tell(house, payment, "settle")
    return payment


async def asked(house: House) -> str:
    return await house.deposit(await house.player(), 50)


async def reviewed(house: House) -> str:
    payment: str = (await withdraw(house, await rich(house, known=False), 100)).transaction
    return payment


async def approved(house: House) -> str:
    payment: str = (await withdraw(house, await rich(house), 100)).transaction
    return payment


TOLD = [
    (asked, "fail", {}),
    (deposited, "dispute", {"reference": "CB-1"}),
    (reviewed, "reject", {}),
    (approved, "return", {}),
]
"""Commands on payments that carry a reason: what must have happened before, the verb, the rest of the body."""


def in_clear(house: House) -> bool:
    return any(SAID.encode() in entry.body for entry in house.log.entries)


def said(event: Event) -> Any:
    return getattr(event, "reason", None)


@pytest.mark.parametrize(("before", "verb", "body"), TOLD, ids=lambda each: each if isinstance(each, str) else "")
async def test_what_is_told_of_a_payment_is_sealed(house: House, before: Any, verb: str, body: dict[str, str]) -> None:
    payment = await before(house)
    await tell(house, payment, verb, reason=SAID, **body)
    assert SAID in {said(event) for event in house.opened("transaction")}
    assert not in_clear(house)


@pytest.mark.parametrize(("before", "verb", "body"), TOLD, ids=lambda each: each if isinstance(each, str) else "")
async def test_without_the_key_a_provider_is_believed_and_a_person_is_refused(
    house: House, before: Any, verb: str, body: dict[str, str]
) -> None:
    payment = await before(house)
    house.vault.kept.clear()
    count = len(house.log.entries)
    path = f"/v1/transactions/{payment}/{verb}"
    with pytest.raises(KeyNotHeld):
        await house.process.post(path, {"reason": SAID, **body, "intervention": WHY}, **PERSON)
    assert len(house.log.entries) == count
    await tell(house, payment, verb, reason=SAID, **body)
    told = [event for event in house.log.events("transaction") if "reason" in event.__struct_fields__]
    assert [said(event) for event in told] == [None], "recorded without what was said"
    assert not in_clear(house)


async def test_what_a_provider_says_of_a_payout_is_sealed_or_left_out(house: House) -> None:
    for is_held in (True, False):
        payment = TransactionId(await approved(house))
        await reacts(house, lambda edge, payment=payment: payouts.order(payment, "acme", edge))
        if not is_held:
            house.vault.kept.clear()
        await reacts(house, lambda edge, payment=payment: payouts.decline(payment, SAID, edge))
        tags = [event.tag for event in house.log.events()][-3:]
        assert tags == ["payout.declined", "transaction.withdrawal_returned", "wallet.released"]
        if is_held:
            assert [said(event) for event in house.opened("payout")] == [None, SAID]
    assert said(house.log.events("payout")[-1]) is None
    assert not in_clear(house)


async def test_why_a_person_acts_on_money_is_sealed(house: House) -> None:
    player = await house.player()
    payment = await house.deposit(player, 50)
    await house.process.post(f"/v1/transactions/{payment}/fail", {"reason": "x", "intervention": WHY}, **PERSON)
    adjustment = {"amount": euros(1), "direction": "credit", "reason_code": "goodwill", "intervention": WHY}
    await house.process.post(f"/v1/players/{player}/adjustments", adjustment, **PERSON)
    assert house.opened("transaction")[-1] == Intervened("complaint", SAID)
    assert house.opened("adjustment")[0].intervention.reason == SAID  # type: ignore[attr-defined]
    assert not in_clear(house)


@pytest.mark.parametrize("verb", ["approve", "reject"])
async def test_why_a_person_knows_a_player_is_sealed(house: House, verb: str) -> None:
    player = await house.player()
    decided = PASSPORT if verb == "approve" else {"level": "identity", "method": "document", "reason": "blurred"}
    path = f"/v1/players/{player}/kyc/{verb}"
    kept = dict(house.vault.kept)
    house.vault.kept.clear()
    with pytest.raises(KeyNotHeld):
        await house.process.post(path, {**decided, "intervention": WHY}, **PERSON)
    house.vault.kept |= kept
    await house.process.post(path, {**decided, "intervention": WHY}, **PERSON)
    [event] = house.opened("kyc")
    assert event.intervention.reason == SAID  # type: ignore[attr-defined]
    assert not in_clear(house)


IDENTIFIERS = {
    "currency", "ticket", "transaction", "player", "players", "trigger",
    "reference", "session", "device", "acquisition_source",  # a provider's, a front end's: made by programs
    "instrument",  # of a deposit: not kept
    "issuer",  # an identity provider's
}  # fmt: skip


def texts(hint: Any, path: str) -> Iterator[tuple[str, str]]:
    """The text fields of a wire type that no pattern binds: (path, description)."""
    if get_origin(hint) is Annotated:
        inner, *notes = get_args(hint)
        metas = [note for note in notes if isinstance(note, msgspec.Meta)]
        if inner is not str:
            yield from texts(inner, path)
        elif not any(meta.pattern for meta in metas):
            yield path, "".join(meta.description or "" for meta in metas)
    elif isinstance(hint, type) and get_origin(hint) is None and issubclass(hint, msgspec.Struct):
        hints = get_type_hints(hint, include_extras=True)
        for name in hint.__struct_fields__:
            yield from texts(hints[name], f"{path}/{name}")
    elif hint is str:
        yield path, ""
    else:
        for option in get_args(hint):
            yield from texts(option, path)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.path)
def test_what_enters_is_a_word_an_identifier_or_sealed(endpoint: Endpoint) -> None:
    loose = [
        path
        for path, description in texts(endpoint.body, "")
        if "Sealed under the player's own key" not in description and path.rpartition("/")[2] not in IDENTIFIERS
    ]
    assert loose == []


def test_a_loose_text_would_be_noticed() -> None:
    class Loose(msgspec.Struct):
        comment: Annotated[str, msgspec.Meta(max_length=9)] | None = None
        kind: Word = "x"

    assert list(texts(Loose, "")) == [("/comment", "")]


async def test_a_text_takes_no_part_in_what_is_the_same_command(house: House) -> None:
    """Sealed twice it looks otherwise; a repeat is told by what was asked."""
    payment = await asked(house)
    body = {"reason": SAID, "intervention": WHY}
    path = f"/v1/transactions/{payment}/fail"
    first = await house.process.post(path, body, key="k", **PERSON)
    again = await house.another_process().post(path, body, key="k", **PERSON)
    assert (again.answer, again.repeated) == (first.answer, True)
