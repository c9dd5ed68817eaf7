"""
The checkpointer: signs the tree head of the region's own log, at most once a second, and collects the witnesses' signatures.
It alone holds the log's key.

Before that, whenever PostgreSQL has started, it compares the log with what was signed and with every copy (`comparing`), and
only then clears it to be written.

Invariants:
    - a head is signed by a tree that only ever grew (`eventstore.signer`), and only if the log here has that root;
    - a witness's answer counts only if its signature verifies under the key that the policy names;
    - a head is published with whatever signatures have come: verifiers, not we, decide whether they are enough;
    - the newest published head is repeated: whoever hears none knows that they do not know how far the log goes (ADR 46);
    - a log that is not the one that was signed is neither signed nor cleared to be written.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import structlog
from structlog.typing import FilteringBoundLogger

from eventstore.heads import LogTree, keep_head
from eventstore.note import with_signatures
from eventstore.signer import Signer
from replication import store
from replication.asking import Peer, peer
from replication.comparing import Compared, Comparison, Signed, agree, newest_in
from replication.config import Config
from replication.errors import Forked, Interrupted
from replication.fetching import Refuted
from replication.link import Link, link
from replication.store import Announcements, Connection, Log
from replication.tasks import together, until_stopped
from replication.wire import decode_number
from replication.witness import BEHIND, DISPROVED, STATUS
from verifier.note import NoteError, verify_note
from verifier.policy import Policy, Witness
from verifier.witness import format_request

if TYPE_CHECKING:
    from httpx2 import AsyncClient

INTERVAL_S = 1.0
REPEAT_S = 2.0
_GATHERING_S = 0.9  # a witness whose copy lags is asked again within this
_AGAIN_S = 0.1
_AGAIN_MAX_S = 30.0  # between two offers of a head that stays the newest
_OK, _CONFLICT = 200, 409
_HTTP_TIMEOUT_S = 5.0
_ANSWER_BYTES_MAX = 1 << 16


class Heads(NamedTuple):
    """What the checkpointer works with: the signer, the witnesses' keys, and who of them is which region."""

    signer: Signer
    policy: Policy
    peers: Sequence[str]


def witness_name(config: Config, region: str) -> str:
    """The name in a region's witness key."""
    return f"{config.origin(region)}/witness"


async def run_checkpointer(config: Config, heads: Heads, stop: asyncio.Event) -> None:
    """Compare, then sign and collect, until `stop`. Survives the loss of its servers, and says so in the log."""
    logger = structlog.get_logger("replication.checkpointer").bind(log=config.region)

    comparison = Comparison()

    async def session() -> None:
        async with contextlib.AsyncExitStack() as stack:
            own = await stack.enter_async_context(link(config, config.region, f"checkpointer-{config.region}", logger))
            peers = [await stack.enter_async_context(peer(own, region)) for region in heads.peers]
            connection = await stack.enter_async_context(await store.connect(config, store.HEADS_ROLE))
            listening = await stack.enter_async_context(await store.connect(config, store.HEADS_ROLE))
            log = await store.find_log(connection, config, config.region)
            await store.be_the_only(connection, "checkpointer", log)
            wake = asyncio.Event()
            announcements = Announcements(listening, log, wake)
            witnesses = _regions(config, heads.policy, peers)
            if addressed := _addressed(config, heads.policy, peers):
                from httpx2 import AsyncClient  # noqa: PLC0415 - it takes long, and most deployments on one machine need none

                client = await stack.enter_async_context(AsyncClient(timeout=_HTTP_TIMEOUT_S))
                witnesses += [_over_http(each, url, client) for each, url in addressed]
            checkpointer = _Checkpointer(own, connection, log, heads.signer, witnesses, logger)
            await together(own.until_closed(), announcements.run(), checkpointer.run(comparison, peers, wake))

    await until_stopped(stop, session, logger)


class _Reply(NamedTuple):
    status: int
    body: bytes


class _Cosigner:
    """A witness as it is asked: what it signs with, and from which size on it wants to be told."""

    def __init__(self, witness: Witness, ask: Callable[[bytes], Awaitable[_Reply]]) -> None:
        """`ask` raises Interrupted when no answer comes."""
        self.name = witness.name
        self.key = witness.key
        self.size = 0
        self.ask = ask


def _over_nats(witness: Witness, asked: Peer) -> _Cosigner:
    async def ask(request: bytes) -> _Reply:
        answer = await asked.ask("add-checkpoint", request)
        status = decode_number(answer.headers.get(STATUS, ""))
        if status is None:
            raise Interrupted(f"{witness.name} answers without a status")
        return _Reply(status, answer.data)

    return _Cosigner(witness, ask)


