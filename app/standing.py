"""
`countroom region status`: how one region stands, from its own database alone, for whoever was woken by it.

Invariants:
    - what needs a person is among what is `wanted`, with the page that says what to do; nothing else is;
    - a lag is told from signed heads, and as unknown where nothing was heard (queries/lags.py);
    - it only reads, as a role that can do nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psycopg
from psycopg import AsyncConnection

from app import linking
from app.heads import read_policy
from app.settings import SettingsError, from_environment
from eventstore import postgres
from eventstore.copies import counts
from policies import residency
from policies.residency import EVERYWHERE, Residency
from queries.lags import Lag, State, lags
from reactions.custody import may_hold
from replication import geo
from verifier.note import NoteError
from verifier.policy import Policy

LAG_S = UNSIGNED_S = UNWITNESSED_S = 60.0
UNADOPTED_S = 30.0
"""How long each may last before somebody should look."""
CERTIFICATE_S = 14 * 86_400.0
"""How long the certificate of the links should still be valid."""
_HEADS_LOOKED_AT = 100  # at one a second, that is longer than UNWITNESSED_S

_LOGS = """
    SELECT l.name, l.own AND l.name = %(region)s, coalesce(e.position, 0), encode(coalesce(e.leaf, l.genesis), 'hex'),
           c.size, c.at, extract(epoch FROM clock_timestamp() - c.at)::float8,
           CASE WHEN l.own THEN extract(epoch FROM clock_timestamp())::float8 - n.recorded / 1e6 END
      FROM ledger.log AS l
           LEFT JOIN LATERAL (SELECT e.position, e.leaf FROM ledger.entry AS e WHERE e.log = l.id
                               ORDER BY e.position DESC LIMIT 1) AS e ON true
           LEFT JOIN LATERAL (SELECT c.size, c.at FROM ledger.checkpoint AS c WHERE c.log = l.id AND c.published_at IS NOT NULL
                               ORDER BY c.size DESC LIMIT 1) AS c ON true
           LEFT JOIN ledger.entry AS n ON n.log = l.id AND n.position = coalesce(c.size, 0) + 1
     WHERE NOT l.own OR l.name = %(region)s ORDER BY l.own DESC, l.name"""
_NOTES = """
    SELECT c.size, c.note, extract(epoch FROM clock_timestamp() - c.at)::float8
      FROM ledger.checkpoint AS c JOIN ledger.log AS l ON l.id = c.log
     WHERE l.name = %s AND c.published_at IS NOT NULL ORDER BY c.size DESC LIMIT %s"""
_CLEARANCE = """
    SELECT ledger.may_write(l.id), c.by, c.at, clock_timestamp(), s.reason
      FROM ledger.log AS l LEFT JOIN ledger.clearance AS c ON c.log = l.id
           LEFT JOIN replication.status AS s ON s.log = l.id AND s.role = 'checkpointer' AND s.state = 'waiting'
     WHERE l.own AND l.name = %s"""
_OWNERSHIP = """
    SELECT DISTINCT ON (w.partition) w.partition, w.epoch, l.name, w.released_to,
           extract(epoch FROM clock_timestamp())::float8 - e.recorded / 1e6
      FROM ledger.ownership AS w JOIN ledger.log AS l ON l.id = w.log
           LEFT JOIN ledger.entry AS e ON e.log = w.log AND e.position = w.cut AND w.released_to IS NOT NULL
     ORDER BY w.partition, w.epoch DESC"""
_HALTS = """
    SELECT l.name, v.role, min(v.at), count(*), (array_agg(v.position ORDER BY v.id))[1], (array_agg(v.reason ORDER BY v.id))[1]
      FROM replication.evidence AS v JOIN ledger.log AS l ON l.id = v.log
     WHERE v.cleared_at IS NULL GROUP BY l.name, v.role ORDER BY min(v.id)"""
_WATERMARKS = """
    SELECT w.peer, w.position, w.at, w.alarm FROM replication.watermark AS w JOIN ledger.log AS l ON l.id = w.log
     WHERE l.own AND l.name = %s ORDER BY w.peer"""
_CATCH_UP = "SELECT log, source, position, target, per_second, vouched FROM replication.caught_up ORDER BY log"
_STARTS = """
    SELECT l.name, e.body
      FROM ledger.log AS l CROSS JOIN LATERAL (SELECT e.body, e.version FROM ledger.entry AS e
                                                WHERE e.stream = 'region-' || l.name || '-services'
                                                ORDER BY e.version DESC LIMIT %s) AS e
     WHERE l.name = ANY (%s) ORDER BY l.name, e.version DESC"""
_STARTS_LOOKED_AT = 50
_STOPPED = "SELECT projection, log, stopped_at, reason FROM read.status ORDER BY projection, log"


class Place(NamedTuple):
    """A region's database, and what its services are told beside it."""

    region: str
    regions: tuple[str, ...]
    dsn: str
    policy: Policy | None
    residency: Residency
    seeds: Path | None = None


