"""
What a region holds of others' logs, for a third region that cannot reach the origin: entries of the copy, and the witnessed heads
that vouch for them.

A copy is not its origin: whoever holds it could make up what follows. So entries are taken from it only up to a head that the log's
own key has signed and a quorum of the policy's witnesses has cosigned: first the leaves, 32 bytes for each entry, which together
with what is held already must have the head's root, or that of a tree with which the head's is proven to begin; then the entries,
whose leaves must be these.

Invariants:
    - nothing is committed that a witnessed head does not vouch for;
    - nobody but us decides how much of it waits in memory: the leaves of STRETCH entries at most, however far the head is.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from nats.aio.msg import Msg
from structlog.typing import FilteringBoundLogger

from eventstore.heads import LogTree
from eventstore.tree import HASH_BYTES
from replication import ranges, store
from replication.config import Config
from replication.errors import Forked, FrameError, Interrupted
from replication.fetching import Piece, Range, Refuted
from replication.link import Link, link
from replication.ranges import Reply
from replication.store import Connection, Log
from replication.wire import (
    ERROR_CODE,
    ERROR_TEXT,
    RANGE_EMPTY,
    STRETCH_END,
    decode_number,
    decode_position,
    decode_range,
    encode_position,
    encode_range,
    region_of,
)
from verifier.merkle import ProofError, verify_consistency
from verifier.note import NoteError
from verifier.policy import Policy

STRETCH = 100_000
LEAVES_MAX = 16_000  # in an answer: 512 KB
_JUDGED_MAX = 1_000  # heads, for one question: whoever asks again is told of those beyond


class Others(NamedTuple):
    """The regions that may hold a copy, and whose signatures vouch for what they give."""

    regions: Sequence[str]
    policy: Policy | None


NOBODY = Others((), None)


async def serve(
    own: Link, connection: Connection, config: Config, policy: Policy | None, logger: FilteringBoundLogger
) -> None:
    """Answer for the copies held here, for ever. Without a policy any published head is given for a witnessed one."""
    known: dict[str, Log] = {}
    judging = _Judging(policy)

    async def answer(request: Msg) -> Reply:
        *_, name, verb = request.subject.split(".")
        if name not in known:
            known[name] = await store.find_log(connection, config, region_of(name))
        log = known[name]
        match verb:
            case "range":
                return await ranges.answer(connection, log, request.data)
            case "leaves":
                first, last = decode_range(request.data)
                leaves = await store.leaves(connection, log, range(first, min(last + 1, first + LEAVES_MAX)))
                return b"".join(leaves), {}
            case "head":
                return await _head(connection, log, judging, request.data)
            case "proof":
                return await _proof(connection, log, request.data)
        raise FrameError(f"nobody answers for {verb}")

    await ranges.answer_each(own, own.realm.copies, answer, logger)


class _Judging:
    """Which notes a policy accepts; each is judged once, as long as nobody has signed it further."""

    def __init__(self, policy: Policy | None) -> None:
        self._policy = policy
        self._refused: set[int] = set()
        self._left = 0

    def begin(self) -> None:
        """Another question."""
        self._left = _JUDGED_MAX

    @property
    def may_go_on(self) -> bool:
        return self._left > 0

    def accepts(self, note: bytes) -> bool:
        if self._policy is None:
            return True
        if (known := hash(note)) in self._refused:
            return False
        self._left -= 1
        if self._policy.accepts(note):
            return True
        self._refused.add(known)
        return False


async def _head(connection: Connection, log: Log, judging: _Judging, request: bytes) -> Reply:
    """A head is published with whatever signatures have come: those that lack some are passed over."""
    after = decode_position(request)
    if after is None:
        raise FrameError("a head is asked for beyond a position")
    judging.begin()
    async with contextlib.aclosing(store.published_heads(connection, log, after, STRETCH)) as published:
        async for note, size in published:
            if not judging.may_go_on:
                break
            if not judging.accepts(note):
                continue
            if size <= after + STRETCH:
                return note, {}
            return note, {STRETCH_END: str(await store.end_of_command(connection, log, after + STRETCH))}
    return b"", {ERROR_CODE: RANGE_EMPTY, ERROR_TEXT: f"no head beyond {after} was witnessed"}


async def _proof(connection: Connection, log: Log, request: bytes) -> Reply:
    """That the tree of the second size begins with that of the first."""
    first, second = decode_range(request)
    try:
        return b"".join(await LogTree(connection, log.id).consistency_proof(first, second)), {}
    except LookupError as error:
        raise FrameError(f"the copy ends before {second}") from error


class Vouched(NamedTuple):
    """The leaves of the positions from `first` to `size`, and the note that vouches for them, and perhaps for what follows."""

    first: int
    size: int
    leaves: Sequence[bytes]
    note: bytes

    def demand(self, piece: Piece) -> None:
        """Raises Refuted unless these are the entries."""
        frame = piece.frame
        start = frame.first - self.first
        if list(frame.leaves) != self.leaves[start : start + len(frame)]:
            text = f"the entries from {frame.first} on are not those that the head of size {self.size} vouches for"
            raise Refuted(Forked(text, frame.first), None, piece.data)


class Holder:
    """Another region, as it is asked about the copy of a log that it holds. Made by `asking`."""

    def __init__(self, realm: Link, log: Log, policy: Policy) -> None:
        self._link = realm
        self._log = log
        self._policy = policy

    async def fetch(self, first: int, last: int) -> Range | None:
        """Raises Interrupted."""
        found = await ranges.ask(self._link, self._subject("range"), encode_range(first, last))
        return None if found is None else Range(found.data, ranges.end(found))

    async def vouched(self, connection: Connection, held: int) -> Vouched | None:
        """
        The next stretch after the `held` entries of our copy that a witnessed head vouches for; None if there is none.

        Raises Refuted when the leaves there do not lead from our copy to the head; Interrupted, also for more than STRETCH entries.
        """
        found = await ranges.ask(self._link, self._subject("head"), encode_position(held))
        if found is None:
            return None
        size, root = self._checked(found.data)
        if size <= held:
            return None
        said = (found.headers or {}).get(STRETCH_END, str(size))
        end = decode_number(said) or 0
        if not held < end <= min(size, held + STRETCH):
            raise Interrupted(f"a stretch up to {said} cannot be asked for after {held}, towards a head of size {size}")
        leaves = await self._leaves(held + 1, end)
        tree = await LogTree(connection, self._log.id).prefix(held)
        tree.extend(leaves)
        try:
            verify_consistency(end, size, tree.root(), root, await self._proof(end, size))
        except ProofError as error:
            text = (
                f"the leaves from {held + 1} on do not lead to the root of the witnessed head of size {size}: {error}"
            )
            raise Refuted(Forked(text, held + 1), None, found.data) from error
        return Vouched(held + 1, end, leaves, found.data)

    async def _proof(self, end: int, size: int) -> list[bytes]:
        if end == size:
            return []
        found = await ranges.ask(self._link, self._subject("proof"), encode_range(end, size))
        return [] if found is None else _hashes(found.data)

    async def _leaves(self, first: int, last: int) -> list[bytes]:
        leaves: list[bytes] = []
        while (due := first + len(leaves)) <= last:
            found = await ranges.ask(self._link, self._subject("leaves"), encode_range(due, last))
            data = b"" if found is None else found.data
            if not data or len(data) % HASH_BYTES or len(data) // HASH_BYTES > last - due + 1:
                raise Interrupted(f"{len(data)} bytes are no leaves of the positions {due} to {last}")
            leaves += _hashes(data)
        return leaves

    def _checked(self, note: bytes) -> tuple[int, bytes]:
        """Size and root of a head. Raises Refuted unless the log and a quorum have signed it."""
        try:
            checkpoint = self._policy.check(note).checkpoint
        except NoteError as error:
            raise Refuted(Forked(f"no witnessed head: {error}"), None, note) from error
        if checkpoint.origin != self._log.origin:
            raise Refuted(Forked(f"a head of {checkpoint.origin} was given for one of {self._log.origin}"), None, note)
        return checkpoint.size, checkpoint.root

    def _subject(self, verb: str) -> str:
        return self._link.realm.copy(self._log.name, verb)


def _hashes(data: bytes) -> list[bytes]:
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]


@contextlib.asynccontextmanager
async def asking(
    config: Config, region: str, log: Log, policy: Policy, logger: FilteringBoundLogger
) -> AsyncIterator[Holder]:
    """A region to ask, over our link into its realm."""
    async with link(config, region, f"catching-up-{config.region}", logger) as realm:
        yield Holder(realm, log, policy)
