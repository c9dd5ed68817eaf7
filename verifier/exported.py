"""
Checks what an export holds of a log: all of it, a range of it, or chosen entries.

Of a whole log all is checked that `verifier.log` checks. Of a part it is: that each entry leads, by hashes, to the root of
the checkpoint; that neighbours follow from one another, and times rise; the form of what each entry says; that versions of
streams have no gaps; and who signed the checkpoint.

What a part cannot show: what stands before, between and behind its entries, and hence that a stream goes on no further than
the manifest says, or that the keeper chose everything that there was to choose.

Invariant: an entry is counted as found in order only when its hashes have led to the root.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from hashlib import sha256

from verifier import ijson, signed
from verifier.body import check_stream, region_of
from verifier.book import KEY_ROTATED
from verifier.export import ExportAltered, ExportedLog, Kind
from verifier.faults import Broken, CouldNotCheck, Fault, Found, Reason, quoted
from verifier.known import WithKnown
from verifier.log import HEADER_BYTES, Report, Taken, genesis, split_entry, verify
from verifier.merkle import ProofError, verify_inclusion
from verifier.policy import Policy
from verifier.quick import BodyReader
from verifier.sheet import Pages
from verifier.signed import PLAUSIBLE_US, Rotation, Signed, Trust
from verifier.terms import OPENED, TAGS, Said, check_form
from verifier.tiled import Folder
from verifier.tiles import NOTHING_THERE, TileError, TileReader

PROGRESS_EVERY = 4096  # entries


def verify_whole(
    log: ExportedLog,
    pages: Pages,
    policy: Policy | None,
    keys: str | None,
    ends: Iterable[int],
    workers: int,
    progress: Callable[[int], None],
    known: Mapping[int, bytes],
) -> Report:
    """Raises CouldNotCheck."""
    pages = WithKnown(pages, known) if known else pages
    report = verify(
        pages, policy, origin=log.origin, head=(log.size, None), ends=ends, workers=workers, progress=progress
    )
    return replace(report, taken=_taken(log, keys))


def verify_part(
    log: ExportedLog,
    policy: Policy | None,
    keys: str | None,
    ends: Iterable[int],
    progress: Callable[[int], None],
    *,
    whole_streams: bool,
) -> Report:
    """`whole_streams`: the entries were not chosen by their types, so that versions have no gaps. Raises CouldNotCheck."""
    chain = _Chain(log, whole_streams=whole_streams)
    leaves: dict[int, bytes] = {}
    wanted = set(ends)
    faults: list[Fault] = []
    try:
        for position, entry in _proved(log) if log.kind is Kind.SELECTION else _in_tiles(log):
            chain.follow(position, entry)
            if position in wanted:
                leaves[position] = chain.leaf
            if not chain.entries % PROGRESS_EVERY:
                progress(position)
        chain.close()
    except Found as found:
        faults.append(found.fault)
    progress(log.last)
    seen = _judge(log, policy, chain)
    faults += seen.faults
    return Report(
        log=log.name,
        origin=log.origin,
        position=chain.position,
        leaf=chain.leaf.hex(),
        entries=chain.entries,
        intact=not faults,
        fault=min(faults, key=lambda fault: fault.order, default=None),
        not_counted=0,
        recorded_first_us=chain.recorded_first,
        recorded_last_us=chain.recorded if chain.entries else None,
        signed=seen,
        trusted=policy is not None,
        leaves=leaves,
        taken=_taken(log, keys),
        said=tuple(chain.said),
    )


def _taken(log: ExportedLog, keys: str | None) -> Taken:
    return Taken(log.kind.value, log.first, log.last, log.size, keys)


def _in_tiles(log: ExportedLog) -> Iterator[tuple[int, bytes]]:
    """The entries of a range, each found in the tree. Raises Found, CouldNotCheck."""
    position = log.first - 1
    try:
        reader = TileReader(Folder(log.folder), log.size, log.root)
        for position, entry in enumerate(reader.entries(log.first - 1, log.last), log.first):
            yield position, entry
    except TileError as error:
        raise Found(Fault(position + 1, Reason.TILE_DIFFERS, str(error))) from None
    except NOTHING_THERE as missing:
        raise CouldNotCheck(f"log {log.name} lacks a tile: {quoted(str(missing))}") from None


def _proved(log: ExportedLog) -> Iterator[tuple[int, bytes]]:
    """The entries of a selection, once they are proved: a run of neighbours by its last one. Raises Found, CouldNotCheck."""
    run: list[tuple[int, bytes]] = []
    after = log.first - 1
    try:
        for position, entry, proof in log.lines():
            if not after < position <= log.last or (run and position != after + 1):
                said = f"position {position} follows upon {after}" + (", which is not proved" if run else "")
                raise Found(Fault(after + 1, Reason.PROOF_FALSE, said))
            leaf = sha256(b"\x00" + entry).digest()
            _check_link(run, position, entry)
            run.append((position, entry))
            after = position
            if proof is not None:
                verify_inclusion(position - 1, log.size, leaf, proof, log.root)
                yield from run
                run = []
    except ProofError as error:
        raise Found(Fault(after, Reason.PROOF_FALSE, f"the entry is not proved: {error}")) from None
    except ExportAltered as error:
        raise Found(Fault(after + 1, Reason.PROOF_FALSE, str(error))) from None
    if run:
        raise Found(Fault(after, Reason.PROOF_FALSE, "the entry is not proved, and none follows that would prove it"))


def _check_link(run: list[tuple[int, bytes]], position: int, entry: bytes) -> None:
    if run and entry[:32] != sha256(b"\x00" + run[-1][1]).digest():
        said = f"the entry was not made to follow the one at position {position - 1}, which it is to prove"
        raise Found(Fault(position, Reason.PREV_LEAF_MISMATCH, said))


class _Chain:
    """Entries of a log that rise, though perhaps with gaps, as far as they were found in order."""

    def __init__(self, log: ExportedLog, *, whole_streams: bool) -> None:
        self._log = log
        self._region = region_of(log.origin) or ""
        self._streams = log.streams if log.kind is Kind.SELECTION else None
        self._all = log.kind is Kind.RANGE
        self._whole_streams = whole_streams
        self._versions: dict[tuple[str, int | None], int] = {}
        self._bodies = BodyReader()
        self.position, self.leaf, self.recorded = 0, genesis(log.origin), -1
        self.recorded_first: int | None = None
        self.entries = 0
        self.rotations: list[Rotation] = []
        self.said: list[Said] = []

    def follow(self, position: int, entry: bytes) -> None:
        """Raises Found."""
        try:
            self._follow(position, entry)
        except Broken as broken:
            raise Found(Fault(position, broken.reason, broken.detail)) from None

    def _follow(self, position: int, entry: bytes) -> None:
        if len(entry) < HEADER_BYTES:
            raise Broken(Reason.ENTRY_TOO_SHORT, f"the entry has {len(entry)} bytes, of at least {HEADER_BYTES}")
        prev_leaf, stated, recorded, body = split_entry(entry)
        if stated != position:
            raise Broken(Reason.POSITION_MISMATCH, f"the entry was made for position {stated}")
        if position == self.position + 1 and prev_leaf != self.leaf:
            said = f"the entry was made to follow leaf {prev_leaf.hex()}, but follows {self.leaf.hex()}"
            raise Broken(Reason.PREV_LEAF_MISMATCH, said)
        if recorded <= self.recorded:
            said = f"the entry was recorded at {recorded} microseconds, but an earlier one at {self.recorded}"
            raise Broken(Reason.RECORDED_NOT_INCREASING, said)
        stream, version, tag, partition, epoch, *_ = self._bodies.read(body)
        check_stream(stream, partition, epoch, self._region)
        self._check_version(stream, version, epoch)
        if tag == KEY_ROTATED:
            self.rotations.append(Rotation(position, stream, ijson.read(body)["data"]))
        elif tag in TAGS:
            data = ijson.read(body)["data"]
            if tag != OPENED:
                check_form(tag, data)
            self.said.append(Said(position, sha256(b"\x00" + entry).hexdigest(), tag, data))
        self.position, self.leaf, self.recorded = position, sha256(b"\x00" + entry).digest(), recorded
        self.recorded_first = recorded if self.recorded_first is None else self.recorded_first
        self.entries += 1

    def _check_version(self, stream: str, version: int, epoch: int | None) -> None:
        """A stream goes on gaplessly in an epoch; one that another log has begun may be at any version at first."""
        if not self._is_whole(stream):
            return
        newest = self._versions.get((stream, epoch))
        begins = newest is None and self._log.first == 1 and epoch in {None, 1} and "." not in self._region
        due = 1 if begins else newest and newest + 1
        if due is not None and version != due:
            raise Broken(Reason.VERSION_GAP, f"version {due} of {quoted(stream)} was due, and {version} follows")
        self._versions[stream, epoch] = version

    def _is_whole(self, stream: str) -> bool:
        """Whether every entry of the stream is to be there. A region's own are chosen one by one."""
        if self._all or not self._whole_streams:
            return self._all
        return not stream.startswith("region-")

    def close(self) -> None:
        """The entries end here. Raises Found."""
        if self.entries != self._log.count:
            said = f"the manifest says that there are {self._log.count} entries, and there are {self.entries}"
            raise Found(Fault(max(self.position, 1), Reason.POSITION_GAP, said))
        if self._streams is None or not self._whole_streams:
            return
        lasts: dict[str, int] = {}
        for (stream, _), version in self._versions.items():
            lasts[stream] = max(version, lasts.get(stream, 0))
        for stream in sorted(lasts.keys() | self._streams.keys()):
            if lasts.get(stream) != self._streams.get(stream):
                said = f"{quoted(stream)} ends at version {lasts.get(stream)}, the manifest says {self._streams.get(stream)}"
                raise Found(Fault(max(self.position, 1), Reason.VERSION_GAP, said))