class Head(msgspec.Struct, frozen=True):
    """The newest published head: of how many entries, when it came into this database, and who has signed it beside the log."""

    size: int
    at: datetime
    seconds: float
    witnesses: list[str]


class Log(msgspec.Struct, frozen=True):
    """
    A log held here. `witnessed`: the size of the newest head that has the policy's quorum. `unsigned_seconds`: for how long the own
    log's oldest entry without a head has been there; `unwitnessed_seconds`: for how long no head has had the quorum. 0: it is so.
    """

    log: str
    own: bool
    position: int
    leaf: str
    head: Head | None
    witnessed: int
    unsigned_seconds: float
    unwitnessed_seconds: float


class Owned(msgspec.Struct, frozen=True):
    """Partitions of one log, as ranges [first, last, epoch]. `released_to`: who may adopt them and has not, for `seconds`."""

    log: str
    partitions: list[tuple[int, int, int]]
    released_to: str | None
    seconds: float | None

    @property
    def number(self) -> int:
        return sum(last - first + 1 for first, last, _ in self.partitions)


class Acknowledged(msgspec.Struct, frozen=True):
    """Up to where a region says that it holds our log. `alarm`: its copy differs from the log."""

    region: str
    position: int
    at: datetime
    alarm: str | None


class Halt(msgspec.Struct, frozen=True):
    """What a role met and stopped for; of several, the first. Nobody has cleared it."""

    log: str
    role: str
    since: datetime
    evidence: int
    position: int | None
    reason: str


class Fetched(msgspec.Struct, frozen=True):
    """The newest fetching of a log by ranges. `vouched`: up to where heads vouch for the copy."""

    log: str
    source: str
    position: int
    target: int
    per_second: int
    vouched: int | None


class Stop(msgspec.Struct, frozen=True):
    """A read model that cannot go on."""

    projection: str
    log: str
    position: int
    reason: str


class Keys(msgspec.Struct, frozen=True):
    """Data keys that another region made."""

    log: str
    held: int
    missing: int
    not_allowed: int
    refused: int


class Wanted(msgspec.Struct, frozen=True):
    """Something that needs a person. `see`: the page that says what to do."""

    what: str
    see: str


class Standing(msgspec.Struct, frozen=True):
    region: str
    at: datetime
    may_write: bool
    cleared_by: str | None
    cleared_at: datetime | None
    logs: list[Log]
    copies: list[Lag]
    owned: list[Owned]
    geo: int
    acknowledged: list[Acknowledged]
    halts: list[Halt]
    catch_up: list[Fetched]
    stopped: list[Stop]
    keys: list[Keys]
    wanted: list[Wanted] = []
    waits: str | None = None
    link_certificate_seconds: float | None = None
    """For how long it is valid; None where this is not known."""
    residency: dict[str, str] = {}
    """By log, with which residency its newest API process has started, as far as is known here: a digest."""

    @property
    def own(self) -> Log | None:
        return next((each for each in self.logs if each.own), None)


def place(region: str | None, data: Path) -> Place:
    """One of the regions in a data folder; else that of the environment. Raises SettingsError, ResidencyUnreadable."""
    if region is None:
        found = from_environment()
        policy = read_policy(found.policy) if found.policy else None
        return Place(found.region, found.regions, found.postgres, policy, found.who_may_hold(), found.nats_seeds)
    from devstack import read_state

    state = read_state(data)
    running = {each["name"]: each for each in state["regions"]} if state else {}
    if region not in running:
        raise SettingsError(f"no region {region} runs in {data}; start it with `countroom up`")
    trust, resident = data / "trust.policy", data / "residency.json"
    policy = read_policy(trust) if trust.exists() else None
    allowed = residency.load(resident, tuple(running)) if resident.exists() else EVERYWHERE
    return Place(region, tuple(running), running[region]["postgres"], policy, allowed, data / region / "nats")


