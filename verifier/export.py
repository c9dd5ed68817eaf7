"""
An export: a directory that a regulator takes home. It holds logs, whole or a range of each, or chosen entries with their
proofs; and what is needed to read them without us. Its files are described in docs/reference/export.md.

Invariants:
    - nothing of an export is read before every file of it was found to be as SHA256SUMS says, and no other file is there;
    - a name from an export leads to no file outside of it;
    - what the sums say is checked, but they are no proof: whoever alters an export can write them anew. What proves an
      entry are the hashes that lead from it to a root that the log's keeper signed (`verifier.exported`).
"""

import json
import os
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from verifier.body import region_of
from verifier.encoding import NUMBER_MAX
from verifier.faults import CouldNotCheck, quoted
from verifier.log import Report
from verifier.merkle import HASH_BYTES
from verifier.sheet import Pages
from verifier.source import Head
from verifier.tiled import Folder, Tiled, leaf_at
from verifier.tiles import NOTHING_THERE, WIDTH, Tile, TileError, parse_path, read_bundle, width_in

if TYPE_CHECKING:  # it needs cryptography, which checking sums does not
    from verifier.policy import Policy

FORMAT = "countroom/export/1"
SUMS, MANIFEST, POLICY, ENTRIES = "SHA256SUMS", "MANIFEST.json", "trust.policy", "entries.ndjson"
PROOF_HASHES_MAX = 63
LINE_BYTES_MAX = 120_000  # an entry of 65,535 bytes in base64, and a proof
CHUNK_BYTES = 1 << 20

_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*)")
_BESIDE = re.compile(
    r"HOWTO\.txt|MANIFEST\.json|trust\.policy|check\.py|keys(?:-[1-9][0-9]{0,5})?\.age|events/[a-z][a-z0-9_]*(?:\.[a-z0-9_]+)+\.json"
)
_HEAD = re.compile(r"heads/(?:0|[1-9][0-9]{0,18})")
_HASH = re.compile(rf"[0-9a-f]{{{2 * HASH_BYTES}}}")


class ExportAltered(Exception):
    """The directory is not as it was written, or was not written to its end."""


class Kind(StrEnum):
    """How much of a log an export holds."""

    WHOLE = "whole"
    RANGE = "range"
    SELECTION = "selection"


class Line(NamedTuple):
    """An entry of a selection. `proof` is None where the next one, at the next position, proves it."""

    position: int
    entry: bytes
    proof: tuple[bytes, ...] | None


