"""
The first administrators of a deployment, invited by whoever runs it, before anybody is there who could invite them; and further
ones, when too few are left to do it.

Invariants:
    - the first ones are invited once ever, and it stands in the log; where there was an administrator before, it is refused;
    - further ones are invited only while fewer than two persons administer without an end;
    - if it is interrupted, the same again goes on with those who were not invited yet;
    - a secret is returned to whoever asked, and is written nowhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from access.directory import Directory, Standing
from commands import operators
from commands.decider import Decider
from commands.operators import InviteOperator, OperatorInvited
from commands.plan import WrongRegion
from domain import bootstraps
from domain.bootstraps import AlreadyBootstrapped
from domain.catalog import AGGREGATES
from domain.errors import NotFound
from domain.kernel import OperatorId, partition_of
from domain.operators import ADMINISTRATOR, RoleGranted
from eventstore import postgres
from eventstore.keyring import Keyring
from eventstore.log import Streams
from eventstore.postgres import PostgresLog, PostgresStreams
from eventstore.record import Codec
from eventstore.vault import Vault
from eventstore.writer import Unavailable, Writer

_CODEC = Codec(AGGREGATES)


class House(NamedTuple):
    """What the first commands run on."""

    region: str
    decider: Decider
    vault: Vault
    streams: Streams


@asynccontextmanager
async def house(dsn: str, region: str, region_key: Path) -> AsyncIterator[House]:
    """The write side of a region that is open, beside its services."""

    async def connect() -> PostgresLog:
        return await PostgresLog.open(await postgres.connect(dsn, "countroom_writer"), region)

    writer = Writer(connect)
    async with postgres.pool(dsn, "countroom_writer", size=2) as pool:
        running = asyncio.create_task(writer.run(), name="writer")
        vault, streams = Vault(pool, Keyring(region_key)), PostgresStreams(pool)
        try:
            yield House(region, Decider(region, writer, streams, vault, _CODEC), vault, streams)
        finally:
            writer.close()
            await running


async def bootstrap(house: House, invited: Sequence[InviteOperator]) -> list[OperatorInvited]:
    """Invite the first administrators. Raises AlreadyBootstrapped, Unavailable."""
    now = datetime.now(UTC)
    ids = await _begun(house, len(invited))
    if ids is None:
        own = await _owned(house)
        ids = [operators.new_operator_id(own, now) for _ in invited]
        await house.decider.decide(operators.bootstrap(house.region, ids, now))
    return [await _invited(house, id_, command, now) for id_, command in zip(ids, invited, strict=True)]


async def recover(
    house: House, invited: Sequence[InviteOperator], without: Sequence[OperatorId] = ()
) -> list[OperatorInvited]:
    """Invite further administrators, and suspend those `without` whom it is, e.g. since nobody knows who uses the account. If it is
    interrupted, the same again begins anew. Raises NotLost, NotFound, WrongRegion, Unavailable.
    """
    now = datetime.now(UTC)
    everybody = {each.operator_id: each.operator for each in await Directory(house.streams, _CODEC).everybody()}
    if unknown := sorted(set(without) - everybody.keys()):
        raise NotFound(f"there is no {unknown[0]}")
    left = {id_: operator.person for id_, operator in everybody.items() if operator.administers}
    own = await _owned(house)
    for id_ in without:
        if (partition := partition_of(id_)) not in own:
            owner = (await house.streams.owners()).get(partition)
            name = owner.log if owner else ""
            raise WrongRegion(f"{id_} is suspended in {name or 'its own region'}", partition=partition, owner=name)
    ids = [operators.new_operator_id(own, now) for _ in invited]
    await house.decider.decide(operators.recover(house.region, ids, without, left, now))
    for id_ in without:
        await house.decider.decide(operators.suspend_lost(id_, now))
    return [await _invited(house, id_, command, now) for id_, command in zip(ids, invited, strict=True)]


async def _owned(house: House) -> Sequence[int]:
    """The partitions of the region. Raises Unavailable if it has none."""
    if owned := sorted(await house.streams.epochs(house.region)):
        return owned
    raise Unavailable(f"{house.region} owns no partitions: administrators are invited where some are owned")


async def _invited(house: House, id_: OperatorId, command: InviteOperator, now: datetime) -> OperatorInvited:
    receipt = await house.decider.decide(operators.invite_first(id_, command, house.vault, now))
    assert isinstance(receipt.answer, OperatorInvited)  # noqa: S101 — what invite_first answers
    return receipt.answer


async def _begun(house: House, count: int) -> Sequence[OperatorId] | None:
    """Those whom an earlier, interrupted bootstrap has named and not invited; None if there was none. Raises AlreadyBootstrapped."""
    there = await house.streams.versions("operator")
    stream = bootstraps.stream(house.region)
    named: tuple[OperatorId, ...] = ()
    for entry in (await house.streams.load({stream.name: 0}))[stream.name]:
        if isinstance(event := _CODEC.decode(entry).event, bootstraps.Made):
            named = event.operators
    left = [id_ for id_ in named if id_.replace("_", "-", 1) not in there]
    if left:
        if len(left) != count:
            raise AlreadyBootstrapped(f"{len(left)} of the first administrators are still to be invited, and no others")
        return left
    if named or await _had_administrators(house.streams, list(there)):
        raise AlreadyBootstrapped(operators=named)
    return None


async def _had_administrators(streams: Streams, names: Sequence[str]) -> bool:
    found = await streams.load(dict.fromkeys(names, 0)) if names else {}
    events = [_CODEC.decode(entry).event for entries in found.values() for entry in entries]
    return any(isinstance(event, RoleGranted) and event.role == ADMINISTRATOR for event in events)


async def everybody(dsn: str) -> list[Standing]:
    """All operators that stand in the logs held here."""
    async with postgres.pool(dsn, "countroom_reader", size=1) as pool:
        return await Directory(PostgresStreams(pool), _CODEC).everybody()