def _judge(log: ExportedLog, policy: Policy | None, chain: _Chain) -> Signed:
    """Who signed the checkpoint. Raises CouldNotCheck when the policy has no key of the log."""
    trust = None if policy is None else Trust(policy, log.origin, region_of(log.origin), chain.rotations)
    (head,) = signed.examine(trust.keys if trust else None, log.origin, [(log.size, log.checkpoint)])
    found = Signed(faults=[*trust.faults] if trust else [])
    found.heads, found.size, found.root = 1, log.size, log.root.hex()
    found.signatures, found.cosignatures = len(head.signers), len(head.cosigned_s)
    found.unknown_signatures = head.unknown
    wrong = head.fault or (trust.judge(head, max(chain.recorded, 0)) if trust else None)
    seen_us = min(head.cosigned_s.values(), default=0) * 1_000_000
    if wrong is None and seen_us and chain.recorded > seen_us + PLAUSIBLE_US:
        late = (
            f"an entry was recorded at {chain.recorded} microseconds, more than a minute after witnesses had signed it"
        )
        wrong = Reason.RECORDED_IMPLAUSIBLE, late
    if wrong is not None:
        found.faults.append(Fault(log.size, *wrong))
    elif trust is not None and trust.is_quorum(head):
        found.witnessed_size, found.witnessed_by = log.size, trust.by_name(head)
    return found
