"""
The wiring of one region: its database brought up to date, its log opened, its services put together.

Invariant: opening a region is idempotent; a region that runs is not changed by another start.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import psycopg
import structlog
from psycopg import sql
from psycopg.conninfo import make_conninfo
from redis.asyncio import Redis

from access import identity_providers
from access.directory import Directory
from access.rates import Limits
from access.sessions import Sessions
from access.tokens import Tokens
from app import closings
from app.authentication import Authentication
from app.settings import Settings
from commands.decider import Decider
from commands.identity import command_id
from domain.catalog import AGGREGATES
from domain.kernel import uuid7
from domain.logs import Opened
from eventstore import carrying, erasing, postgres, schema
from eventstore.keyring import Keyring
from eventstore.log import Command
from eventstore.postgres import LogReader, PostgresLog, PostgresStreams
from eventstore.record import Body, Codec, CommandPart, encode_body
from eventstore.vault import Vault
from eventstore.writer import Writer
from policies.residency import EVERYWHERE, Residency

_ROOT = Path(__file__).parent.parent
MIGRATIONS = (
    ("ledger", schema.HERE),
    ("read", _ROOT / "projections" / "schema"),
    ("replication", _ROOT / "replication" / "schema"),
)
READERS_MAX = 8

_log = structlog.get_logger(__name__)


async def open_region(settings: Settings) -> None:
    """Migrate the database, register all logs, open the own one. For an administrator's connection. Raises SettingsError.

    A region that goes on with a closed log takes its vault over first.
    Where heads are signed, the log may then be written once the checkpointer has compared it, and not before.
    """
    applied = await asyncio.to_thread(schema.migrate, settings.postgres, MIGRATIONS)
    if applied:
        _log.info("database brought up to date", applied=applied)
    async with await psycopg.AsyncConnection.connect(settings.postgres, autocommit=True) as connection:
        for log in settings.logs:
            await connection.execute(
                "SELECT ledger.register_log(%s, %s, %s)", (log, settings.origin_of(log), log == settings.region)
            )
        await postgres.prepare(connection)
        heads = await LogReader(connection).heads()
        if not heads[settings.region].position and not _was_signed(settings):
            opening = _opening(settings)
            if settings.continues:
                await carrying.read(connection, settings.continues)
            await (await PostgresLog.open(connection, settings.region)).append([opening])
        if settings.policy:
            await connection.execute(
                "SELECT ledger.guard(l.id) FROM ledger.log AS l WHERE l.name = %s", (settings.region,)
            )


def _was_signed(settings: Settings) -> bool:
    """Whether the log has had entries: an empty database then waits for them, and is not opened a second time."""
    from eventstore.signer import signed_size

    return settings.signer is not None and signed_size(settings.signer) > 0


def login(dsn: str, name: str, role: str, password: str) -> str:
    """The DSN of a login that is a member of `role` and nothing else. Makes it, or gives it this password."""
    made, group = sql.Identifier(name), sql.Identifier(role)
    with psycopg.connect(dsn) as connection:
        if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (name,)).rowcount:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN IN ROLE {}").format(made, group))
        hashed = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
        connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(made, hashed))
    return make_conninfo(dsn, user=name, password=password)


def _opening(settings: Settings) -> Command:
    """The command that opens the log; its id makes a second one a repeat."""
    id_ = command_id("system", "log.opened")
    closed = closings.told(settings)
    owned = range(0) if closed else settings.partitions_of(settings.region)
    spans = ((owned[0], owned[-1]),) if owned else ()
    event = uuid7(datetime.now(UTC), os.urandom(10)).hex()
    stream = f"region-{settings.region}-log"
    body = Body(
        stream=stream,
        version=1,
        type=Opened.tag,
        id=f"{event[:8]}-{event[8:12]}-{event[12:16]}-{event[16:20]}-{event[20:]}",
        actor="system",
        command=CommandPart(id=id_.hex(), i=1, n=1),
        data=msgspec.Raw(msgspec.json.encode(Opened(settings.origin, 1, spans, *(closed or ())))),
    )
    return Command(id_, [encode_body(body)], (), frozenset({stream}))


class WriteSide(NamedTuple):
    """What commands run on."""

    decider: Decider
    vault: Vault
    authentication: Authentication
    fingerprint_key: bytes
    directory: Directory
    sessions: Sessions
    streams: PostgresStreams
    residency: Residency = EVERYWHERE


def told_of(settings: Settings) -> dict[str, str]:
    """What `service.started` says of what only this installation was told: a SHA-256 of each, by name."""
    from app import registering

    oidc = identity_providers.digest(identity_providers.load(settings.oidc))
    return {**registering.digest(settings), "oidc": oidc, "residency": settings.who_may_hold().digest}


@asynccontextmanager
async def write_side(
    settings: Settings, appended: Callable[[Sequence[Command], float], None] = lambda _commands, _seconds: None
) -> AsyncIterator[WriteSide]:
    """The decider and its writer, running until the block ends; then what is queued is still appended.

    `appended` hears of each batch (eventstore.writer.Writer).
    """
    pool = postgres.pool(settings.postgres, "countroom_writer", size=READERS_MAX)
    vault = Vault(pool, Keyring(settings.region_key))

    async def connect() -> PostgresLog:
        return await PostgresLog.open(await postgres.connect(settings.postgres, "countroom_writer"), settings.region)

    writer = Writer(connect, appended=appended)
    async with pool, Redis.from_url(settings.redis) as redis:
        running = asyncio.create_task(writer.run(), name="writer")
        running.add_done_callback(stop_if_dead)
        following = asyncio.create_task(erasing.follow(vault, settings.postgres), name="erasures")
        following.add_done_callback(stop_if_dead)
        streams, codec = PostgresStreams(pool), Codec(AGGREGATES)
        decider = Decider(settings.region, writer, streams, vault, codec)
        directory, sessions = Directory(streams, codec), Sessions(redis)
        try:
            yield WriteSide(
                decider,
                vault,
                Authentication(Tokens.from_file(settings.tokens), directory, sessions, limits=Limits(settings.rates)),
                bytes.fromhex(settings.fingerprint_key.read_text()),
                directory,
                sessions,
                streams,
                settings.who_may_hold(),
            )
        finally:
            following.cancel()
            writer.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(10):
                    await running


def stop_if_dead(task: asyncio.Task[None]) -> None:
    """A process whose writer has failed, or whose start cannot be recorded, can take no command: it ends, and is started
    again.
    """
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.critical("a task that commands need has failed", task=task.get_name(), error=repr(error))
        os._exit(70)
