"""
Protection that spreads: the same person's other accounts are shut out too, of all brands.

    excluded, timed out ──▶ who has the same e-mail, phone, or name and birth date ──▶ a command for each ──▶ [matches shut out]
    duplicates found    ──▶ whether one of them is shut out ──▶ a command for some  ──▶ [duplicates compared]

What was taken over from another account goes no further, so that a shared telephone does not shut out a whole street.

Only accounts that are owned here can be written, or be a condition. Another region's is shut out by a safeguard of this log's
(commands/safeguards.py), which its owner takes up; and what shuts it out is believed as the copy here has it.

Invariants:
    - whoever owns the other accounts, and wherever they have moved meanwhile, none holds up what is owned here;
    - killed at any step, the reaction goes on from the log: each command has one effect by its id, and the last one ends it;
    - an account is done with only after every match has its own command in the log;
    - one with many matches holds up no other: a step takes some of them, and the next step goes on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import structlog

from access.policy import service
from commands import safeguards
from commands.asking import Whose, whose
from commands.edge import Edge
from commands.identity import command_id
from commands.matches import compare, note_matches, shut_out_match
from commands.plan import Context, Plan, Receipt
from commands.players import ALIKE
from domain import anywhere, protection
from domain.errors import Rejected
from domain.kernel import PlayerId, partition_of
from domain.protection import PROTECTION, Protection
from eventstore.blind import Among
from eventstore.log import Streams
from eventstore.record import Codec
from eventstore.vault import CannotOpen, Vault
from projections.duties import DUPLICATES, MATCHES
from reactions import pending
from reactions.pending import Pending, Pool
from reactions.runner import Clock, Patience

ACTOR = "reaction:protection"
SPREAD_MAX = 50
COMPARED_MAX = 20
"""How many matches of one account a step shuts out, and with how many it compares one: a command reads all of these."""

_WHENEVER = datetime.max.replace(tzinfo=UTC)  # the clocks of PostgreSQL and of this process need not agree

_log = structlog.get_logger(__name__)


class _Begun(NamedTuple):
    """Of an account with many matches: up to which of them it is done, and why one was refused. Lost with the process, and with a
    fault, which costs asking again.
    """

    upto: str
    refused: Rejected | None = None


_BEGIN = _Begun("")


class Protecting:
    """Protects for the partitions that `log` owns. `look`: at states as they are held here, whoever owns them."""

    def __init__(
        self,
        log: str,
        pool: Pool,
        streams: Streams,
        codec: Codec,
        vault: Vault,
        decide: Callable[[Plan], Awaitable[Receipt]],
        look: safeguards.Look,
        edge: Callable[[Context], Edge],
        *,
        clock: Clock = lambda: datetime.now(UTC),
    ) -> None:
        self._log = log
        self._pool = pool
        self._streams = streams
        self._codec = codec
        self._vault = vault
        self._decide = decide
        self._look = look
        self._edge = edge
        self._clock = clock
        self._patience = Patience()
        self._begun: dict[Pending, _Begun] = {}
        self._does = {MATCHES: self._spread, DUPLICATES: self._compare}

    async def step(self) -> None:
        """Do once whatever is due and was not tried just now, and go on with what was begun."""
        owned = await self._streams.epochs(self._log)
        open_: set[Pending] = set()
        async for page in pending.pages(self._pool, self._does, owned, _WHENEVER):
            open_.update(page)
            for each in page:
                now = self._clock()
                if each in self._begun or self._patience.is_over(each, now):
                    self._patience.tried(each, now)
                    await self._do(each)
        self._patience.forget_all_but(open_)
        self._begun = {each: begun for each, begun in self._begun.items() if each in open_}

    async def _do(self, each: Pending) -> None:
        player = PlayerId(f"player_{each.suffix}")
        said = _log.bind(kind=each.kind, player=player)
        try:
            await self._does[each.kind](player, each)
        except Rejected as refused:
            said.warning("refused; it is tried again", code=refused.code, detail=refused.detail)
        except CannotOpen as error:
            said.error(
                "the player's data does not open, so nobody can be found by it; a person resolves it", error=str(error)
            )
        except Exception:  # noqa: BLE001 — one player's fault must not hold up the others
            said.exception("protection has failed; it is tried again")

    async def _spread(self, player: PlayerId, each: Pending) -> None:
        """Shut out the same person's other accounts. Whom it meets in the log after that does not wait for the next time."""
        seen = await self._shut_outs_by(player, each.cause)
        matches = await self._matches(player)
        begun = self._begun.pop(each, _BEGIN)
        todo = [other for other in matches if other > begun.upto]
        refused = begun.refused
        elsewhere = await self._elsewhere(matches)
        for other in todo[:SPREAD_MAX]:
            plan = shut_out_match(other, player, self._asked(each, f"match\n{other}"))
            try:
                await self._decide(await self._safeguard(other, plan) if other in elsewhere else plan)
            except Rejected as error:  # the others do not wait for this one
                refused = error
        if todo[SPREAD_MAX:]:
            self._begun[each] = _Begun(todo[SPREAD_MAX - 1], refused)
            return
        if refused is not None:
            raise refused
        await self._decide(note_matches(player, matches, self._asked(each, "matches"), seen=seen))
        _log.info("other accounts are shut out too", player=player, count=len(matches), elsewhere=len(elsewhere))

    async def _safeguard(self, other: PlayerId, plan: Plan) -> Plan:
        """The same, recorded here for the owner to take up. Raises what the plan's decision raises."""
        logs = await self._streams.logs()
        held = await self._look(safeguards.seen_by(plan, logs))
        return safeguards.record(plan, other, self._log, logs, held)

    async def _elsewhere(self, others: Collection[PlayerId]) -> set[PlayerId]:
        """Those whose partition is not owned here, by now."""
        owned = await self._streams.epochs(self._log)
        return {other for other in others if partition_of(other) not in owned}

    async def _matches(self, player: PlayerId) -> Sequence[PlayerId]:
        """Nobody of one who was erased: it cannot be known any more. Raises CannotOpen if it cannot be said who the player is."""
        found = await whose(player, self._streams, self._codec, self._vault)
        if found.player.erased_at is not None:
            return []
        if found.told is None:
            raise CannotOpen("the key of the player is not held here")
        return await self._alike(player, found)

    async def _alike(self, player: PlayerId, found: Whose) -> Sequence[PlayerId]:
        """The accounts that have, or had, one of the player's words, in the order of their ids."""
        words = [word for word in dict.fromkeys(found.words()) if word[0] in ALIKE]
        held = await self._vault.find_registered(words, Among.ALL) if words else {}
        subjects = {f"player_{subject}" for subjects in held.values() for subject in subjects}
        return [PlayerId(other) for other in sorted(subjects - {player})]

    async def _compare(self, player: PlayerId, each: Pending) -> None:
        """Shut the player out as those are who may be the same person: those whom the log names, and whoever is found beside them."""
        found = await whose(player, self._streams, self._codec, self._vault)
        others = sorted({*found.player.duplicates, *await self._alike(player, found)})
        begun = self._begun.pop(each, _BEGIN)
        todo = [other for other in others if other > begun.upto]
        page, is_last = todo[:COMPARED_MAX], len(todo) <= COMPARED_MAX
        asked = self._asked(each, "\n".join(["compare", *page]))
        elsewhere = await self._elsewhere(page)
        here = [other for other in page if other not in elsewhere]
        theirs = {other: await self._protection(other) for other in sorted(elsewhere)}
        await self._decide(compare(player, here, asked, elsewhere=theirs, looked_at=others if is_last else None))
        if not is_last:
            self._begun[each] = _Begun(page[-1])

    async def _protection(self, other: PlayerId) -> Protection:
        """Of one whom another region owns: as held here, with what regions have recorded that the owner has not taken up."""
        own = protection.stream(other)
        beside = anywhere.beside(own, await self._streams.logs())
        states: Mapping[str, Any] = await self._look({"": own, **beside})
        found: Protection = anywhere.included(PROTECTION, states[""], {log: states[log] for log in beside})
        return found

    async def _shut_outs_by(self, player: PlayerId, cause: str) -> int:
        """How many of the account's own there were with this event. The read model may lag behind others."""
        stream, state = protection.stream(player).name, PROTECTION.initial
        for entry in (await self._streams.load({stream: 0})).get(stream, ()):
            read = self._codec.decode(entry)
            state = PROTECTION.evolve(state, read.event, read.at)
            if read.body.id == cause:
                break
        return int(state.shut_outs)

    def _asked(self, each: Pending, verb: str) -> Edge:
        """As which command."""
        context = Context(
            service(ACTOR, "reaction"),
            self._clock(),
            command_id(ACTOR, f"{each.cause}\n{verb}"),
            fingerprint=None,
            cause=each.cause,
        )
        return self._edge(context)
