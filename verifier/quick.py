r"""
Reads bodies at ten times the speed of `verifier.body`, by learning from it how a log's writer spells them.

The members of a body may stand in any order, but a writer keeps to a few. Whenever a body is accepted the slow way, its
spelling becomes a regular expression: the same keys in the same order without blanks, and any other values of the same
kinds. The next body that it matches needs no JSON parser. Of many bodies at once, one expression reads them all, a line each.

Invariant: the quick way only ever says yes, and only to what `body.read` accepts, with the same facts. It holds since
    - a pattern's keys come from an accepted object, so none stands twice, and none is misspelt;
    - a pattern's values are texts without \u escapes and integers of at most 15 digits; each member of the envelope has
      the form that `body.read` demands;
    - what patterns do not show is checked beside them: length, UTF-8, noncharacters, and that i is at most n.
"""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from operator import gt
from typing import Any, NamedTuple

from verifier import body as law
from verifier import ijson
from verifier.body import Columns, Facts

# Bounds of what is learnt, so that a hostile log costs time but no memory. Beyond them, bodies are read slowly.
ENVELOPES_MAX = 32
SPELLINGS_MAX = 2048
LESSONS_MAX = 50_000
SPELLINGS_PER_TYPE_MAX = 8
LEARNT_BYTES_MAX = 4096
ENDS_MAX = 128
COMPILED_MAX = 256
TRIES_MAX = 4  # patterns for a batch before its bodies are read one by one

_FullMatch = Callable[[str, int], re.Match[str] | None]
_FindAll = Callable[[str], list[Any]]
_NO_RESTS: dict[str, _FullMatch] = {}


class _Envelope(NamedTuple):
    """The spelling of all that stands before the data, and the spellings seen from there on."""

    match: Callable[[str], re.Match[str] | None]
    groups: tuple[int, ...]  # that hold the facts
    rests: dict[str, dict[str, _FullMatch]]  # by type, by pattern: from the data to the end of the body


_CHARACTERS = r"[^\"\\\x00-\x1f]"
_TEXT = rf'"{_CHARACTERS}*+(?:\\["\\/bfnrt]{_CHARACTERS}*+)*+"'
_PLAIN_TEXT = f'"{_CHARACTERS}*+"'
_INTEGER = "-?(?:0|[1-9][0-9]{0,14})"
_COUNT = "[1-9][0-9]{0,14}"
_DATA = "(?#data)"  # marks in a pattern where the data begins; a key cannot contain it, for its brackets are escaped
_FACTS = ("stream", "version", "type", "partition", "epoch", "command", "i", "n")
_SPELLINGS = {
    "stream": f'"(?P<stream>{law.STREAM.pattern})"',
    "version": f"(?P<version>{_COUNT})",
    "type": f'"(?P<type>{_CHARACTERS}*+)"',  # its form follows from a body of this type having been accepted
    "id": f'"{law.UUID7.pattern}"',
    "partition": "(?P<partition>25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])",
    "epoch": f"(?P<epoch>{_COUNT})",
    "actor": f'"{_CHARACTERS}++"',
    **{name: f'"{form.pattern}"' for name, (form, _) in law.OPTIONAL.items()},
}
_COMMAND_SPELLINGS = {
    "id": f'"(?P<command>{law.HEX128.pattern})"',
    "fingerprint": f'"{law.HEX128.pattern}"',
    "i": f"(?P<i>{_COUNT})",
    "n": f"(?P<n>{_COUNT})",
}
_OMITTABLE = {*law.OPTIONAL, "fingerprint"}
_SCALARS = {str: _TEXT, int: _INTEGER, bool: "(?:true|false)", type(None): "null"}
_MATCHES_NOTHING = _Envelope(re.compile("(?!)").match, (), {})


