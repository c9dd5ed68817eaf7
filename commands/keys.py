"""
The data keys that plans name: under which their events are sealed, and with which they read what was sealed before.

Invariants:
    - no key is used before it was compared with what its player's registration commits to;
    - a wrong key in the vault is the trouble of the plans that name it, and of no others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from commands.plan import Context, Plan
from commands.sealing import opened, sealed_under
from domain.errors import Rejected
from domain.kernel import Event
from eventstore.log import Streams
from eventstore.record import Codec, Entry, Recorded, UnknownEvent
from eventstore.vault import CannotOpen, DataKey, Vault

Seeing = Iterable[tuple[Plan, Mapping[str, Any]]]
"""Plans, each with the states that are loaded for it by now."""

Held = Mapping[str, DataKey | CannotOpen]
"""By its id, a key as far as it is held here, or why it is not the right one."""


class Keys:
    def __init__(self, vault: Vault, streams: Streams, codec: Codec) -> None:
        self._vault = vault
        self._streams = streams
        self._codec = codec

    async def held(self, seeing: Seeing) -> Held:
        """The keys that these plans name."""
        named: dict[str, str] = {}
        for plan, known in seeing:
            if plan.key is not None:
                with suppress(Rejected):  # the decision will say so
                    id_, commitment = plan.key(**known)
                    named[id_] = commitment
        try:
            return await self._vault.keys(named) if named else {}
        except CannotOpen:
            found: dict[str, DataKey | CannotOpen] = {}
            for id_, commitment in named.items():
                try:
                    found |= await self._vault.keys({id_: commitment})
                except CannotOpen as error:
                    found[id_] = error
            return found

    async def to_compare(self, commands: Iterable[Sequence[Entry]]) -> Mapping[str, DataKey]:
        """By their ids, the keys under which these commands' events are sealed, of those that are held here."""
        ids = set()
        for entry in (entry for entries in commands for entry in entries):
            with suppress(UnknownEvent, msgspec.DecodeError):  # whoever reads it will say so
                if named := sealed_under(self._codec.decode(entry).event):
                    ids.add(named)
        return await self._vault.keys_to_compare(ids)

    async def opened(self, seeing: Seeing, held: Held) -> Mapping[str, Event | CannotOpen]:
        """By stream, the events that plans want to read, as far as their keys are held here."""
        found: dict[str, Event | CannotOpen] = {}
        keys: dict[str, DataKey] = {}
        for plan, known in seeing:
            if plan.opens:
                name = plan.writes[plan.opens].name
                try:
                    if key := key_of(plan, known, held):
                        keys[name] = key
                except CannotOpen as error:
                    found[name] = error
                except Rejected:
                    continue  # whose it is is not known yet
        for name, entries in (await self._streams.load(dict.fromkeys(keys, 0))).items() if keys else ():
            first = self._codec.decode(entries[0])
            try:
                found[name] = opened(first.event, keys[name], first.body.id)
            except CannotOpen as error:
                found[name] = error
        return found


def key_of(plan: Plan, known: Mapping[str, Any], held: Held) -> DataKey | None:
    """What personal fields of the plan are sealed under. Raises CannotOpen, and what Plan.key raises."""
    if plan.owed and plan.owed.key:
        return plan.owed.key
    key = held.get(plan.key(**known)[0]) if plan.key else None
    if isinstance(key, CannotOpen):
        raise key
    return key


def asks_the_same(context: Context, read: Sequence[Recorded], keys: Mapping[str, DataKey]) -> bool:
    """Whether this was asked when these events were recorded. Of what is personal nobody can tell without its key."""
    recorded = read[0].body.command.fingerprint
    sealed = next(filter(None, (sealed_under(each.event) for each in read)), None)
    if context.whole is None or sealed is None:
        return recorded == context.fingerprint
    return sealed not in keys or recorded == keys[sealed].fingerprint(context.whole)
