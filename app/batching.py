"""
What a batch answers, and those of its items that other regions own: sent there together, a wave at a time, answered in their places.

Invariant: an item has the result that it would have alone, wherever it is run; one that names what is not known to have been made
is not run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from access.policy import Principal
from app import problems
from app.forwarding import Forwarding, Hop, Item, Items, nobody_seen, owner_in, unknown
from app.lane import Answered
from commands.plan import Plan, WrongRegion
from replication.forwarding import Unknown

ITEMS_MAX = 100
BYTES_MAX = 512 * 1024
"""How much of a batch is sent at once, so that the answers find room in one message, too."""

_OK, _ACCEPTED, _REFUSED = 200, 202, 400


class BatchResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the item would have been answered alone: `body` is the answer or the problem, `position` the Ledger-Position."""

    status: int
    body: msgspec.Raw
    position: str | None = None
    repeated: bool = False


class BatchAnswer(msgspec.Struct, frozen=True):
    """In the order of the items."""

    items: list[BatchResult]


class NotMade(Exception):
    """Another region's result that names nothing new: a refusal, or that it is not known."""

    def __init__(self, result: BatchResult) -> None:
        super().__init__(result.status)
        self.result = result


class Wanted(NamedTuple):
    """An item of a wave, and the command that it is here."""

    item: Item
    plan: Plan


class Batched(NamedTuple):
    """A batch of somebody's that is being run here."""

    principal: Principal
    dry_run: bool
    trace: str | None
    hop: Hop = Hop()
    durability: str = ""


_decode = msgspec.json.Decoder(BatchAnswer).decode


async def elsewhere(
    forwarding: Forwarding, batch: Batched, wrong: Mapping[int, WrongRegion], wanted: Mapping[int, Wanted]
) -> dict[int, BatchResult | Exception]:
    """By place, what became of items that are not for this region."""
    results: dict[int, BatchResult | Exception] = {}
    owned: dict[str, list[int]] = {}
    for place, error in wrong.items():
        if owner := owner_in(error):
            owned.setdefault(owner, []).append(place)
        else:
            results[place] = nobody_seen()
    parts = [(owner, part) for owner, places in owned.items() for part in _parts(places, wanted)]
    for each in await asyncio.gather(*[_asked(forwarding, batch, *part, wanted) for part in parts]):
        results.update(each)
    return results


async def _asked(
    forwarding: Forwarding, batch: Batched, owner: str, places: Sequence[int], wanted: Mapping[int, Wanted]
) -> dict[int, BatchResult | Exception]:
    items = [wanted[place].item for place in places]
    message = Items(forwarding.who(batch.principal), items, batch.dry_run, batch.trace, durability=batch.durability)
    try:
        answered = await forwarding.ask(owner, message, batch.hop)
    except (problems.OwnerUnreachable, problems.BodyTooLarge) as error:
        return dict.fromkeys(places, error)
    except Unknown as error:
        if batch.dry_run:
            return dict.fromkeys(places, problems.OwnerUnreachable(str(error), region=owner))
        return {place: NotMade(_result(unknown(wanted[place].plan.context.command_id))) for place in places}
    if answered.status != _OK:
        return dict.fromkeys(places, NotMade(_result(answered)))
    return {
        place: NotMade(result) if _made_nothing(result) else result
        for place, result in zip(places, _decode(answered.body).items, strict=True)
    }


def _parts(places: Sequence[int], wanted: Mapping[int, Wanted]) -> Iterator[list[int]]:
    part: list[int] = []
    size = 0
    for place in places:
        more = len(wanted[place].item.body)
        if part and (len(part) == ITEMS_MAX or size + more > BYTES_MAX):
            yield part
            part, size = [], 0
        part.append(place)
        size += more
    if part:
        yield part


def _result(answered: Answered) -> BatchResult:
    return BatchResult(answered.status, msgspec.Raw(answered.body))


def _made_nothing(result: BatchResult) -> bool:
    if result.status == _ACCEPTED:
        return bool(msgspec.json.decode(result.body).get("state") == "unknown")
    return result.status >= _REFUSED


def made(result: BatchResult) -> object:
    """The identifier that a command made: what its answer says first."""
    said = msgspec.json.decode(result.body)
    answer = said["answer"] if said.get("state") == "unconfirmed" else said
    return next(iter(answer.values()))
