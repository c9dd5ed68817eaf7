"""Players of a region with a real vault, by whose blind index the same person's other accounts are found."""

from __future__ import annotations

import os

from commands.plan import Receipt
from domain import players, protection
from domain.errors import Rejected
from domain.kernel import PlayerId, uuid7_texts
from domain.protection import Protection, Stop
from eventstore.log import Command
from eventstore.vault import RegionKey, Vault
from tests.ledger import body, new_id
from tests.reactions.region import Region

ADA = {"name": "Ada Lovelace", "birth_date": "1990-12-10"}
WHY = {"kind": "correction", "reason": "her sister"}


async def with_a_vault(region: Region) -> Region:
    await region.close()
    region.vault = Vault(region.pool, RegionKey(os.urandom(32)))  # type: ignore[assignment]
    region.process = region.another_process()
    return region


async def account(region: Region, **known: object) -> PlayerId:
    return PlayerId(await region.player(**known))


async def exclude(region: Region, player: str, **body: object) -> Receipt:
    return await region.process.post(f"/v1/players/{player}/exclude", {"term": "6_months", **body})


def says_erased(region: Region, player: PlayerId) -> None:
    """The log does; nobody has carried it out."""
    stream = players.stream(player)
    id_, event_id = new_id(), uuid7_texts(region.now, os.urandom(10))[0]
    event = players.Erased(region.state(stream).key, "asked", region.now, (), "")
    [(version,)] = region.ledger.sql("SELECT max(version) FROM ledger.entry WHERE stream = %s", stream.name)
    raw = body(
        "player 5", version + 1, id_, data=event, stream=stream.name, type=event.tag, id=event_id, partition=stream.partition
    )  # fmt: skip
    assert region.ledger.append(Command(id_, [raw], (), frozenset())) == [0]


async def erased(region: Region, player: PlayerId) -> None:
    """As an erasure leaves them: the log says so, and the key is gone."""
    says_erased(region, player)
    await region.vault.apply_erasures()  # type: ignore[attr-defined]


def of(region: Region, player: PlayerId) -> Protection:
    found: Protection = region.state(protection.stream(player))
    return found


def refusal(region: Region, player: PlayerId) -> Rejected | None:
    return of(region, player).refusal(Stop.BET, region.now)


def kinds(region: Region) -> set[str]:
    return {kind for kind, _ in region.due() if kind.startswith("protection_")}