def _over_http(witness: Witness, url: str, client: "AsyncClient") -> _Cosigner:
    from httpx2 import HTTPError  # noqa: PLC0415 - as below

    async def ask(request: bytes) -> _Reply:
        try:
            answer = await client.post(url.rstrip("/") + "/add-checkpoint", content=request)
        except HTTPError as error:
            raise Interrupted(f"{witness.name} does not answer: {error!r}") from error
        return _Reply(answer.status_code, answer.content[:_ANSWER_BYTES_MAX])

    return _Cosigner(witness, ask)


def _regions(config: Config, policy: Policy, peers: Sequence[Peer]) -> list[_Cosigner]:
    """The regions among the policy's witnesses."""
    by_name = {witness_name(config, each.region): each for each in peers}
    return [_over_nats(each, by_name[each.key.name]) for each in policy.witnesses if each.key.name in by_name]


def _addressed(config: Config, policy: Policy, peers: Sequence[Peer]) -> list[tuple[Witness, str]]:
    """The policy's other witnesses that have an address."""
    regions = {witness_name(config, each.region) for each in peers}
    return [(each, each.url) for each in policy.witnesses if each.url is not None and each.key.name not in regions]


def _in_words(compared: Compared, without: Mapping[str, str]) -> str:
    """Why a log may be written."""
    words = [f"compared with {', '.join(compared.regions) or 'no other region: there is none'}"]
    if compared.fetched:
        words.append(f"{compared.fetched} entries fetched back")
    for region in compared.silent:
        by = f", by {without[region]}" if region in without else ": the log has not gone back"
        words.append(f"{region} was not waited for{by}")
    return "; ".join(words)


