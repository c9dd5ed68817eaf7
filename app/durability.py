"""
How safe a command is before it is answered as done: in this region, or in another one as well (policies/durability.py).

After its append a command that is to be `geo` waits until another region has acknowledged its copy, WAIT_S at most. If it does not
come, the answer is 202: the command stands in the log, and only that it is safe from the loss of this region is not known yet.

Invariants:
    - `Durability: geo` is answered only once another region's verified copy holds the command's last entry;
    - whatever happens after the append, nobody is told that a command failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from app import lane
from app.batching import BatchResult
from app.lane import Answered
from domain.errors import Invalid
from policies import durability as policy
from policies.durability import Durability
from replication.geo import Confirmations

WAIT_S = 5.0
ACCEPTED = 202
HEADER = "durability"
PARAMETER: dict[str, Any] = {
    "name": "Durability",
    "in": "header",
    "required": False,
    "description": "When the answer may say that it is done: `geo`, once another region has committed its copy. Less than the "
    "policy asks of this command is refused.",
    "schema": {"type": "string", "enum": list(Durability)},
}


class DurabilityRefused(Invalid):
    """Facts: asked, least; `geo_available` false where there is no other region."""

    code = "durability_refused"
    title = "Durability is region or geo, not less than this command needs, and not more than this deployment has"


class Unconfirmed(msgspec.Struct, frozen=True):
    """Recorded here, and not known to be anywhere else: `answer` is what the command itself answers."""

    command: str
    state: str
    position: str
    answer: msgspec.Raw


class Item(NamedTuple):
    """Of a batch: how safe it is to be, and its command's id."""

    wanted: Durability
    id: bytes


_encode = msgspec.json.Encoder().encode


class Durable:
    """`log`: the one that is written here; `others`: the other regions, which may confirm."""

    def __init__(
        self, log: str, others: Sequence[str], confirmations: Confirmations, *, wait_s: float = WAIT_S
    ) -> None:
        self._log = log
        self._others = others
        self._confirmations = confirmations
        self._wait_s = wait_s

    def wanted(self, path: str, asked: str) -> Durability:
        """How safe a command of this path is to be. `asked`: the caller's header, "" without it. Raises DurabilityRefused."""
        rule = policy.rule(path)
        if not asked:
            return rule.default if self._others else Durability.REGION
        known = {each.value: each for each in Durability}.get(asked)
        if known is Durability.GEO and self._others:
            return known
        if known is Durability.REGION and (rule.least is Durability.REGION or not self._others):
            return known
        raise DurabilityRefused(asked=asked[:20], least=rule.least, geo_available=bool(self._others))

    async def settled(self, answered: Answered, wanted: Durability, position: str, command_id: bytes) -> Answered:
        """The answer of a command that was recorded at `position`, once that is as safe as it is to be; or that it is not yet."""
        if wanted is Durability.REGION:
            return answered._replace(headers=[*answered.headers, _said(wanted)])
        if await self._is_geo(position, self._wait_s):
            return answered._replace(headers=[*answered.headers, _said(wanted)])
        body = _unconfirmed(command_id, position, answered.body)
        kept = [header for header in answered.headers if header[0] not in (b"content-type", b"content-length")]
        return lane.json(ACCEPTED, body, *kept, _said(Durability.REGION), (b"location", location(command_id).encode()))

    async def settled_items(self, results: Sequence[BatchResult], items: Mapping[int, Item]) -> list[BatchResult]:
        """The same of a batch; `items` are those that were recorded now or before. They wait together."""
        settled = list(results)
        waiting = {
            place: position
            for place, item in items.items()
            if item.wanted is Durability.GEO and (position := results[place].position)
        }
        own = [_number(position) for position in waiting.values() if self._is_own(position)]
        if own:
            await self._confirmations.until(max(own), timeout_s=self._wait_s)
        for place, position in waiting.items():
            if not await self._is_geo(position, 0):
                result = results[place]
                body = _unconfirmed(items[place].id, position, bytes(result.body))
                settled[place] = msgspec.structs.replace(result, status=ACCEPTED, body=msgspec.Raw(body))
        return settled

    def _is_own(self, position: str) -> bool:
        return position.partition("/")[0] == self._log

    async def _is_geo(self, position: str, wait_s: float) -> bool:
        if not self._is_own(position):  # another region's, of which a copy is held here
            return True
        return await self._confirmations.until(_number(position), timeout_s=wait_s)


def location(command_id: bytes) -> str:
    """Where a command's fate is told."""
    return f"/v1/commands/{command_id.hex()}"


def _number(position: str) -> int:
    return int(position.split("/")[1])


def _said(durability: Durability) -> tuple[bytes, bytes]:
    return HEADER.encode(), durability.encode()


def _unconfirmed(command_id: bytes, position: str, answer: bytes) -> bytes:
    return _encode(Unconfirmed(command_id.hex(), "unconfirmed", position, msgspec.Raw(answer)))
