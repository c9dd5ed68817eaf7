"""
Custody of data keys that other regions made: this region wants those that it may hold, and gives what it made to those that may.

Whoever is registered elsewhere can then be read and found here, an operator can sign in here, and the personal data outlive the
region that made the key. How a key travels is told in `replication.keys`; whose keys there are follows from the logs held here.

Invariants:
    - no key is kept that is not the one to which the log commits, or whose player was erased by any log held here;
    - no key is kept, or given, where the player's jurisdiction does not allow it; a copy is destroyed when the player moves to where
      it is not allowed, or the house says so from now on;
    - what was not given is asked for again, and nothing is remembered that the logs and the vault do not say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import structlog
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from access.credentials import EMAIL
from commands.players import found_by
from commands.sealing import opened
from domain import operators, players
from domain.kernel import Event
from eventstore import packing
from eventstore.copies import Change, Copies, Gone, Made, Told, Wanted
from eventstore.record import Codec, Entry, UnknownEvent
from eventstore.vault import CannotOpen, Copy, DataKey, Vault
from policies.residency import Residency

AGAIN_S = 60.0
"""After how long a key is asked for again that was not given."""

OPERATORS: Final = ""
"""In the place of a jurisdiction: an operator's key may be in every region, since they sign in in any."""

UNKNOWN, ERASED, NOT_ALLOWED, WRONG, UNREADABLE = "unknown", "erased", "not_allowed", "not_the_committed", "unreadable"
_MADE = (players.Registered.tag, operators.Invited.tag)
_TOLD = (players.ProfileRecorded.tag, players.Erased.tag)
_TYPES = (*_MADE, *_TOLD)
_SECRETS = (*_MADE, players.ProfileRecorded.tag)

_OF_STREAMS = """
    SELECT split_part(e.stream, '-', 2), e.version, l.name, e.position, e.recorded, e.leaf, e.body
      FROM ledger.entry AS e JOIN ledger.log AS l ON l.id = e.log
     WHERE e.stream = ANY (%b) AND e.type = ANY (%b) ORDER BY e.stream, e.version"""
_SUBJECTS = "SELECT k.id::text, k.subject FROM vault.data_key AS k WHERE k.id = ANY (%b::uuid[])"

_log = structlog.get_logger(__name__)


class Given(NamedTuple):
    """By key id, data keys, and why others are not given."""

    keys: Mapping[str, bytes]
    refused: Mapping[str, str]


Ask = Callable[[Sequence[str]], Any]
"""Asks the origin for keys by id: an awaitable of what has `keys` and `refused`, as `Given`."""


def may_hold(residency: Residency, log: str) -> Callable[[str], bool]:
    """Whether the region of this log may hold a key, by jurisdiction."""
    return lambda jurisdiction: jurisdiction == OPERATORS or residency.allows(jurisdiction, log)


