"""
Asking registers of the excluded, before anything is decided: whom a command is about, which register is theirs, what it said.

What was answered goes with the command as a value (`Edge.asked`). A player's personal fields are opened for it, and are kept
nowhere.

Invariants:
    - nobody outside hears of a person but the register of their jurisdiction;
    - a question that got no answer is an answer too: «unanswered», and why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import structlog

from commands.sealing import opened
from domain import players
from domain.kernel import PlayerId
from domain.players import PLAYERS, Player, ProfileRecorded, Registered
from domain.protection import Answer, Said
from eventstore.log import Streams
from eventstore.record import Codec, Recorded
from eventstore.vault import CannotOpen, Vault
from policies import protection as policy
from policies.protection import Moment, Silence
from providers.port import Unanswered
from registers.port import InRegister, Person, Register

_log = structlog.get_logger(__name__)


class Whose(NamedTuple):
    """A player as the log tells. `told`: by event, what their registration and profiles say, opened; None if the key is not here."""

    player: Player
    told: Sequence[Registered | ProfileRecorded] | None

    @property
    def person(self) -> Person | None:
        """What is known now of who they are; None if it cannot be read here."""
        if self.told is None:
            return None
        known: dict[str, str] = {}
        for event in self.told:
            for field in Person._fields:
                if isinstance(value := getattr(event, field, None), str):
                    known[field] = value
        return Person(**known)

    def words(self) -> Iterator[tuple[str, str]]:
        """All (field, value) by which other accounts of the person are found, as commands.players has put them in the index."""
        for event in self.told or ():
            for field in ("email", "phone"):
                if isinstance(value := getattr(event, field), str):
                    yield field, value
            if isinstance(event.name, str) and isinstance(event.birth_date, str):
                yield "person", person_word(event.name, event.birth_date)


def person_word(name: str, birth_date: object) -> str:
    """What a person is found by: name and birth date (ISO 8601) together."""
    return f"{' '.join(name.split())}\n{birth_date}"


async def whose(player_id: PlayerId, streams: Streams, codec: Codec, vault: Vault) -> Whose:
    """A player as the log tells. Raises CannotOpen."""
    state, told = await _read(player_id, streams, codec)
    return Whose(state, await _opened(state, told, vault))


async def _read(player_id: PlayerId, streams: Streams, codec: Codec) -> tuple[Player, list[Recorded]]:
    """The player, and the events that tell who they are, sealed."""
    stream = players.stream(player_id).name
    entries = (await streams.load({stream: 0})).get(stream, ())
    told: list[Recorded] = []
    state = PLAYERS.initial
    for entry in entries:
        read = codec.decode(entry)
        state = PLAYERS.evolve(state, read.event, read.at)
        if isinstance(read.event, Registered | ProfileRecorded):
            told.append(read)
    return state, told


async def _opened(
    player: Player, told: Sequence[Recorded], vault: Vault
) -> Sequence[Registered | ProfileRecorded] | None:
    """None if the key is not here. Raises CannotOpen."""
    keys = await vault.keys({player.key: player.commitment}) if player.key else {}
    key = keys.get(player.key)
    if key is None:
        return None
    return [opened(each.event, key, each.body.id) for each in told]  # type: ignore[misc]


class Asking:
    """Asks the registers that the house was told of, by name. `configured`: whether it was told of registers at all.
    `elsewhere`: by jurisdiction, the register to ask where no row names one.
    """

    def __init__(
        self,
        registers: Mapping[str, Register],
        streams: Streams,
        codec: Codec,
        vault: Vault,
        *,
        configured: bool,
        elsewhere: Mapping[str, str] | None = None,
    ) -> None:
        self._registers = registers
        self._streams = streams
        self._codec = codec
        self._vault = vault
        self._configured = configured
        self._elsewhere = elsewhere or {}

    @property
    def unasked(self) -> Silence:
        """Why a register that nobody asked has not answered."""
        return Silence.NOT_ASKED if self._configured else Silence.NOT_CONFIGURED

    async def of_person(self, person: Person, jurisdiction: str, moment: Moment, at: datetime) -> tuple[Answer, ...]:
        """What the register of a jurisdiction says of somebody; nothing if none is asked at this moment."""
        due = policy.register(jurisdiction, moment, at)
        if due is None or not self._configured:
            return ()
        name = due.name or self._elsewhere.get(jurisdiction, "")
        if (register := self._registers.get(name)) is None:
            silence = Silence.NO_ADAPTER if name else Silence.NOT_RESEARCHED
            return (Answer(name, moment, Said.UNANSWERED, silence=silence),)
        try:
            answer = await register.ask(person)
        except Unanswered as error:
            _log.warning("a register has not answered", register=name, moment=moment.value, error=str(error))
            return (Answer(name, moment, Said.UNANSWERED, silence=Silence.DOWN),)
        if isinstance(answer, InRegister):
            return (Answer(name, moment, Said.EXCLUDED, answer.until),)
        return (Answer(name, moment, Said.CLEAR),)

    async def of_player(self, player_id: PlayerId, moment: Moment) -> tuple[Answer, ...]:
        """The same of a player; nothing of one who is not there, or whose data cannot be read here: the decision says so. Their data
        are opened only if a register is to be asked.
        """
        if not self._configured:
            return ()
        player, told = await _read(player_id, self._streams, self._codec)
        at = datetime.now(UTC)
        if policy.register(player.jurisdiction, moment, at) is None:
            return ()
        try:
            found = Whose(player, await _opened(player, told, self._vault))
        except CannotOpen:
            _log.exception("a register is not asked: the player's data does not open", player=player_id)
            return ()
        if (person := found.person) is None:
            return ()
        return await self.of_person(person, player.jurisdiction, moment, at)