def standing(where: Place) -> Standing:
    """How it stands now. Raises SettingsError when its database does not say."""
    try:
        found = asyncio.run(_look(where))
    except psycopg.Error as error:
        reason = str(error).strip().partition("\n")[0]
        raise SettingsError(f"the database of {where.region} does not answer: {reason}") from error
    left = linking.left_s(where.seeds, datetime.now(UTC)) if where.seeds and len(where.regions) > 1 else None
    found = msgspec.structs.replace(found, link_certificate_seconds=left)
    return msgspec.structs.replace(found, wanted=list(wanted(found)))


async def _look(where: Place) -> Standing:
    async with await postgres.connect(where.dsn, "countroom_reader") as connection:

        async def rows(query: Any, *arguments: Any) -> list[tuple[Any, ...]]:
            return await (await connection.execute(query, *arguments)).fetchall()

        cleared = await rows(_CLEARANCE, (where.region,))
        if not cleared:
            raise SettingsError(f"the log {where.region} is not written in this database; `countroom migrate` opens it")
        [(may_write, by, cleared_at, now, waits)] = cleared
        return Standing(
            where.region,
            _utc(now),
            may_write,
            by,
            _utc(cleared_at) if cleared_at else None,
            [await _log(connection, where.policy, row) for row in await rows(_LOGS, {"region": where.region})],
            await lags(connection, where.region, where.regions),
            list(_owned(await rows(_OWNERSHIP))),
            await geo.watermark(connection, where.region),
            [
                Acknowledged(peer, at, _utc(when), why)
                for peer, at, when, why in await rows(_WATERMARKS, (where.region,))
            ],
            [Halt(log, role, _utc(since), *rest) for log, role, since, *rest in await rows(_HALTS)],
            [Fetched(*row) for row in await rows(_CATCH_UP)],
            [Stop(*row) for row in await rows(_STOPPED)],
            [
                Keys(log, **each._asdict())
                for log, each in (await counts(connection, may_hold(where.residency, where.region))).items()
            ],
            waits=None if may_write else waits,
            residency=_residency(await rows(_STARTS, (_STARTS_LOOKED_AT, list(where.regions)))),
        )


async def _log(connection: AsyncConnection[Any], policy: Policy | None, row: tuple[Any, ...]) -> Log:
    log, own, position, leaf, size, at, seconds, unsigned_s = row
    unsigned = round(max(0.0, unsigned_s or 0.0), 1) if position > (size or 0) else 0.0
    if size is None:
        return Log(log, own, position, leaf, None, 0, unsigned, 0.0)
    notes = await (await connection.execute(_NOTES, (log, _HEADS_LOOKED_AT))).fetchall()
    found = [(of, _witnesses(policy, bytes(note)), age) for of, note, age in notes]
    witnessed = next((of for of, names, _ in found if names is not None), 0)
    since = max((age for of, _, age in found if of > witnessed), default=0.0) if policy else 0.0
    head = Head(size, _utc(at), round(max(0.0, seconds), 1), found[0][1] or [])
    return Log(log, own, position, leaf, head, witnessed, unsigned, round(max(0.0, since), 1))


def _witnesses(policy: Policy | None, note: bytes) -> list[str] | None:
    """Who makes the quorum; None if it is not reached."""
    try:
        return sorted(policy.check(note).cosigned_s) if policy else None
    except NoteError:
        return None


def _owned(rows: Iterable[tuple[int, int, str, str | None, float | None]]) -> Iterator[Owned]:
    """By log and whom it was released to, in the order of the first partition."""
    found: dict[tuple[str, str | None], tuple[list[tuple[int, int, int]], list[float]]] = {}
    same: Callable[[tuple[int, tuple[Any, ...]]], Any] = lambda each: (each[1][0] - each[0], each[1][1:4])  # noqa: E731
    for (_, (epoch, log, to)), together in groupby(enumerate(rows), same):
        run = [row for _, row in together]
        ranges, ages = found.setdefault((log, to), ([], []))
        ranges.append((run[0][0], run[-1][0], epoch))
        ages += [age for *_, age in run if age is not None]
    for (log, to), (ranges, ages) in found.items():
        yield Owned(log, ranges, to, round(max(ages, default=0.0), 1) if to else None)


class _Said(msgspec.Struct):
    """What of a start is looked at."""

    service: str
    policies: dict[str, str]


class _Start(msgspec.Struct):
    data: _Said


def _residency(starts: Iterable[tuple[str, bytes]]) -> dict[str, str]:
    """By log, of its newest start of an API process. What is damaged is none."""
    found: dict[str, str] = {}
    for log, body in starts:
        with suppress(msgspec.MsgspecError, UnicodeDecodeError):
            said = msgspec.json.decode(body, type=_Start).data
            if said.service == "api":
                found.setdefault(log, said.policies.get("residency", ""))
    return found


def wanted(found: Standing) -> Iterator[Wanted]:
    """What of all this needs a person, the worst first."""
    yield from map(_of_halt, found.halts)
    for told in found.acknowledged:
        if told.alarm:
            yield Wanted(f"the copy in {told.region} differs from our log: {told.alarm}", _HALTED)
    if not found.may_write:
        why = "since PostgreSQL started it was not compared with what was signed, and with the other regions"
        yield Wanted(f"the log {found.region} is read-only: {f'{why}: {found.waits}' if found.waits else why}", _BACKUP)
    if own := found.own:
        yield from _of_heads(own)
    for copy in found.copies:
        yield from _of_copy(copy, found.region)
    yield from _of_the_rest(found)


def _of_the_rest(found: Standing) -> Iterator[Wanted]:
    for owned in found.owned:
        if owned.released_to and owned.seconds is not None and owned.seconds > UNADOPTED_S:
            released = f"released to {owned.released_to} {duration(owned.seconds)} ago"
            yield Wanted(f"{owned.number} partitions of {owned.log} were {released} and have no owner", "handover.md")
    for stop in found.stopped:
        what = f"the read model {stop.projection} has stopped in log {stop.log} at {stop.position:,}: {stop.reason}"
        yield Wanted(what, "rebuild-a-read-model.md")
    for keys in found.keys:
        if keys.refused:
            what = f"{keys.refused:,} data keys that {keys.log} made were asked for and not given"
            yield Wanted(what, "new-region.md")
    if len(set(found.residency.values())) > 1:
        what = f"{' and '.join(found.residency)} were started with other files of residency, founders or releases"
        yield Wanted(f"{what}: one registration that is said in both may become two players", "new-region.md")
    left = found.link_certificate_seconds
    if left is not None and left < CERTIFICATE_S:
        ends = f"expires in {duration(left)}" if left > 0 else f"expired {duration(-left)} ago"
        yield Wanted(f"the certificate of our links to other regions {ends}", "tls.md")


_HALTED, _BACKUP, _SPLIT = "handle-a-halted-copy.md", "restore-a-backup.md", "split-link.md"


def _of_halt(halt: Halt) -> Wanted:
    at = f" at {halt.position:,}" if halt.position is not None else ""
    said = f"log {halt.log} has halted{at} ({halt.role}, since {halt.since:%Y-%m-%d %H:%M:%SZ}): {halt.reason}"
    return Wanted(said, _BACKUP if halt.role == "checkpointer" else _HALTED)


def _of_heads(own: Log) -> Iterator[Wanted]:
    size = own.head.size if own.head else 0
    if own.unsigned_seconds > UNSIGNED_S:
        what = f"{own.position - size:,} entries of {own.log} were not signed for {duration(own.unsigned_seconds)}: does its checkpointer run?"
        yield Wanted(what, "verify-a-log.md")
    if own.unwitnessed_seconds > UNWITNESSED_S:
        what = f"no head of {own.log} beyond {own.witnessed:,} was witnessed for {duration(own.unwitnessed_seconds)}"
        yield Wanted(what, _SPLIT)


def _of_copy(copy: Lag, here: str) -> Iterator[Wanted]:
    whose = f"our copy of {copy.log}" if copy.region == here else f"the copy of our log in {copy.region}"
    other = copy.log if copy.region == here else copy.region
    if copy.state is State.UNKNOWN:
        since = "yet" if copy.heard_seconds is None else f"for {duration(copy.heard_seconds)}"
        yield Wanted(f"nothing was heard of {other} {since}: how far {whose} is behind is unknown", _SPLIT)
    elif copy.seconds is not None and copy.seconds > LAG_S and copy.state is State.BEHIND:
        yield Wanted(f"{whose} is {copy.entries:,} entries and {duration(copy.seconds)} behind", "corrupted-copy.md")


def duration(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"  # noqa: PLR2004 — tenths matter below


def _utc(when: datetime) -> datetime:
    return when.astimezone(UTC)
