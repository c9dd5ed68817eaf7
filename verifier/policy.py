"""
A trust policy: whose tree heads are believed, and which witnesses must have signed them too.

The file is C2SP's tlog-policy, for example (keys shortened)

    log      countroom.example/eu+<id>+<key>
    witness  us         countroom.example/us/witness+<id>+<key>
    witness  ap         countroom.example/ap/witness+<id>+<key>
    witness  regulator  regulator.example/witness+<id>+<key>    https://witness.regulator.example/
    group    company    any  us ap
    group    both       all  company regulator
    quorum   both

which wants the regulator's witness and one of the company's. `quorum none` wants no witness at all. A line may only name
what stands above it; lines that begin with # are comments.

Invariants:
    - a checkpoint is accepted only if a listed log signed it, under the name that is the checkpoint's origin;
    - no witness counts twice: every public key and every name stands once, and is a member of at most one group.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from verifier.faults import quoted
from verifier.note import Checkpoint, Kind, NoteError, Signature, VerifierKey, parse_checkpoint, parse_vkey, verify_note

POLICY_BYTES_MAX = 1 << 20
NO_QUORUM = "none"

_FORBIDDEN = re.compile(rb"[^\t\n\x20-\x7e\x80-\xff]")
_THRESHOLD = re.compile(r"[1-9][0-9]{0,5}")


class PolicyError(Exception):
    """A policy file is malformed; the message names the line."""


@dataclass(frozen=True, slots=True)
class Log:
    """A log that is believed. What its address means is left to whoever uses it."""

    key: VerifierKey
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness, under a name that has a meaning in its policy only."""

    name: str
    key: VerifierKey
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Counts as a witness when `threshold` of its members, witnesses or groups, do."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A checkpoint that satisfies a policy: which log signed it, and every known witness that did, by name, and when."""

    checkpoint: Checkpoint
    log: VerifierKey
    cosigned_s: dict[str, int]


@dataclass(frozen=True, slots=True)
class Policy:
    """What a policy file says. Groups stand behind their members."""

    logs: tuple[Log, ...]
    witnesses: tuple[Witness, ...]
    groups: tuple[Group, ...]
    quorum: str

    def is_quorum(self, cosigners: Iterable[VerifierKey]) -> bool:
        """Whether cosignatures of these keys, each verified, are as many, and of those, that the policy wants."""
        if self.quorum == NO_QUORUM:
            return True
        keys = set(cosigners)
        counting = {witness.name for witness in self.witnesses if witness.key in keys}
        for group in self.groups:
            if len(counting.intersection(group.members)) >= group.threshold:
                counting.add(group.name)
        return self.quorum in counting

    def check(self, note: bytes) -> Accepted:
        """
        The checkpoint of a signed note, if a log of this policy signed it, and a quorum of its witnesses.

        Raises NoteError: it is malformed, a signature is false, no listed log of its origin signed it, or too few
        witnesses did.
        """
        keys = [*(log.key for log in self.logs), *(witness.key for witness in self.witnesses)]
        opened = verify_note(note, keys)
        checkpoint = parse_checkpoint(opened.text)
        signers = [signature.key for signature in opened.signatures]
        # The key's name is the log's identity, and the text states one too. A log may only speak for itself.
        log = next((log.key for log in self.logs if log.key in signers and log.key.name == checkpoint.origin), None)
        if log is None:
            raise NoteError(f"no log of the policy signed the checkpoint of {quoted(checkpoint.origin)} as its own")
        cosigned_s = self._cosigned(opened.signatures)
        if not self.is_quorum(signers):
            names = ", ".join(map(quoted, cosigned_s)) or "no witness"
            raise NoteError(f"the quorum {quoted(self.quorum)} is not reached: {names} signed the checkpoint")
        return Accepted(checkpoint, log, cosigned_s)

    def accepts(self, note: bytes) -> bool:
        """Whether `check` finds nothing wrong with it."""
        try:
            self.check(note)
        except NoteError:
            return False
        return True

    def _cosigned(self, signatures: Iterable[Signature]) -> dict[str, int]:
        """When each witness signed; of one that signed more than once, the latest time."""
        names = {witness.key: witness.name for witness in self.witnesses}
        times: dict[str, int] = {}
        for signature in signatures:
            if signature.timestamp_s is not None:  # only witnesses state one
                name = names[signature.key]
                times[name] = max(signature.timestamp_s, times.get(name, 0))
        return times