class BodyReader:
    """Reads bodies one after another. What it learns is its own: a thread needs a reader of its own."""

    def __init__(self) -> None:
        self._newest = _MATCHES_NOTHING  # the envelope that matched last
        self._envelopes: dict[str, _Envelope] = {}  # by pattern
        self._spellings = 0
        self._lessons = 0
        self._ends: dict[
            str, None
        ] = {}  # patterns from the data to the end of the body, where nothing follows the data
        self._batches: dict[str, _FindAll] = {}  # by pattern; the one that fitted last comes first
        self._compiled = 0

    def read_all(self, bodies: list[bytes]) -> Columns:
        """
        The facts of each of these bodies, of which there is one at least. Raises Broken for one that is not in order, not necessarily the first.

        Unlike `read` it also sees to it that each stream with a partition bears a name of the right form, and has an epoch.
        """
        text = b"\n".join(bodies)
        if text.count(b"\n") == len(bodies) - 1 and max(map(len, bodies)) <= law.BODY_BYTES_MAX:
            columns = self._read_lines(text, len(bodies))
            if columns is not None:
                return columns
        known, ends = len(self._envelopes), len(self._ends)
        streams, versions, tags, partitions, epochs, commands, i, n = zip(*map(self.read, bodies), strict=True)
        for stream, partition, epoch in zip(streams, partitions, epochs, strict=True):
            law.check_form(stream, partition, epoch)
        if (len(self._envelopes), len(self._ends)) != (known, ends):
            self._compile_batches()
        return streams, versions, tags, partitions, epochs, commands, i, n

    def _read_lines(self, lines: bytes, count: int) -> Columns | None:
        """The facts of `count` bodies, if one pattern matches every line, which only a whole body can be."""
        try:
            text = lines.decode()
        except UnicodeDecodeError:
            return None
        if not text.isascii() and ijson.FORBIDDEN.search(text):
            return None
        for tried, (pattern, find_all) in enumerate(self._batches.items()):
            rows = find_all(text)
            if len(rows) == count:
                if tried:  # it comes first from now on
                    self._batches = {pattern: find_all, **self._batches}
                streams, versions, tags, partitions, epochs, commands, nths, totals = zip(*rows, strict=True)
                i, n = _integers(nths), _integers(totals)
                if any(map(gt, i, n)):
                    return None
                partition, epoch = _integers(partitions), _integers(epochs)
                return streams, list(map(int, versions)), tags, partition, epoch, commands, i, n
            if tried + 1 == TRIES_MAX:
                break
        return None

    def _compile_batches(self) -> None:
        """
        Expressions for each envelope that names its facts in the usual order, with every end of a body that is known.

        An end holds no member of the envelope, so that it may follow any of them. Texts without escapes are matched twice
        as quickly, so these are tried first.
        """
        ends = "|".join(self._ends)
        envelopes = [
            pattern for pattern, known in self._envelopes.items() if list(known.groups) == sorted(known.groups)
        ]
        # The one with the most members that may be missing matches the most bodies.
        batches: dict[str, _FindAll] = {}
        for envelope in sorted(envelopes, key=len, reverse=True):
            for pattern in (f"^{envelope}(?:{ends.replace(_TEXT, _PLAIN_TEXT)})$", f"^{envelope}(?:{ends})$"):
                if not ends or self._compiled >= COMPILED_MAX:
                    return
                if pattern not in batches:
                    self._compiled += 1
                    batches[pattern] = re.compile(pattern, re.MULTILINE).findall
        self._batches = batches

    def read(self, body: bytes) -> Facts:
        """`verifier.body.read`, but quicker."""
        try:
            text = body.decode()
        except UnicodeDecodeError:
            return law.read(body)
        match, groups, rests = self._newest
        found = match(text)
        if found is None:
            found = self._match_another_envelope(text)
            if found is None:
                return self._read_and_learn(body)
            _, groups, rests = self._newest
        stream, version, tag, partition, epoch, command, i, n = found.group(*groups)
        data_starts = found.end()
        for rest_matches in rests.get(tag, _NO_RESTS).values():
            if rest_matches(text, data_starts):
                break
        else:
            return self._read_and_learn(body)
        if (i != "1" and int(i) > int(n)) or len(body) > law.BODY_BYTES_MAX:
            return law.read(body)
        if not text.isascii() and ijson.FORBIDDEN.search(text):
            return law.read(body)
        number = _SMALL_INTEGERS
        return stream, int(version), tag, number[partition], number[epoch], command, number[i], number[n]

    def _match_another_envelope(self, text: str) -> re.Match[str] | None:
        for envelope in self._envelopes.values():
            if found := envelope.match(text):
                self._newest = envelope
                return found
        return None

    def _read_and_learn(self, body: bytes) -> Facts:
        facts = law.read(body)
        # A region's own streams, which have no partition, are few, and not worth the learning.
        if (
            facts[3] is not None
            and len(body) <= LEARNT_BYTES_MAX
            and self._spellings < SPELLINGS_MAX
            and self._lessons < LESSONS_MAX
        ):
            self._lessons += 1
            with suppress(_Unspellable):
                self._learn(ijson.read(body))
        return facts

    def _learn(self, members: dict[str, Any]) -> None:
        """Both halves from the same body, since only so no key stands in both."""
        spellings = {**_SPELLINGS, "command": _spell_object(members["command"], _COMMAND_SPELLINGS)}
        whole = _spell_object(members, {**spellings, "data": _DATA + _spell(members["data"])})
        before, _, rest = whole.partition(_DATA)
        envelope = self._envelopes.get(before)
        if envelope is None:
            pattern = re.compile(before)
            if len(self._envelopes) >= ENVELOPES_MAX or not pattern.groupindex.keys() >= set(_FACTS):
                raise _Unspellable
            groups = tuple(pattern.groupindex[name] for name in _FACTS)
            envelope = self._envelopes[before] = _Envelope(pattern.match, groups, {})
        rests = envelope.rests.setdefault(members["type"], {})
        if rest not in rests and len(rests) < SPELLINGS_PER_TYPE_MAX:
            rests[rest] = re.compile(rest).fullmatch
            self._spellings += 1
            if next(reversed(members)) == "data" and len(self._ends) < ENDS_MAX:
                self._ends[rest] = None