class Wants:
    """What the region of `own` wants of one other region, `origin`. One task may follow while another asks: each step is judged
    anew by what the list says at its commit, and what follows after it looks again.
    """

    def __init__(
        self,
        own: str,
        origin: str,
        pool: AsyncConnectionPool[AsyncConnection[Any]],
        vault: Vault,
        codec: Codec,
        residency: Residency,
        seen: set[str] | None = None,
        *,
        told_only: bool = False,
    ) -> None:
        """`seen`: the jurisdictions that occur; of one region's players any log may tell, so that all share them. `told_only`: this is
        a log of the own region. Its keys are here, and what it tells of those who were handed over to it counts.
        """
        self.origin = origin
        self._pool = pool
        self._vault = vault
        self._codec = codec
        self._may = may_hold(residency, own)
        self._copies = Copies(pool, origin)
        self._seen = set[str]() if seen is None else seen
        self._begun = False
        self._told_only = told_only
        self._log = _log.bind(log=origin)

    async def follow(self) -> None:
        """Read what the log has said since, and destroy what may not be held any more."""
        if not self._begun:
            await self._copies.mend()
            self._seen |= await self._copies.jurisdictions()
            self._begun = True
        types, retold = (_TOLD, None) if self._told_only else (_TYPES, self._retold)
        while await self._copies.follow(types, self._read, retold):
            pass
        forbidden = [each for each in self._seen if not self._may(each)]
        while forbidden and (held := await self._copies.held(forbidden, 500)):
            destroyed = await self._vault.give_up(held)
            self._log.info("data keys are destroyed that may not be held here any more", count=destroyed)

    def _read(self, entry: Entry) -> Change | None:
        """What an entry of another region means for the list. One that cannot be read counts for nothing."""
        try:
            read = self._codec.decode(entry)
        except (msgspec.DecodeError, UnknownEvent) as error:
            self._log.error("an entry about keys cannot be read", position=entry.position, error=str(error))
            return None
        subject = read.body.stream.partition("-")[2]
        match read.event:
            case players.Registered(key=key, country=country):
                self._seen.add(country)
                return Made(subject, key.id, key.commitment, country)
            case operators.Invited(key=key):
                self._seen.add(OPERATORS)
                return Made(subject, key.id, key.commitment, OPERATORS)
            case players.ProfileRecorded(jurisdiction=jurisdiction) as profile:
                self._seen.update({jurisdiction} - {""})
                more = (profile.name, profile.email, profile.phone, profile.birth_date)
                return Told(subject, any(each is not None for each in more))
            case players.Erased():
                return Gone(subject)
        return None

    async def step(self, ask: Ask, limit: int) -> int:
        """Ask once for what is missing, at most for `limit` keys, and keep what came; how many are held since. Raises what `ask` does."""
        allowed = [each for each in self._seen if self._may(each)]
        wanted = await self._copies.wanted(allowed, limit) if allowed else []
        if not wanted:
            return 0
        missing = {each.key: each for each in wanted if not each.done}
        found = await ask(sorted(missing)) if missing else Given({}, {})
        refused = {missing[id_].subject: why[:100] for id_, why in found.refused.items() if id_ in missing}
        keys = {id_: DataKey(id_, key) for id_, key in found.keys.items() if id_ in missing}
        for key in keys.values():
            if key.commitment != missing[key.id].commitment:
                refused[missing[key.id].subject] = WRONG
                self._log.error("the origin has given a key that is not the one of the registration", key=key.id)
        right = {each.subject: keys[each.key] for each in wanted if each.key in keys and each.subject not in refused}
        right |= await self._held([each for each in wanted if each.done], refused)
        copies = await self._copies_of([each for each in wanted if each.subject in right], right, refused)
        kept = await self._vault.keep_copies(copies, allowed) if copies else set[str]()
        for each in wanted:
            if each.subject not in kept:
                refused.setdefault(each.subject, UNKNOWN)
        if refused:
            await self._copies.refused(list(refused.items()), AGAIN_S)
        return len(kept)

    async def _held(self, wanted: Sequence[Wanted | Made], refused: dict[str, str]) -> dict[str, DataKey]:
        """The keys that are here, of subjects of whom more is known by now than their words here."""
        found: dict[str, DataKey] = {}
        for each in wanted:
            try:
                if key := (await self._vault.keys({each.key: each.commitment})).get(each.key):
                    found[each.subject] = key
            except CannotOpen as error:
                refused[each.subject] = WRONG
                self._log.error("a copy in the vault is not the key of the registration", error=str(error))
        return found

    async def _copies_of(
        self, wanted: Sequence[Wanted], keys: Mapping[str, DataKey], refused: dict[str, str]
    ) -> list[Copy]:
        """With what each is found by."""
        streams = [f"{'player' if each.jurisdiction else 'operator'}-{each.subject}" for each in wanted]
        words, versions = self._opened(await _entries(self._pool, streams, _SECRETS), keys, refused)
        return [
            Copy(each.subject, keys[each.subject], words[each.subject], each.told, versions[each.subject])
            for each in wanted
            if each.subject in words and each.subject not in refused
        ]

    def _opened(
        self, said: Sequence[_Said], keys: Mapping[str, DataKey], refused: dict[str, str]
    ) -> tuple[dict[str, list[tuple[str, str]]], dict[str, int]]:
        """What those are found by whose keys these are, and up to which version of their streams. What cannot be read counts for nothing."""
        words: dict[str, dict[tuple[str, str], None]] = {}
        versions: dict[str, int] = {}
        for subject, version, entry in said:
            if subject not in keys:
                continue
            versions[subject] = version
            known = words.setdefault(subject, {})
            try:
                read = self._codec.decode(entry)
                known.update(dict.fromkeys(_words(opened(read.event, keys[subject], read.body.id))))
            except (CannotOpen, msgspec.DecodeError, UnknownEvent) as error:
                if isinstance(error, CannotOpen):
                    refused[subject] = UNREADABLE
                self._log.error("what a player is found by does not open", position=entry.position, error=str(error))
        return {subject: list(found) for subject, found in words.items()}, versions

    async def _retold(self, held: Mapping[str, set[str]]) -> None:
        """Index what this log tells of players whose keys are here, and were made in another one: since then they were handed over."""
        entries = await _entries(self._pool, [f"player-{subject}" for subject in held], _SECRETS)
        read = [self._read(each.entry) for each in entries]
        made = [each for each in read if isinstance(each, Made) and each.key in held[each.subject]]
        words, _ = self._opened(entries, await self._held(made, {}), {})
        if words:
            await self._vault.index(words)


