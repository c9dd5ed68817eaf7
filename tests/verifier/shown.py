"""Logs as somebody shows them, with signed heads: in memory, and as directories of tiles that the specification defines."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.verifier import trees
from tests.verifier.logs import ORIGIN, STARTED, Entry
from verifier.faults import Reason
from verifier.note import Kind, assemble, cosign, format_checkpoint, key_of, sign
from verifier.policy import Policy, parse_policy
from verifier.sheet import Entries

LOG, OTHER_LOG, US, AP, STRANGER = (Ed25519PrivateKey.from_private_bytes(bytes(32 * [n])) for n in range(1, 6))
WITNESSES = {"us": US, "ap": AP}
AT_S = STARTED // 1_000_000


def vkey(key: Ed25519PrivateKey = LOG, origin: str = ORIGIN) -> str:
    return str(key_of(origin, Kind.ED25519, key))


def policy_text(*keys: Ed25519PrivateKey, origin: str = ORIGIN, quorum: str = "any us ap") -> str:
    """Trust in the log, and in one of two witnesses."""
    lines = [f"log {vkey(key, origin)}\n" for key in keys or (LOG,)]
    lines += (
        f"witness {name} {key_of(f'{name}.example/w', Kind.COSIGNATURE, key)}\n" for name, key in WITNESSES.items()
    )
    return "".join(lines) + (f"group some {quorum}\nquorum some\n" if quorum != "none" else "quorum none\n")


def policy(*keys: Ed25519PrivateKey, origin: str = ORIGIN, quorum: str = "any us ap") -> Policy:
    return parse_policy(policy_text(*keys, origin=origin, quorum=quorum).encode())


def note(
    size: int,
    root: bytes,
    *,
    by: Sequence[Ed25519PrivateKey] = (LOG,),
    witnessed: dict[str, int] | None = None,
    origin: str = ORIGIN,
) -> bytes:
    """A head signed by keys of the log, and by witnesses at these times (s)."""
    text = format_checkpoint(origin, size, root)
    lines = [sign(text, name=origin, key=key) for key in by]
    lines += (
        cosign(text, name=f"{name}.example/w", key=WITNESSES[name], timestamp_s=at)
        for name, at in (witnessed or {}).items()
    )
    return assemble(text, lines)


def root_at(entries: Sequence[Entry], size: int) -> bytes:
    return trees.head([leaf for _, _, leaf in entries[:size]])


@dataclass
class Shown:
    """A log in memory (verifier.sheet.Pages), in parts of any length."""

    log: list[Entry]
    signed: list[tuple[int, bytes]] = field(default_factory=list)
    part: int = 100
    kept: dict[tuple[int, int], bytes] = field(
        default_factory=dict
    )  # hashes by level and index that are not the tree's
    differing: Reason = Reason.TILE_DIFFERS

    def length(self) -> int:
        return len(self.log)

    def entries(self, first: int, last: int) -> Iterator[Entries]:
        for start in range(first - 1, last, self.part):
            some = self.log[start : min(start + self.part, last)]
            yield Entries([e[0] for e in some], [e[1] for e in some], b"".join(e[2] for e in some))

    def hashes(self, level: int, index: int, width: int) -> list[bytes | None]:
        return [self.kept.get((level, 256 * index + offset)) for offset in range(width)]

    def heads(self) -> Iterable[tuple[int, bytes]]:
        return iter(self.signed)


def write(folder: Path, entries: Sequence[bytes], heads: Iterable[tuple[int, bytes]], checkpoint: bytes) -> Path:
    """A directory of tiles, made without a line of the verifier's."""
    for path, data in {
        **trees.files(list(entries)),
        **{f"heads/{size}": head for size, head in heads},
        "checkpoint": checkpoint,
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def directory(folder: Path, log: Sequence[Entry], sizes: Iterable[int] = ()) -> Path:
    """A log in tiles, witnessed at the end by `us`, and at these sizes signed by the log alone."""
    heads = [(size, note(size, root_at(log, size))) for size in sizes]
    newest = note(len(log), root_at(log, len(log)), witnessed={"us": AT_S})
    return write(folder, [entry for _, entry, _ in log], heads, newest)
