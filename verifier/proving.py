"""
`countroom-verifier proof`: checks a proof in a file (C2SP tlog-proof) without any connection.

Exit status: 0 proved, 1 not proved, 2 could not be checked.

Invariant: only what was hashed is said to be proved. The entry may stand in the file's extra data, for which nobody
vouches: then it is the hash of that entry which is looked for in the tree.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from verifier.cli import INTACT, NOT_CHECKED, NOT_INTACT, read_policy
from verifier.faults import CouldNotCheck, quoted
from verifier.log import HEADER_BYTES, split_entry
from verifier.merkle import ProofError, leaf_hash
from verifier.policy import Policy
from verifier.proof import Proven, parse_proof, verify_proof
from verifier.signed import rfc3339

_LEAF = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a proof file proves (`proven`), or why it proves nothing; `entry` is None when only its hash is known."""

    proven: Proven | None
    entry: bytes | None
    from_extra: bool
    reason: str | None = None

    @property
    def status(self) -> int:
        return NOT_INTACT if self.proven is None else INTACT

    def to_json(self) -> dict[str, object]:
        if self.proven is None:
            return {"proved": False, "reason": self.reason}
        head = self.proven.head
        return {
            "proved": True,
            "log": head.log.name,
            "position": self.proven.index + 1,
            "size": head.checkpoint.size,
            "root": head.checkpoint.root.hex(),
            "witnessed_by": {name: rfc3339(at) for name, at in sorted(head.cosigned_s.items())},
            "entry_from_extra": self.from_extra,
            "body": None if self.entry is None else _body(self.entry),
        }

    def to_text(self) -> str:
        if self.proven is None:
            return f"NOT PROVED: {self.reason}"
        head = self.proven.head
        what = "the entry in the file's extra data" if self.from_extra else "the entry"
        by = ", ".join(f"{quoted(name)} at {rfc3339(at)}" for name, at in sorted(head.cosigned_s.items()))
        place = f"position {self.proven.index + 1:,} of the log {quoted(head.log.name)}"
        lines = [
            f"proved: {what} stands at {place}, which had {head.checkpoint.size:,} entries",
            f"witnessed by {by}" if by else "witnessed by nobody, which the policy allows",
        ]
        if self.entry is not None and (body := _body(self.entry)) is not None:
            lines.append(ascii(body)[1:-1])
        return "\n".join(lines)


def prove(file: bytes, policy: Policy, *, entry: bytes | None = None, leaf: str | None = None) -> Outcome:
    """
    Check a proof against the entry, or its leaf hash in hex; without either against the entry in its extra data.

    Raises CouldNotCheck when nothing says which entry is to be proved.
    """
    if leaf is not None and not _LEAF.fullmatch(leaf):
        raise CouldNotCheck(f"a leaf is 64 digits of hex, not {quoted(leaf)}")
    from_extra = False
    try:
        if entry is None and leaf is None:
            entry = parse_proof(file).extra
            from_extra = True
            if not entry:
                raise CouldNotCheck("the proof holds no entry: give the entry, or its leaf")
        hashed = leaf_hash(entry) if entry is not None else bytes.fromhex(leaf or "")
        if entry is not None and leaf is not None and hashed.hex() != leaf.lower():
            return Outcome(None, entry, from_extra, f"the entry hashes to {hashed.hex()}, which is not the given leaf")
        return Outcome(verify_proof(file, hashed, policy), entry, from_extra)
    except ProofError as error:
        return Outcome(None, entry, from_extra, str(error))


def check_files(proof: str, trust: str, entry: str | None, leaf: str | None) -> Outcome:
    """`prove` with the names of files. Raises CouldNotCheck."""
    return prove(_read(proof), read_policy(trust), entry=None if entry is None else _read(entry), leaf=leaf)


def main(arguments: Sequence[str]) -> int:
    """Run the program; the answer is its exit status."""
    options = _parser().parse_args(arguments)
    try:
        outcome = check_files(options.file, options.trust, options.entry, options.leaf)
    except CouldNotCheck as error:
        sys.stderr.write(f"could not check: {error}\n")
        return NOT_CHECKED
    sys.stdout.write((json.dumps(outcome.to_json(), indent=2) if options.json else outcome.to_text()) + "\n")
    return outcome.status


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CouldNotCheck(f"{quoted(path)} cannot be read: {error.strerror}") from None


def _body(entry: bytes) -> str | None:
    """The text of one of our entries; None for what is none."""
    if len(entry) < HEADER_BYTES:
        return None
    try:
        return split_entry(entry)[3].decode()
    except UnicodeDecodeError:
        return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="countroom-verifier proof",
        description="Check a proof that an entry stands in a log (C2SP tlog-proof), without any connection.",
        epilog="exit status: 0 proved, 1 not proved, 2 could not be checked.",
    )
    parser.add_argument("file", metavar="FILE", help="the proof")
    parser.add_argument(
        "--trust", metavar="FILE", required=True, help="a policy (tlog-policy): which logs and witnesses"
    )
    parser.add_argument("--entry", metavar="FILE", help="the entry, exactly as it was hashed")
    parser.add_argument("--leaf", metavar="HEX", help="the entry's leaf hash")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser
