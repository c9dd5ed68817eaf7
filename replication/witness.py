"""
The witness: this region's signature under another region's tree heads, given only for what its own verified copy holds.

It answers the origin over NATS with the C2SP tlog-witness protocol, whose status codes it keeps, and gives back to an origin
that has lost entries what the copy has of them. Beside that it keeps the origin's published heads for its own readers, and
which head it has heard of at all, by which the copy's lag is told (ADR 46).

Invariants:
    - a head is cosigned only if the copy here has that root at that size: 503 while the copy is behind;
    - nothing smaller than, or inconsistent with, what was cosigned before is ever cosigned (`verifier.witness`);
    - two heads that disagree, or a head that the copy disproves, are kept as evidence, and raise an alarm.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import structlog
from nats.aio.msg import Msg
from structlog.typing import FilteringBoundLogger

from eventstore.heads import HeadConflict, LogTree, keep_head
from eventstore.note import SigningKey, with_signatures
from replication import store
from replication.asking import Answer, serve
from replication.config import Config
from replication.errors import Forked, FrameError, Interrupted
from replication.frame import encode
from replication.link import Link, link
from replication.store import Connection, Log
from replication.tail import one_frame
from replication.tasks import together, until_stopped
from replication.wire import (
    ERROR_CODE,
    ERROR_TEXT,
    RANGE_EMPTY,
    RANGE_REFUSED,
    Ack,
    decode_position,
    decode_range,
    encode_ack,
)
from verifier import witness as protocol
from verifier.note import NoteError, VerifierKey, parse_checkpoint, verify_note

STATUS = "Witness-Status"
BEHIND = 503
DISPROVED = 422
_LOOK_INTERVAL_S = 0.5
_HEAR_AGAIN_S = 1.0


class Keys(NamedTuple):
    """The witness's own key, the folder of what it has cosigned, and the keys by which logs sign."""

    own: SigningKey
    folder: Path
    logs: tuple[VerifierKey, ...]


async def run_witness(config: Config, origin: str, keys: Keys, stop: asyncio.Event) -> None:
    """Witness the log of the region `origin` until `stop`. Survives the loss of its servers, and says so in the log."""
    logger = structlog.get_logger("replication.witness").bind(log=origin, region=config.region)

    async def session() -> None:
        async with (
            link(config, origin, f"witness-{config.region}", logger) as realm,
            await store.connect(config, store.HEADS_ROLE) as connection,
        ):
            log = await store.find_log(connection, config, origin)
            await store.be_the_only(connection, "witness", log)
            witness = RegionWitness(connection, log, keys, logger)
            await store.report_running(connection, "witness", log)
            verbs = {"head": witness.head, "range": witness.range, "add-checkpoint": witness.add_checkpoint}
            await together(realm.until_closed(), serve(realm, config.region, verbs), witness.keep_published(realm))

    await until_stopped(stop, session, logger)


class _Head(NamedTuple):
    """A head that the log has signed, with its whole note."""

    size: int
    root: bytes
    note: bytes


class _Alarm(NamedTuple):
    """Why two views of the log cannot both be true, and the notes that show it."""

    why: str
    notes: bytes