@dataclass(frozen=True, slots=True)
class ExportedLog:
    """
    A log in an export: its entries from position `first` to `last`, or those that were chosen among them.

    `size` and `root` are those of the tree that `checkpoint`, a signed note, is about. `streams` names the last version of
    each stream of which a selection claims to hold all between `first` and `last`; None where it claims that of none.
    """

    name: str
    origin: str
    kind: Kind
    size: int
    first: int
    last: int
    count: int
    streams: Mapping[str, int] | None
    checkpoint: bytes
    root: bytes
    folder: str

    def entries(self) -> Iterator[tuple[int, bytes]]:
        """Position and bytes of each entry, by position, as they stand there. Raises CouldNotCheck, ExportAltered."""
        if self.kind is Kind.SELECTION:
            for line in self.lines():
                yield line.position, line.entry
            return
        fetch = Folder(self.folder)
        for index in range((self.first - 1) // WIDTH, (self.last - 1) // WIDTH + 1):
            try:
                bundle = read_bundle(fetch, Tile(None, index, width_in(self.size, None, index)))
            except TileError as error:
                raise ExportAltered(f"a bundle of log {self.name} cannot be read: {error}") from None
            except NOTHING_THERE:
                raise ExportAltered(f"the bundle {index} of log {self.name} is missing") from None
            for position, entry in enumerate(bundle, index * WIDTH + 1):
                if self.first <= position <= self.last:
                    yield position, entry

    def lines(self) -> Iterator[Line]:
        """The entries of a selection, with their proofs. Raises CouldNotCheck, ExportAltered."""
        try:
            with Path(self.folder, ENTRIES).open("rb") as file:
                number = 0
                while line := file.readline(LINE_BYTES_MAX):
                    number += 1
                    try:
                        yield read_line(line)
                    except ValueError:
                        raise ExportAltered(f"line {number} of {self.name}/{ENTRIES} is no entry") from None
        except OSError as error:
            raise CouldNotCheck(f"{self.name}/{ENTRIES} cannot be read: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class Export:
    """A directory whose files are as its sums say. `selection` is what was chosen, as the manifest has it."""

    path: str
    logs: Mapping[str, ExportedLog]
    selection: Mapping[str, Any] | None

    @classmethod
    def open(cls, path: str) -> "Export":
        """Raises ExportAltered, and CouldNotCheck for what cannot be read."""
        names = _check_sums(Path(path))
        try:
            manifest = json.loads(_read(Path(path, MANIFEST)))
            selection = manifest["selection"]
            if manifest["format"] != FORMAT or not isinstance(selection, dict | None):
                raise ValueError(f"it is of another format than {FORMAT}")  # noqa: TRY301 - told below
            logs = {name: _log(path, name, shown) for name, shown in manifest["logs"].items()}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ExportAltered(f"the manifest cannot be read: {quoted(str(error))}") from None
        if not logs:
            raise ExportAltered("the manifest names no log")
        for name in names:
            if not (_BESIDE.fullmatch(name) or any(_belongs(log, name) for log in logs.values())):
                raise ExportAltered(f"{quoted(name)} is no file of an export")
        return cls(path, logs, selection)

    def policy(self) -> "Policy | None":
        """The keys that came with the export. Raises ExportAltered."""
        from verifier.policy import PolicyError, parse_policy  # noqa: PLC0415 - needs cryptography

        try:
            return parse_policy(Path(self.path, POLICY).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, PolicyError) as error:
            raise ExportAltered(f"{POLICY} cannot be read: {quoted(str(error))}") from None


def is_export(path: str) -> bool:
    """Whether a directory is an export, or was to be one; a mere log in tiles is none."""
    return any(Path(path, name).exists() for name in (MANIFEST, SUMS))


def verify_export(
    path: str,
    trust: "Policy | None" = None,
    *,
    workers: int = 1,
    progress: Callable[[str, int], None] = lambda *_: None,
) -> dict[str, Report]:
    """
    A report for each log of an export. Without `trust`, signatures are checked with the keys that came with it.

    `progress` is told how far each log was read. Raises ExportAltered, CouldNotCheck.
    """
    source = ExportSource(path)
    return {
        head.log: source.report(head, trust, workers=workers, progress=partial(progress, head.log))
        for head in source.heads()
    }


class ExportSource:
    """The logs of an export (verifier.source.Keeper). `heads` opens it; every method raises CouldNotCheck, ExportAltered."""

    def __init__(self, path: str) -> None:
        self.url = path
        self._export: Export | None = None

    @property
    def export(self) -> Export:
        if self._export is None:
            self._export = Export.open(self.url)
        return self._export

    def heads(self) -> list[Head]:
        return [Head(log.name, log.origin, log.last, None) for log in self.export.logs.values()]

    def pages(self, head: Head) -> Pages:
        log = self.export.logs[head.log]
        if log.kind is not Kind.WHOLE:
            raise CouldNotCheck(f"the export holds no more than a {log.kind} of log {log.name}")
        return Tiled(Folder(log.folder), log.size, log.checkpoint)

    def leaf_at(self, head: Head, position: int) -> bytes:
        return leaf_at(Tiled(Folder(self.export.logs[head.log].folder), head.position, b""), position)

    def report(
        self,
        head: Head,
        trust: "Policy | None",
        *,
        ends: Iterable[int] = (),
        workers: int = 1,
        progress: Callable[[int], None] = lambda _: None,
        known: Mapping[int, bytes] = MappingProxyType({}),
    ) -> Report:
        """What is found of a log. `known`: heads that it must still have, by size; a part of a log cannot show that."""
        from verifier import exported  # noqa: PLC0415 - needs cryptography

        log = self.export.logs[head.log]
        policy = self.export.policy() if trust is None else trust
        keys = "given" if trust is not None else None if policy is None else "enclosed"
        if log.kind is Kind.WHOLE:
            return exported.verify_whole(log, self.pages(head), policy, keys, ends, workers, progress, known)
        if known:
            raise CouldNotCheck(f"whether a {log.kind} of a log continues a head that is known cannot be seen")
        whole_streams = not (self.export.selection or {}).get("types")
        return exported.verify_part(log, policy, keys, ends, progress, whole_streams=whole_streams)


def read_line(line: bytes) -> Line:
    """A line of a selection. Raises ValueError for any other spelling than that of `write_line`."""
    try:
        shown = json.loads(line)
        proof = shown.get("proof")
        if proof is not None and not (len(proof) <= PROOF_HASHES_MAX and all(map(_HASH.fullmatch, proof))):
            raise ValueError("it is no proof")  # noqa: TRY301 - as all others
        hashes = None if proof is None else tuple(map(bytes.fromhex, proof))
        read = Line(shown["position"], b64decode(shown["entry"]), hashes)
        if type(read.position) is not int or write_line(read) != line:
            raise ValueError("it is spelt in another way")  # noqa: TRY301
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    return read


def write_line(line: Line) -> bytes:
    shown: dict[str, object] = {"position": line.position, "entry": b64encode(line.entry).decode()}
    if line.proof is not None:
        shown["proof"] = [each.hex() for each in line.proof]
    return json.dumps(shown, separators=(",", ":")).encode() + b"\n"


def sums_of(folder: Path, names: Iterable[str]) -> bytes:
    """What SHA256SUMS says of these files, as sha256sum(1) writes it. Raises OSError."""
    return "".join(f"{_sum(folder / name)}  {name}\n" for name in sorted(names)).encode()


def files_in(folder: Path) -> Iterator[str]:
    """Every file of a directory, by its path from there. Raises ExportAltered for what is no file, and for empty folders."""
    pending = [""]
    while pending:
        prefix = pending.pop()
        empty = True
        with os.scandir(folder / prefix) as found:
            for each in found:
                empty = False
                name = prefix + each.name
                if each.is_dir(follow_symlinks=False):
                    pending.append(f"{name}/")
                elif each.is_file(follow_symlinks=False):
                    yield name
                else:
                    raise ExportAltered(f"{quoted(name)} is neither a file nor a folder")
        if empty:
            raise ExportAltered(f"the folder {quoted(prefix or str(folder))} is empty")


def _check_sums(folder: Path) -> list[str]:
    """The names of all files but the sums. Raises ExportAltered, CouldNotCheck."""
    try:
        text = (folder / SUMS).read_bytes()
    except FileNotFoundError:
        raise ExportAltered(f"there is no {SUMS}: the export was not written to its end, or the file is gone") from None
    except OSError as error:
        raise CouldNotCheck(f"{SUMS} cannot be read: {error.strerror}") from None
    lines = [_LINE.fullmatch(line) for line in text.decode("latin-1").split("\n")[:-1]]
    sums = {line[2]: line[1] for line in lines if line}
    if len(sums) < len(lines) or list(sums) != sorted(sums) or not text.endswith(b"\n"):
        raise ExportAltered(f"{SUMS} is not in the form in which it was written")
    try:
        present = set(files_in(folder)) - {SUMS}
        for name in sorted(sums.keys() ^ present):
            what = "stands in SHA256SUMS, but is not there" if name in sums else "does not stand in SHA256SUMS"
            raise ExportAltered(f"{quoted(name)} {what}")
        for name, sum_ in sums.items():
            if ".." in name.split("/") or _sum(folder / name) != sum_:
                raise ExportAltered(f"{quoted(name)} is not the file that was written: its SHA-256 is another one")
    except OSError as error:
        raise CouldNotCheck(f"{quoted(error.filename)} cannot be read: {error.strerror}") from None
    return list(sums)


def _sum(path: Path) -> str:
    hashed = sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            hashed.update(chunk)
    return hashed.hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ExportAltered(f"{quoted(path.name)} cannot be read: {error.strerror}") from None


def _log(path: str, name: str, shown: dict[str, Any]) -> ExportedLog:
    """Raises ValueError, TypeError, KeyError, ExportAltered."""
    from verifier.note import NoteError, parse_checkpoint  # noqa: PLC0415 - needs cryptography

    origin, kind = shown["origin"], Kind(shown["kind"])
    if region_of(origin) != name:
        raise ValueError(f"{quoted(name)} is not the log {quoted(origin)}")
    size, first, last, count = (shown[key] for key in ("size", "first", "last", "entries"))
    if not all(type(number) is int for number in (size, first, last, count)):
        raise ValueError("a position is an integer")
    streams = shown.get("streams")
    if not (
        1 <= first <= last <= size <= NUMBER_MAX
        and (kind is Kind.SELECTION or count == last - first + 1)
        and (kind is not Kind.WHOLE or count == size)
        and (streams is None or all(type(version) is int for version in streams.values()))
    ):
        raise ValueError(f"what it says of log {name} does not fit together")
    note = _read(Path(path, name, "checkpoint"))
    try:
        checkpoint = parse_checkpoint(note.decode().rpartition("\n\n")[0] + "\n")
    except (NoteError, UnicodeDecodeError) as error:
        raise ExportAltered(f"the checkpoint of log {name} cannot be read: {error}") from None
    if (checkpoint.origin, checkpoint.size) != (origin, size):
        raise ExportAltered(f"the checkpoint of log {name} is of another log or size than the manifest says")
    folder = str(Path(path, name))
    return ExportedLog(name, origin, kind, size, first, last, count, streams, note, checkpoint.root, folder)


def _belongs(log: ExportedLog, name: str) -> bool:
    """Whether a file of this name may belong to a log."""
    if not name.startswith(f"{log.name}/"):
        return False
    path = name.removeprefix(f"{log.name}/")
    if path == "checkpoint":
        return True
    if log.kind is Kind.SELECTION:
        return path == ENTRIES
    if _HEAD.fullmatch(path):
        return log.kind is Kind.WHOLE and int(path.removeprefix("heads/")) < log.size
    try:
        tile = parse_path(path)
    except TileError:
        return False
    return tile.width == width_in(log.size, tile.level, tile.index)