def _words(event: Event) -> list[tuple[str, str]]:
    match event:
        case players.Registered(external_id=external_id):
            return found_by(event, external_id if isinstance(external_id, str) else None)
        case players.ProfileRecorded():
            return found_by(event)
        case operators.Invited(email=str(email)):
            return [(EMAIL, email)]
    return []


class Gives:
    """What the region of `own` gives of the keys that it made. `closed`: its logs before, with which `own` goes on."""

    def __init__(
        self,
        own: str,
        pool: AsyncConnectionPool[AsyncConnection[Any]],
        vault: Vault,
        codec: Codec,
        residency: Residency,
        closed: Sequence[str] = (),
    ) -> None:
        self._logs = [own, *closed]
        self._pool = pool
        self._vault = vault
        self._codec = codec
        self._residency = residency

    async def give(self, key_ids: Sequence[str], asker: str) -> Given:
        """Those of these keys that were made here and that the region of the log `asker` may hold. Raises Unavailable while it is not
        known who was erased.
        """
        may = may_hold(self._residency, asker)
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(_SUBJECTS, (packing.text_array(key_ids),))).fetchall()
        known = await self._made_here([subject for _, subject in rows])
        commitments, refused = dict[str, str](), dict.fromkeys(key_ids, UNKNOWN)
        for id_, subject in rows:
            made = known.get(subject)
            if made is None or made.key != id_:
                continue
            if made.erased:
                refused[id_] = ERASED
            elif not may(made.jurisdiction):
                refused[id_] = NOT_ALLOWED
            else:
                commitments[id_] = made.commitment
        keys = await self._opened(commitments, refused)
        return Given(keys, {id_: why for id_, why in refused.items() if id_ not in keys})

    async def _made_here(self, subjects: Sequence[str]) -> dict[str, _Known]:
        streams = [f"{kind}-{subject}" for subject in subjects for kind in ("player", "operator")]
        known: dict[str, _Known] = {}
        for subject, _, entry in await _entries(self._pool, streams, _TYPES):
            try:
                event = self._codec.decode(entry).event
            except (msgspec.DecodeError, UnknownEvent) as error:
                _log.error(
                    "an entry about a key cannot be read: it is not given", position=entry.position, error=str(error)
                )
                known.pop(subject, None)
                continue
            match event:
                case players.Registered(key=key, country=country) if entry.log in self._logs:
                    known[subject] = _Known(key.id, key.commitment, country)
                case operators.Invited(key=key) if entry.log in self._logs:
                    known[subject] = _Known(key.id, key.commitment, OPERATORS)
                case _ if subject not in known:
                    continue  # made elsewhere, and told of here
                case players.ProfileRecorded(jurisdiction=str(jurisdiction)) if jurisdiction:
                    known[subject] = known[subject]._replace(jurisdiction=jurisdiction)
                case players.Erased():
                    known[subject] = known[subject]._replace(erased=True)
        return known

    async def _opened(self, commitments: Mapping[str, str], refused: dict[str, str]) -> dict[str, bytes]:
        """Read anew from the vault; a wrong one there is the trouble of its player alone."""
        try:
            found = await self._vault.keys_to_disclose(commitments) if commitments else {}
        except CannotOpen:
            found = {}
            for id_, commitment in commitments.items():
                try:
                    found |= await self._vault.keys_to_disclose({id_: commitment})
                except CannotOpen as error:
                    refused[id_] = WRONG
                    _log.error("a key in the vault is not the one of the registration", error=str(error))
        return {id_: key.key for id_, key in found.items()}


class _Known(NamedTuple):
    key: str
    commitment: str
    jurisdiction: str
    erased: bool = False


class _Said(NamedTuple):
    """An entry of a subject's stream."""

    subject: str
    version: int
    entry: Entry


async def _entries(
    pool: AsyncConnectionPool[AsyncConnection[Any]], streams: Sequence[str], types: Sequence[str]
) -> list[_Said]:
    """The entries of these types, stream by stream, in their order, whichever log they stand in."""
    asked = (packing.text_array(streams), packing.text_array(types))
    async with pool.connection() as connection:
        cursor = connection.cursor(binary=True)
        await cursor.execute(_OF_STREAMS, asked)
        return [_Said(subject, version, Entry(*row)) for subject, version, *row in await cursor.fetchall()]