class RegionWitness:
    """The witness of one log, with a connection that it shares with nobody."""

    def __init__(self, connection: Connection, log: Log, keys: Keys, logger: FilteringBoundLogger) -> None:
        self._connection = connection
        self._log = log
        self._keys = tuple(key for key in keys.logs if key.name == log.origin)
        self._logger = logger
        self._tree = LogTree(connection, log.id)
        self._one_at_a_time = asyncio.Lock()
        self._alarms: list[_Alarm] = []
        self._alarmed: set[str] = set()
        self._heard_size, self._heard_at_s = 0, 0.0
        record = protocol.FileStore(keys.folder)

        def disagree(evidence: protocol.Evidence) -> None:
            record.keep(evidence)
            self._alarms.append(_Alarm(evidence.why, evidence.kept + b"\n" + evidence.shown))

        self._witness = protocol.Witness(
            keys.own.name, keys.own.key, self._keys, record, now_s=lambda: int(time.time()), evidence=disagree
        )

    async def head(self, request: bytes) -> Answer:
        """How far the copy goes, and with which leaf; or which one it has at the position that was named, if it goes so far."""
        named = decode_position(request)
        async with self._one_at_a_time:
            head = await store.head(self._connection, self._log)
            if named is not None and named < head.position:
                [leaf] = await store.leaves(self._connection, self._log, range(named, named + 1))
                return Answer(encode_ack(Ack(named, leaf.hex())), {})
        return Answer(encode_ack(Ack(head.position, head.leaf.hex())), {})

    async def range(self, request: bytes) -> Answer:
        """Entries of the copy, as a frame."""
        try:
            first, last = decode_range(request)
            async with self._one_at_a_time:
                frame = await one_frame(self._connection, self._log, first, last)
        except (FrameError, Interrupted) as error:
            return Answer(b"", {ERROR_CODE: RANGE_REFUSED, ERROR_TEXT: str(error)})
        if frame is None:
            return Answer(b"", {ERROR_CODE: RANGE_EMPTY, ERROR_TEXT: f"the copy ends before {first}"})
        return Answer(encode(frame), {})

    async def add_checkpoint(self, request: bytes) -> Answer:
        """C2SP tlog-witness, "add-checkpoint", with its status in a header."""
        async with self._one_at_a_time:
            answer = await self._add_checkpoint(request)
            await self._keep_evidence()
        return Answer(answer.body, {STATUS: str(answer.status), "Content-Type": answer.content_type})

    async def _add_checkpoint(self, request: bytes) -> protocol.Answer:
        judged = await asyncio.to_thread(self._witness.judge, request)
        if isinstance(judged, protocol.Answer):
            return judged
        size, root = judged.checkpoint.size, judged.checkpoint.root
        await self._hear(size, judged.note)
        if size > (here := await self._tree.extend()):
            return protocol.Answer(BEHIND, f"the copy ends at {here}\n".encode())
        if root != await self._tree.root(size):
            return protocol.Answer(DISPROVED, self._disproved(size, judged.note).encode() + b"\n")
        answer = await asyncio.to_thread(self._witness.cosign, judged)
        if answer.status == 200:  # noqa: PLR2004 - OK
            note = with_signatures(judged.note, answer.body.decode().splitlines(keepends=True))
            await self._keep_head(size, root, note, published=False)
        return answer

    async def keep_published(self, realm: Link) -> None:
        """Keep the newest head that the origin publishes as soon as the copy has got there, for ever. The origin repeats it."""
        newest: list[bytes] = []
        waiting: _Head | None = None
        kept: _Head | None = None
        wake = asyncio.Event()

        async def receive(message: Msg) -> None:
            newest[:] = [message.data]
            wake.set()

        subscription = await realm.client.subscribe(realm.realm.newest_head, cb=receive)
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_INTERVAL_S if waiting else None):
                        await wake.wait()
                wake.clear()
                if newest and (head := await self._heard(newest.pop())) and head != kept:
                    waiting = head
                if waiting and await self._publish(waiting):
                    kept, waiting = waiting, None
        finally:
            if not realm.client.is_closed:
                await subscription.unsubscribe()

    async def _heard(self, note: bytes) -> _Head | None:
        """Keep how large a published head is, although the copy may not have come so far. None if it is no head."""
        try:
            size, root = _checkpoint_of(self._log, note, self._keys)
        except NoteError as error:
            self._logger.warning("a head that is none was published", reason=str(error))
            return None
        async with self._one_at_a_time:
            await self._hear(size, note)
        return _Head(size, root, note)

    async def _hear(self, size: int, note: bytes) -> None:
        """Once a second of the same: an origin offers a head again and again while the copy is behind."""
        now = time.monotonic()
        if size != self._heard_size or now >= self._heard_at_s + _HEAR_AGAIN_S:
            await store.hear(self._connection, self._log, size, note)
            self._heard_size, self._heard_at_s = size, now

    async def _publish(self, head: _Head) -> bool:
        """Whether nothing more is to be done about a published head."""
        size, root, note = head
        async with self._one_at_a_time:
            if size > await self._tree.extend():
                return False
            if root == await self._tree.root(size):
                await self._keep_head(size, root, note, published=True)
            else:
                self._disproved(size, note)
            await self._keep_evidence()
        return True

    async def _keep_head(self, size: int, root: bytes, note: bytes, *, published: bool) -> None:
        try:
            await keep_head(self._connection, self._log.id, size, root, note, published=published)
        except HeadConflict as conflict:
            self._alarms.append(_Alarm(str(conflict), note))

    def _disproved(self, size: int, note: bytes) -> str:
        why = f"the verified copy here has another root at size {size} than a head that the log signed"
        self._alarms.append(_Alarm(why, note))
        return why

    async def _keep_evidence(self) -> None:
        """The alarm: a log with evidence that nobody has cleared makes `countroom status` fail."""
        for why, notes in self._alarms:
            if why in self._alarmed:
                continue  # an origin asks every second
            self._alarmed.add(why)
            await store.halt(self._connection, "witness", self._log, Forked(f"split view: {why}"), None, notes)
            self._logger.error("a split view of the log", reason=why)
        self._alarms.clear()


def _checkpoint_of(log: Log, note: bytes, keys: Iterable[VerifierKey]) -> tuple[int, bytes]:
    """Size and root of a head that the log has signed. Raises NoteError."""
    opened = verify_note(note, keys)
    checkpoint = parse_checkpoint(opened.text)
    if checkpoint.origin != log.origin:
        raise NoteError("it is about another log")
    return checkpoint.size, checkpoint.root