def parse_policy(data: bytes) -> Policy:
    """
    The policy that a file states (tlog-policy, "Policy file syntax and structure").

    Raises PolicyError, with the line and what is wrong with it. Of keys, type 0x01 is known for logs, and 0x04 for
    witnesses.
    """
    if len(data) > POLICY_BYTES_MAX:
        raise PolicyError(f"the policy has {len(data)} bytes, of at most {POLICY_BYTES_MAX}")
    if found := _FORBIDDEN.search(data):
        at = data.count(b"\n", 0, found.start()) + 1
        raise PolicyError(f"line {at}: the character 0x{found.group()[0]:02x} is not allowed")
    if data and not data.endswith(b"\n"):
        raise PolicyError("the last line does not end in a line feed: is the file cut off?")
    draft = _Draft()
    for number, line in enumerate(data.split(b"\n"), start=1):
        # Octets beyond ASCII stay what they are: names are compared octet by octet. Of blanks, only ASCII ones are left.
        keyword, *items = [item.decode(errors="surrogateescape") for item in line.split()] or ["#"]
        if keyword.startswith("#"):
            continue
        try:
            draft.read(keyword, items)
        except (PolicyError, NoteError) as error:
            raise PolicyError(f"line {number}: {error}") from None
    if draft.quorum is None:
        raise PolicyError("a policy has a line 'quorum <name>' (or 'quorum none'), and this one has none")
    return Policy(tuple(draft.logs), tuple(draft.witnesses), tuple(draft.groups), draft.quorum)


@dataclass(slots=True)
class _Draft:
    """A policy as far as it is read."""

    logs: list[Log] = field(default_factory=list)
    witnesses: list[Witness] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    quorum: str | None = None
    names: set[str] = field(default_factory=set)
    members: set[str] = field(default_factory=set)

    def read(self, keyword: str, items: list[str]) -> None:
        readers: dict[str, Callable[[list[str]], None]] = {
            "log": self._read_log,
            "witness": self._read_witness,
            "group": self._read_group,
            "quorum": self._read_quorum,
        }
        if keyword not in readers:
            raise PolicyError(f"a line begins with {', '.join(readers)} or #, not with {quoted(keyword)}")
        readers[keyword](items)

    def _read_log(self, items: list[str]) -> None:
        (vkey,), url = _with_url(items, required=1, form="log <vkey> [<url>]")
        key = _key(vkey, Kind.ED25519, "a log's")
        if any(log.key.public_key == key.public_key for log in self.logs):
            raise PolicyError(f"the public key of log {quoted(key.name)} stands here for the second time")
        self.logs.append(Log(key, url))

    def _read_witness(self, items: list[str]) -> None:
        (name, vkey), url = _with_url(items, required=2, form="witness <name> <vkey> [<url>]")
        key = _key(vkey, Kind.COSIGNATURE, "a witness's")
        if any(witness.key.public_key == key.public_key for witness in self.witnesses):
            raise PolicyError(f"the public key of witness {quoted(name)} stands here for the second time")
        self._define(name)
        self.witnesses.append(Witness(name, key, url))

    def _read_group(self, items: list[str]) -> None:
        if len(items) < 3:  # noqa: PLR2004 - as the message says
            raise PolicyError("a group is 'group <name> all|any|<number> <member>...'")
        name, threshold, *members = items
        for member in members:
            if member not in self.names:
                raise PolicyError(f"no witness or group {quoted(member)} is defined above")
            if member in self.members:
                raise PolicyError(f"{quoted(member)} is a member already, and may be one only once")
            self.members.add(member)
        wanted = {"any": "1", "all": str(len(members))}.get(threshold, threshold)
        if not _THRESHOLD.fullmatch(wanted) or int(wanted) > len(members):
            raise PolicyError(f"of {len(members)} members 'all', 'any' or a number up to that can be wanted")
        self._define(name)
        self.groups.append(Group(name, int(wanted), tuple(members)))

    def _read_quorum(self, items: list[str]) -> None:
        if len(items) != 1:
            raise PolicyError("a quorum is 'quorum <name>' or 'quorum none'")
        if self.quorum is not None:
            raise PolicyError("the quorum is stated a second time")
        if items[0] not in self.names and items[0] != NO_QUORUM:
            raise PolicyError(f"no witness or group {quoted(items[0])} is defined above")
        self.quorum = items[0]

    def _define(self, name: str) -> None:
        if name == NO_QUORUM:
            raise PolicyError("the name 'none' is taken: it says that no witness is wanted")
        if name in self.names:
            raise PolicyError(f"the name {quoted(name)} is defined already")
        self.names.add(name)


def _with_url(items: list[str], *, required: int, form: str) -> tuple[list[str], str | None]:
    if not required <= len(items) <= required + 1:
        raise PolicyError(f"the form of the line is '{form}'")
    return items[:required], items[required] if len(items) > required else None


def _key(vkey: str, kind: Kind, whose: str) -> VerifierKey:
    key = parse_vkey(vkey)
    if key.kind is not kind:
        raise PolicyError(f"{whose} key is of type 0x{kind:02x}, and this is of type 0x{key.kind:02x}: {quoted(vkey)}")
    return key