class _Unspellable(Exception):
    """No regular expression can be learnt from this."""


def _spell(value: Any) -> str:
    """A pattern for the compact spelling of `value` and of others like it."""
    if isinstance(value, dict):
        return _spell_object(value, {})
    if isinstance(value, list):
        # Only lists of one kind: with alternatives, a pattern could take exponential time to fail.
        kinds = {_spell(item) for item in value}
        if len(kinds) > 1:
            raise _Unspellable
        return rf"\[{kind}(?:,{kind})*+\]" if (kind := next(iter(kinds), "")) else r"\[\]"
    return _SCALARS[type(value)]


def _spell_object(members: dict[str, Any], spellings: dict[str, str]) -> str:
    """
    A pattern for an object with these keys in this order; `spellings` has those values that are not free.

    Members that the format calls optional may then be missing, so that one pattern serves the bodies with and without.
    """
    pattern = ""
    for number, (name, member) in enumerate(members.items(), start=1):
        spelled = re.escape(json.dumps(name, ensure_ascii=False)) + ":" + (spellings.get(name) or _spell(member))
        if number == len(members):
            pattern += spelled
        elif name in spellings and name in _OMITTABLE:
            pattern += f"(?:{spelled},)?"
        else:
            pattern += f"{spelled},"
    return r"\{" + pattern + r"\}"


class _SmallIntegers(dict[str, int]):
    """Small integers by their digits: a look-up costs a third of a conversion. Of other digits, int()."""

    def __missing__(self, digits: str) -> int:
        return int(digits)


_SMALL_INTEGERS = _SmallIntegers({str(number): number for number in range(256)})
_small_integer = _SMALL_INTEGERS.__getitem__


def _integers(digits: tuple[str, ...]) -> list[int]:
    """Nearly always they are all the same."""
    if digits.count(digits[0]) == len(digits):
        return [int(digits[0])] * len(digits)
    return list(map(_small_integer, digits))
