"""
Which partitions may be decided on here, as one process knows it: what it has asked, and asks anew when that turns out to be old.

Invariant: nobody hears that another region owns a partition from an answer that is older than 0.2 s. (That a partition is ours may
be older: the append says otherwise, and it is asked anew.)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

from commands.plan import Plan, WrongRegion
from domain.ownership import Owner
from eventstore.log import Streams
from eventstore.writer import Unavailable
from policies.residency import PARTITIONS

ADOPTION_WAIT_S = 5.0
_POLL_S = 0.03
_STALE_S = 0.2


class InTransit(Unavailable):
    """The partition was released to this region, which has not adopted it yet. Nothing was appended: send it again."""


class Patience:
    """For how long somebody waits for an adoption, from now on."""

    def __init__(self) -> None:
        self._until = time.monotonic() + ADOPTION_WAIT_S

    async def lasts(self) -> bool:
        """Wait a moment; False when it is over."""
        if time.monotonic() > self._until:
            return False
        await asyncio.sleep(_POLL_S)
        return True


class Owners:
    """`log`: the one written here. `epochs`: of the partitions that it may write."""

    def __init__(self, log: str, streams: Streams) -> None:
        self.epochs: Mapping[int, int] = {}
        self._log = log
        self._streams = streams
        self._owners: Mapping[int, Owner] = {}
        self._asked_at = -_STALE_S
        self._is_stale = False

    async def know(self, partitions: set[int]) -> None:
        """Ask who owns what, unless these partitions are ours or that was asked just now."""
        if not self._is_stale and (self.epochs.keys() >= partitions or time.monotonic() < self._asked_at + _STALE_S):
            return
        self._is_stale = False
        try:
            owners = await self._streams.owners()
        except BaseException:
            self._is_stale = True
            raise
        self._owners, self._asked_at = owners, time.monotonic()
        self.epochs = {each: o.epoch for each, o in owners.items() if o.log == self._log and o.adopted}

    async def owner(self, partition: int) -> Owner | None:
        """Who owns a partition; None if nobody was seen to. Not `adopted` while it is on its way there."""
        await self.know({partition})
        return self._owners.get(partition)

    def elsewhere(self, plan: Plan) -> set[str]:
        """The streams that a plan reads wherever they are, and that are not ours."""
        return {each.name for each in plan.anywhere if each.partition is not None and each.partition not in self.epochs}

    async def look(self) -> None:
        """Ask who owns what, unless that was asked just now: partitions that were ours may have been handed over."""
        self._is_stale = self._is_stale or time.monotonic() >= self._asked_at + _STALE_S
        await self.know(set())

    @property
    def own(self) -> Sequence[int]:
        """Those that are ours, as far as is known; all, if none is: who then asks for one hears whose it is."""
        return sorted(self.epochs) or PARTITIONS

    def holds(self, partition: int) -> bool:
        """Whether it is ours, as far as is known."""
        return partition in self.epochs and not self._is_stale

    def forget(self) -> None:
        """The log has refused what was thought to be ours. What others decide on meanwhile may be ours all the same."""
        self._is_stale = True

    def require(self, partition: int) -> None:
        """Raises WrongRegion, InTransit."""
        if partition in self.epochs:
            return
        owner = self._owners.get(partition)
        if owner and owner.log == self._log:
            raise InTransit("the player is being handed over to this region; try again")
        raise WrongRegion(partition=partition, owner=owner.log if owner else "")
