"""
`countroom region close`: a log that cannot be repaired ends at the last entry that is agreed upon, and its region goes on with the next
log (eu.2 after eu).

Two steps, each of which may be repeated: what the other regions hold is compared, and a folder is made from which the next log is opened
(`app.closings`), with the vault in it; then the region runs under its new name, copies what the others hold of the old log, and adopts
what that owned.

Invariants:
    - nothing is closed that could be repaired, nor without an answer of every other region that is not named as lost;
    - the closed database stays as it is; what only it held is listed beside the next log, and counted nowhere;
    - the signer of a closed log signs no more, and its log is not cleared to be written.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from base64 import b64encode
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psycopg
import structlog

from app import closings
from app.closings import Closing
from app.settings import Settings
from domain.logs import Continued, Stranded, next_name
from eventstore import carrying
from eventstore.record import decode_body
from eventstore.signer import Signer
from replication import store
from replication.asking import peer
from replication.closing import Entries, Examined, examine
from replication.comparing import Signed, newest_in
from replication.config import Config
from replication.link import link

_PLAYERS_SHOWN = 20
_STRANDED = """
    SELECT e.position, e.recorded, e.leaf, e.body FROM ledger.entry AS e JOIN ledger.log AS l ON l.id = e.log
     WHERE l.name = %s AND e.position BETWEEN %s AND %s ORDER BY e.position"""
_PLAYERS = "SELECT e.stream FROM ledger.entry AS e WHERE e.stream = ANY (%s) AND e.version = 1"

_log = structlog.get_logger(__name__)


class Found(NamedTuple):
    """What closing a log comes to. `players`: whose entries are stranded; `commands`: how many are."""

    log: str
    examined: Examined
    players: Sequence[str]
    commands: int

    def to_json(self) -> dict[str, Any]:
        at, left = self.examined, self.examined.stranded
        return {
            "log": self.log,
            "continues_as": next_name(self.log),
            "position": at.position,
            "leaf": at.leaf,
            "copies": list(at.regions),
            "why": at.why,
            "agrees_up_to": at.common,
            "stranded": None
            if left is None
            else {
                **left._asdict(),
                "entries": left.last - left.first + 1,
                "commands": self.commands,
                "players": list(self.players),
            },
        }

    def to_text(self) -> str:
        at, left = self.examined, self.examined.stranded
        lines = [
            f"{self.log}: {at.why}",
            f"it would be closed behind position {at.position:,}, as {' and '.join(at.regions)} hold it, and go on as {next_name(self.log)}",
        ]
        if left:
            shown = ", ".join(self.players[:_PLAYERS_SHOWN]) + (", …" if len(self.players) > _PLAYERS_SHOWN else "")
            lines.append(
                f"stranded, that is kept and never counted: {left.last - left.first + 1:,} entries ({left.first:,} to {left.last:,}), "
                f"{self.commands:,} commands of {len(self.players):,} players" + (f": {shown}" if shown else "")
            )
        else:
            lines.append("nothing is stranded: the database holds nothing that the copies do not")
        return "\n".join(lines)


async def find(settings: Settings, without: Collection[str] = ()) -> Found:
    """Compare the log with the copies, as its region's checkpointer would, and write nothing. Raises NotClosed, SignerError."""
    (folder,) = settings.needed("checkpointer", "COUNTROOM_SIGNER")
    config = Config(settings.region, settings.deployment, settings.postgres, settings.nats, settings.nats_seeds)
    others = [region for region in settings.regions if region != settings.region]
    with contextlib.closing(Signer.open(folder, settings.origin)) as signer:
        signed = Signed(signer.size, signer.root)
        async with contextlib.AsyncExitStack() as stack:
            own = await stack.enter_async_context(link(config, settings.region, f"closing-{settings.region}", _log))
            peers = [await stack.enter_async_context(peer(own, region)) for region in others]
            connection = await stack.enter_async_context(await store.connect(config, store.HEADS_ROLE))
            log = await store.find_log(connection, config, settings.region)
            await store.be_the_only(connection, "checkpointer", log)
            stream = await newest_in(own, connection, log)
            examined = await examine(connection, log, signed, stream, peers, without)
    players, commands = _whose(settings, examined.stranded)
    return Found(settings.region, examined, players, commands)


def _whose(settings: Settings, stranded: Entries | None) -> tuple[list[str], int]:
    """The players on whose streams something is stranded, in that order, and how many commands are."""
    suffixes: dict[str, None] = {}
    commands: set[str] = set()
    for _, _, _, body in _entries(settings, stranded):
        read = decode_body(body)
        commands.add(read.command.id)
        if read.partition is not None:
            suffixes[read.stream.rpartition("-")[2]] = None
    with psycopg.connect(settings.postgres) as connection:
        known = connection.execute(_PLAYERS, ([f"player-{each}" for each in suffixes],)).fetchall()
    players = {stream.partition("-")[2] for (stream,) in known}
    return [f"player_{each}" for each in suffixes if each in players], len(commands)


def _entries(settings: Settings, stranded: Entries | None) -> Iterator[tuple[int, int, bytes, bytes]]:
    if stranded is None:
        return
    with psycopg.connect(settings.postgres) as connection, connection.cursor("stranded", binary=True) as cursor:
        yield from cursor.execute(_STRANDED, (settings.region, stranded.first, stranded.last))


def close(settings: Settings, found: Found, folder: Path) -> Closing:
    """Make the folder from which the next log is opened, and let the signer sign no more. Again, it changes nothing. Raises OSError."""
    if (made := closings.read(folder)) is not None:
        return made
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    at, left = found.examined, found.examined.stranded
    carried = carrying.write(settings.postgres, folder)
    with _private(folder / closings.STRANDED) as file:
        for position, recorded, leaf, body in _entries(settings, left):
            told = {"position": position, "recorded": recorded, "leaf": leaf.hex(), "body": b64encode(body).decode()}
            file.write(msgspec.json.encode(told) + b"\n")
    closing = Closing(Continued(settings.region, at.position, at.leaf), Stranded(*left) if left else None)
    _mark(settings, closing)
    with _private(folder / f"{closings.TOLD}.new") as file:
        file.write(closings.encode(closing))
    (folder / f"{closings.TOLD}.new").rename(folder / closings.TOLD)
    _log.info("the log is closed", log=settings.region, position=at.position, vault=carried)
    return closing


def _mark(settings: Settings, closing: Closing) -> None:
    (signer,) = settings.needed("checkpointer", "COUNTROOM_SIGNER")
    with _private(signer / closings.MARK) as file:
        file.write(closings.encode(closing))


@contextlib.contextmanager
def _private(path: Path) -> Iterator[Any]:
    """A file that nobody else may read, on the disk once it is left."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def carry_keys(settings: Settings, next_settings: Settings) -> str:
    """Make the keys of the next log and give it the region's key, under which the vault is wrapped; the policy with its lines added."""
    from app import heads

    if not next_settings.region_key.exists():
        for file in sorted(settings.region_key.parent.glob(f"{settings.region_key.name}*")):
            target = next_settings.region_key.with_name(
                file.name.replace(settings.region_key.name, next_settings.region_key.name)
            )
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft = target.with_name(f".{target.name}.new")
            draft.touch(mode=0o600)
            shutil.copyfile(file, draft)
            draft.rename(target)
    log, witness = heads.region_keys(next_settings)
    (policy,) = settings.needed("checkpointer", "COUNTROOM_POLICY")
    return heads.name_next(policy.read_text(), settings.region, next_settings.region, log, witness)
