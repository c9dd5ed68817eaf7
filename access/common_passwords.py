"""
Passwords that nobody may have: those that are tried first, those that breaches have told, and those that name the house, its brands, the
product, or whoever chooses them.

What is tried first is a list of 30,000 passwords, which the package zxcvbn brings. Few of them are as long as a password has to be here, so one
or two of them together are refused too, also repeated, also with signs for letters (`P@ssw0rd`), unless REST_MIN further characters
stand beside them.

Invariants:
    - nothing is asked over the network;
    - a refusal says why, and repeats neither word nor name;
    - what it costs is bounded, whatever the password is.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

from domain.errors import Invalid

PRODUCT = "countroom"
REST_MIN = 8
"""A figure of the house: as many characters as a password needs at the very least (OWASP ASVS 5.0, 6.2.1)."""
NAME_MIN = 4
"""Shorter names stand in too many other words."""
SHA1_DIGITS_MIN = 16
"""Of fewer, others than the one that was told would be refused now and then."""

_ALIKE = ("4830@!$5+7", "abeoaisstt")
_READINGS = [str.maketrans({}), *(str.maketrans("1" + _ALIKE[0], one + _ALIKE[1]) for one in "il")]
_SHA1 = re.compile(rb"([0-9A-Fa-f]{%d,40})(:[0-9]+)?\s*" % SHA1_DIGITS_MIN)
_GONE = "\0"


class PasswordFilesError(Exception):
    """A file of words or of breached passwords cannot be read."""


class PasswordCommon(Invalid):
    code = "password_common"
    title = "That is one of the passwords that are tried first, or made of them; take words that do not belong together"


class PasswordNamesSomebody(Invalid):
    code = "password_names_somebody"
    title = "A password has no name in it: not yours, nor your e-mail address, nor that of the house, a brand or this program"


class PasswordBreached(Invalid):
    code = "password_breached"
    title = "This password is known from a breach, wherever it was used; take another one"


class Breached(NamedTuple):
    """A file of SHA-1 hashes of passwords in hex, one a line and in order, each with `:` and a count if there is one: as Pwned Passwords
    is downloaded. They may be cut short, to SHA1_DIGITS_MIN digits at least.
    """

    path: Path

    def holds(self, password: str) -> bool:
        """Some thirty reads in a file of any size. Raises OSError, PasswordFilesError."""
        wanted = hashlib.sha1(password.encode(), usedforsecurity=False).hexdigest()
        with self.path.open("rb") as file:
            low, high = 0, os.fstat(file.fileno()).st_size
            while low < high:
                middle = (low + high) // 2
                begins = _line_from(file, middle)
                line = file.readline()
                if begins >= high or not line:
                    high = middle
                    continue
                here = self._digits(line)
                if wanted.startswith(here):
                    return True
                low, high = (begins + len(line), high) if here < wanted else (low, middle)
        return False

    def _digits(self, line: bytes) -> str:
        if (found := _SHA1.fullmatch(line)) is None:
            raise PasswordFilesError(
                f"{self.path} holds a line that is no SHA-1 in hex of {SHA1_DIGITS_MIN} to 40 digits"
            )
        return found[1].decode().lower()

    def require_order(self) -> None:
        """Look at its first and last line, and at some between. Raises PasswordFilesError."""
        try:
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                seen = []
                for part in range(16):
                    _line_from(file, size * part // 16)
                    if line := file.readline():
                        seen.append(self._digits(line))
        except OSError as error:
            raise PasswordFilesError(f"{self.path} cannot be read: {error.strerror}") from error
        if not seen or seen != sorted(seen):
            raise PasswordFilesError(f"{self.path} is not in order, or empty")


class CommonPasswords:
    """`names`: of the house and its brands, which no password contains."""

    def __init__(self, names: Iterable[str] = (), breached: Breached | None = None) -> None:
        self._names = frozenset({PRODUCT, *map(_plain, names)})
        self._breached = breached

    def refuse(self, password: str, called: Iterable[str] = ()) -> None:
        """`called`: names and e-mail addresses of whoever chooses it. Raises PasswordCommon, PasswordNamesSomebody, PasswordBreached."""
        folded = _folded(password)
        readings = {folded.translate(each) for each in _READINGS}
        names = self._names.union(*map(words_of, called))
        if any(name in text for each in readings for text in (each, _plain(each)) for name in names):
            raise PasswordNamesSomebody
        if any(map(_is_common, readings)):
            raise PasswordCommon
        if self._breached is not None and self._breached.holds(password):
            raise PasswordBreached


def load(words: Path | None, breached: Path | None, also: Iterable[str] = ()) -> CommonPasswords:
    """Those of the house's file, a word a line, and of a file of breached ones. `also`: further names. Raises PasswordFilesError."""
    names = [word for each in also for word in words_of(each)]
    if words is not None:
        try:
            lines = [line.strip() for line in words.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise PasswordFilesError(f"{words} cannot be read: {error}") from error
        for number, line in enumerate(lines, 1):
            if line and not line.startswith("#"):
                if len(_plain(line)) < NAME_MIN:
                    raise PasswordFilesError(
                        f"{words}, line {number}: a word has at least {NAME_MIN} letters or digits"
                    )
                names.append(line)
    known = Breached(breached) if breached is not None else None
    if known is not None:
        known.require_order()
    return CommonPasswords(names, known)


def words_of(name: str) -> list[str]:
    """What a name is recognised by: its words, of an e-mail address or a host without the last label, as far as they are long enough."""
    text = _folded(name)
    whole = text.rpartition(".")[0] if "@" in text or "://" in text else text
    found = {_plain(text), *re.findall(r"[^\W_]+", whole)}
    return sorted(
        each for each in found if len(each) >= NAME_MIN and not each.isdecimal() and each not in ("http", "https")
    )


def _is_common(text: str) -> bool:
    """Whether at most two listed words, however often, leave fewer than REST_MIN different characters in a row or in several."""
    words, longest = _listed()
    found = {
        text[begin:end]
        for begin in range(len(text))
        for end in range(begin + NAME_MIN, min(begin + longest, len(text)) + 1)
        if text[begin:end] in words
    }
    for first in found:
        if text.find(first) < REST_MIN:
            rest = text.replace(first, _GONE)
            if _left(rest) < REST_MIN or any(_left(rest.replace(second, _GONE)) < REST_MIN for second in found):
                return True
    return False


def _left(text: str) -> int:
    """How many characters are left, of parts that are alike those of one."""
    return sum(map(len, set(text.split(_GONE))))


@cache
def _listed() -> tuple[Collection[str], int]:
    """The listed passwords, and how long the longest is."""
    from zxcvbn.frequency_lists import FREQUENCY_LISTS  # noqa: PLC0415 — 14 MB, for those alone who hash passwords

    words = frozenset(_folded(each) for each in FREQUENCY_LISTS["passwords"] if len(each) >= NAME_MIN)
    return words, max(map(len, words))


def _folded(text: str) -> str:
    """Without case, and without accents."""
    apart = unicodedata.normalize("NFKD", text)
    return "".join(each for each in apart if not unicodedata.combining(each)).casefold()


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", "", _folded(text))


def _line_from(file: BinaryIO, place: int) -> int:
    """Go to the first line that begins at `place` or behind it, and say where that is."""
    file.seek(max(place - 1, 0))
    if place:
        file.readline()
    return file.tell()
