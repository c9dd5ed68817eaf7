"""
Protection that spreads and that waits: the same person's other accounts are shut out too, of all brands; and a register that did
not answer is asked again.

    excluded, timed out ──▶ who has the same e-mail, phone, or name and birth date ──▶ a command for each ──▶ [matches shut out]
    duplicates found    ──▶ whether one of them is shut out ──▶ one command        ──▶ [duplicates compared]
    register silent     ──▶ at its time, the register         ──▶ one command       ──▶ [register asked]

What was taken over from another account goes no further, so that a shared telephone does not shut out a whole street.

Invariants:
    - killed at any step, the reaction goes on from the log: each command has one effect by its id, and the last one ends it;
    - an account is done with only after every match has its own command in the log;
    - no register is asked within a decision.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import msgspec
import structlog

from access.policy import service
from commands import matches as matches_of
from commands import protection as commands
from commands.asking import Asking, whose
from commands.edge import Edge
from commands.identity import command_id
from commands.plan import Context, Plan, Receipt
from commands.players import ALIKE
from domain import protection
from domain.errors import Rejected
from domain.kernel import PlayerId
from domain.protection import PROTECTION, RegisterAsked
from eventstore.log import Streams
from eventstore.record import Codec, Entry
from eventstore.vault import CannotOpen, Vault
from policies.protection import Moment
from projections.duties import DUPLICATES, MATCHES, REGISTER
from reactions import pending
from reactions.pending import Pending, Pool
from reactions.runner import Clock, Patience

ACTOR = "reaction:protection"
_WHENEVER = datetime.max.replace(tzinfo=UTC)  # the clocks of PostgreSQL and of this process need not agree

_log = structlog.get_logger(__name__)


class Protecting:
    """Protects for the partitions that `log` owns."""

    def __init__(
        self,
        log: str,
        pool: Pool,
        streams: Streams,
        codec: Codec,
        vault: Vault,
        decide: Callable[[Plan], Awaitable[Receipt]],
        edge: Callable[[Context], Edge],
        asking: Asking,
        *,
        clock: Clock = lambda: datetime.now(UTC),
    ) -> None:
        self._log = log
        self._pool = pool
        self._streams = streams
        self._codec = codec
        self._vault = vault
        self._decide = decide
        self._edge = edge
        self._asking = asking
        self._clock = clock
        self._patience = Patience()
        self._does = {MATCHES: self._spread, DUPLICATES: self._compare, REGISTER: self._ask_again}

    async def step(self) -> None:
        """Do once whatever is due and was not tried just now."""
        owned = await self._streams.epochs(self._log)
        open_: set[Pending] = set()
        for kinds, until in (((MATCHES, DUPLICATES), _WHENEVER), ((REGISTER,), self._clock())):
            async for page in pending.pages(self._pool, kinds, owned, until):
                open_.update(page)
                for each in page:
                    now = self._clock()
                    if self._patience.is_over(each, now):
                        self._patience.tried(each, now)
                        await self._do(each)
        self._patience.forget_all_but(open_)

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
        """Shut out the same person's other accounts."""
        state = await self._state(player)
        matches = await self._matches(player)
        refused: Rejected | None = None
        for other in matches:
            try:
                await self._decide(matches_of.shut_out_match(other, player, self._asked(each, f"match\n{other}")))
            except Rejected as error:  # the others do not wait for this one
                refused = error
        if refused is not None:
            raise refused
        noting = matches_of.note_matches(player, matches, self._asked(each, "matches"), seen=state.shut_outs)
        await self._decide(noting)
        _log.info("other accounts are shut out too", player=player, count=len(matches))

    async def _matches(self, player: PlayerId) -> Sequence[PlayerId]:
        """Raises CannotOpen if it cannot be said who the player is."""
        found = await whose(player, self._streams, self._codec, self._vault)
        if found.told is None:
            raise CannotOpen("the key of the player is not held here")
        words = [word for word in dict.fromkeys(found.words()) if word[0] in ALIKE]
        held = await self._vault.find_registered(words) if words else {}
        subjects = {f"player_{subject}" for subjects in held.values() for subject in subjects}
        return [PlayerId(other) for other in sorted(subjects - {player})]

    async def _compare(self, player: PlayerId, each: Pending) -> None:
        """Shut the player out as those are who may be the same person."""
        found = await whose(player, self._streams, self._codec, self._vault)
        await self._decide(matches_of.compare(player, found.player.duplicates, self._asked(each, "compare")))

    async def _ask_again(self, player: PlayerId, each: Pending) -> None:
        moment = await self._moment(player, each)
        answers = await self._asking.of_player(player, moment)
        edge = self._asked(each, f"register\n{each.due_at.isoformat()}")
        edge = msgspec.structs.replace(edge, asked=answers, unasked=self._asking.unasked)
        await self._decide(commands.hear_register(player, moment, edge))

    async def _moment(self, player: PlayerId, each: Pending) -> Moment:
        """For what the register was asked that has not answered."""
        for entry in await self._load(player):
            read = self._codec.decode(entry)
            if read.body.id == each.cause and isinstance(read.event, RegisterAsked):
                return read.event.moment
        return Moment.LOGIN

    async def _state(self, player: PlayerId) -> protection.Protection:
        state = PROTECTION.initial
        for entry in await self._load(player):
            read = self._codec.decode(entry)
            state = PROTECTION.evolve(state, read.event, read.at)
        return state

    async def _load(self, player: PlayerId) -> Sequence[Entry]:
        stream = protection.stream(player).name
        return (await self._streams.load({stream: 0})).get(stream, ())

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