class _Checkpointer:
    def __init__(
        self,
        own: Link,
        connection: Connection,
        log: Log,
        signer: Signer,
        witnesses: Sequence[_Cosigner],
        logger: FilteringBoundLogger,
    ) -> None:
        self._link = own
        self._connection = connection
        self._log = log
        self._signer = signer
        self._witnesses = witnesses
        self._logger = logger
        self._tree = LogTree(connection, log.id)
        self._proving = asyncio.Lock()
        self._proofs: dict[tuple[int, int], list[bytes]] = {}
        self._alarmed: set[str] = set()
        self._published = b""

    async def run(self, comparison: Comparison, peers: Sequence[Peer], wake: asyncio.Event) -> None:
        if reason := await store.halted(self._connection, "checkpointer", self._log):
            self._logger.error("halted until an operator clears it (replication.clear_halt)", reason=reason)
            await store.until_cleared(self._connection, "checkpointer", self._log)
        try:
            await self._compare(comparison, peers)
            await store.report_running(self._connection, "checkpointer", self._log)
            await self._sign_for_ever(wake)
        except Refuted as refuted:
            await self._halt(refuted)
        except Interrupted as waiting:
            if not await store.may_write(self._connection, self._log):
                await store.report_waiting(self._connection, "checkpointer", self._log, str(waiting))
            raise

    async def _halt(self, refuted: Refuted) -> None:
        why = refuted.why
        await store.halt(self._connection, "checkpointer", self._log, why, None, refuted.data)
        self._logger.error("halted: this is not the log that we signed", position=why.position, reason=str(why))

    async def _compare(self, comparison: Comparison, peers: Sequence[Peer]) -> None:
        """Raises Refuted, Interrupted."""
        connection, log = self._connection, self._log
        if not await store.may_write(connection, log):
            without = await store.excused(connection, log)
            stream = await newest_in(self._link, connection, log)
            why = _in_words(await comparison.compare(connection, log, self._signed, stream, peers, without), without)
            await store.clear_to_write(self._connection, self._log, why)
            self._logger.info("the log may be written", why=why)
        await agree(self._connection, self._log, self._signed)

    @property
    def _signed(self) -> Signed:
        return Signed(self._signer.size, self._signer.root)

    async def _sign_for_ever(self, wake: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        again_at, pause, repeat_at = 0.0, INTERVAL_S, 0.0
        while True:
            began = loop.time()
            wake.clear()
            size = await self._tree.extend()
            if size > self._signer.size:
                await self._sign(size)
                again_at, pause = loop.time(), INTERVAL_S
            elif self._wanting(size) and loop.time() >= again_at:
                await self._publish(size, await asyncio.to_thread(self._signer.sign))
                pause = min(2 * pause, _AGAIN_MAX_S)
                again_at = loop.time() + pause
            if loop.time() >= repeat_at:
                await self._repeat()
                repeat_at = loop.time() + REPEAT_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_S):
                    await wake.wait()
            await asyncio.sleep(began + INTERVAL_S - loop.time())

    def _wanting(self, size: int) -> bool:
        """Whether a witness has not signed the newest head. (Older ones are not offered: its time would come too late.)"""
        return size > 0 and any(witness.size != size for witness in self._witnesses)

    async def _sign(self, size: int) -> None:
        """Sign the head, and publish it with what witnesses give for it. Raises Refuted."""
        await agree(self._connection, self._log, self._signed)
        async for leaves in self._tree.leaves(self._signer.size, size):
            self._signer.extend(leaves)
        root = self._signer.root
        if root != await self._tree.root(size):
            raise Refuted(Forked(f"the tree that was signed does not grow into that of size {size}", size), None, root)
        note = await asyncio.to_thread(self._signer.sign)
        await self._keep(size, root, note, published=False)
        await self._publish(size, note)

    async def _publish(self, size: int, note: bytes) -> None:
        async for line in self._cosignatures(size, note):
            note = with_signatures(note, [line])
        await self._keep(size, self._signer.root, note, published=True)
        await self._link.publish(self._link.realm.newest_head, note)
        self._published = note

    async def _repeat(self) -> None:
        """Publish the newest head again; after a start, when no witness is waited for, sign it once more."""
        if self._published:
            await self._link.publish(self._link.realm.newest_head, self._published)
        elif self._signer.size:
            await self._publish(self._signer.size, await asyncio.to_thread(self._signer.sign))

    async def _keep(self, size: int, root: bytes, note: bytes, *, published: bool) -> None:
        await keep_head(self._connection, self._log.id, size, root, note, published=published)

    async def _cosignatures(self, size: int, note: bytes) -> AsyncIterator[str]:
        """Signature lines, each verified, of those witnesses that give one in time."""
        until = asyncio.get_running_loop().time() + _GATHERING_S
        asked = [asyncio.create_task(self._cosignature(each, size, note, until)) for each in self._witnesses]
        try:
            for answered in asyncio.as_completed(asked):
                if (line := await answered) is not None:
                    yield line
        finally:
            for task in asked:
                task.cancel()

    async def _cosignature(self, witness: _Cosigner, size: int, note: bytes, until: float) -> str | None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                reply = await self._asked(witness, size, note)
            except Interrupted as error:
                self._logger.warning("no cosignature", witness=witness.name, reason=str(error))
                return None
            if reply.status == _OK:
                witness.size = size
                return self._verified(witness, note, reply.body)
            known = decode_number(reply.body.decode(errors="replace").strip()) if reply.status == _CONFLICT else None
            if known is not None and known != witness.size:
                witness.size = known
                if witness.size <= size:
                    continue
                await self._alarm(witness, f"has cosigned a head of size {witness.size}, beyond ours of {size}", note)
                return None
            if reply.status != BEHIND:
                said = f"refuses our head of size {size} with {reply.status}: {reply.body[:200].decode(errors='replace').strip()}"
                self._logger.error("no cosignature", witness=witness.name, reason=said)
                if reply.status in {_CONFLICT, DISPROVED}:
                    await self._alarm(witness, said, note)
                return None
            if loop.time() + _AGAIN_S > until:
                return None
            await asyncio.sleep(_AGAIN_S)

    async def _asked(self, witness: _Cosigner, size: int, note: bytes) -> _Reply:
        proof = await self._proof(witness.size, size)
        return await witness.ask(format_request(witness.size, proof, note))

    async def _proof(self, old: int, size: int) -> list[bytes]:
        """That the tree of `size` begins with that of `old`. Witnesses that stand at the same size share it."""
        if not 0 < old < size:
            return []
        async with self._proving:
            if (old, size) not in self._proofs:
                self._proofs = {key: proof for key, proof in self._proofs.items() if key[1] == size}
                self._proofs[old, size] = await self._tree.consistency_proof(old, size)
            return self._proofs[old, size]

    def _verified(self, witness: _Cosigner, note: bytes, body: bytes) -> str | None:
        """The line among those that the witness gave that it signed; None if there is none."""
        text, _, _ = note.decode().rpartition("\n\n")
        for line in body.decode(errors="replace").splitlines(keepends=True):
            with contextlib.suppress(NoteError):
                verify_note(f"{text}\n\n{line}".encode(), [witness.key])
                return line
        self._logger.error("no cosignature", witness=witness.name, reason="it is not signed with the policy's key")
        return None

    async def _alarm(self, witness: _Cosigner, said: str, note: bytes) -> None:
        """A witness that knows another tree of ours: one of the two histories is false."""
        if witness.name in self._alarmed:
            return
        self._alarmed.add(witness.name)
        why = Forked(f"the witness {witness.name} {said}")
        await store.halt(self._connection, "checkpointer", self._log, why, None, note)
