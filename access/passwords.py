"""
Passwords of people: argon2id (RFC 9106), hashed beside the event loop, a few at a time.

Invariants:
    - a password that is checked against nothing costs what one of a known account costs, and is wrong;
    - at most AT_ONCE hashes are computed and WAITING_MAX wait: whoever comes then is refused before anything is computed;
    - of these at most OF_ONE_MAX are for one address, so that nobody keeps everybody out by asking often;
    - a new password is none of those that nobody may have (access/common_passwords.py);
    - a password is never kept, logged or told; what is kept is the encoded hash, and that only sealed.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from access.attempts import network
from access.common_passwords import CommonPasswords
from domain.errors import Invalid, Rejected

AT_ONCE = 2
WAITING_MAX = 20
OF_ONE_MAX = 4
"""A figure of the house: behind one address there may be an office, and a hash takes about a tenth of a second."""
CHARACTERS_MIN = 15
"""A figure of the house."""
CHARACTERS_MAX = 200

T = TypeVar("T")

_HASHER = PasswordHasher()  # argon2-cffi's default: RFC 9106's second choice, argon2id with 64 MiB, 3 passes, 4 lanes


class TooManySignIns(Rejected):
    code = "too_many_signins"
    title = "Too many people sign in at this moment; try again a little later"


class PasswordTooWeak(Invalid):
    code = "password_too_weak"
    title = f"A password has {CHARACTERS_MIN} to {CHARACTERS_MAX} characters, and more than a few different ones"


class Passwords:
    """Hashes and checks passwords. `common`: those that nobody may have. `hasher`: of another cost, for tests."""

    def __init__(self, hasher: PasswordHasher = _HASHER, common: CommonPasswords | None = None) -> None:
        self._hasher = hasher
        self._common = common or CommonPasswords()
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="argon2")
        self._under_way: Counter[str] = Counter()
        self._nobodys = hasher.hash("nobody has this password")

    async def hashed(self, password: str, address: str, called: Sequence[str] = ()) -> str:
        """The encoded hash of a new password, for somebody at an address who is called so.

        Raises PasswordTooWeak, PasswordCommon, PasswordNamesSomebody, PasswordBreached, TooManySignIns.
        """
        text = _normalised(password)
        if not CHARACTERS_MIN <= len(text) <= CHARACTERS_MAX or len(set(text)) < 5:  # noqa: PLR2004 — aaaaaaaaaaaaaaa
            raise PasswordTooWeak
        return await self._run(address, self._new, text, *called)

    async def fits(self, kept: str | None, password: str, address: str) -> bool:
        """Whether this is the password of the encoded hash `kept`. None: of an account that has none, or of nobody.

        Raises TooManySignIns.
        """
        text = _normalised(password)[: CHARACTERS_MAX + 1]
        fits = await self._run(address, self._verify, kept or self._nobodys, text)
        return fits and kept is not None

    def close(self) -> None:
        self._threads.shutdown(wait=False)

    def _new(self, text: str, *called: str) -> str:
        self._common.refuse(text, called)
        return self._hasher.hash(text)

    def _verify(self, kept: str, text: str) -> bool:
        try:
            return self._hasher.verify(kept, text)
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, address: str, work: Callable[..., T], *given: str) -> T:
        whose = network(address)
        if self._under_way.total() >= AT_ONCE + WAITING_MAX or self._under_way[whose] >= OF_ONE_MAX:
            raise TooManySignIns
        self._under_way[whose] += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)
        finally:
            self._under_way[whose] -= 1
            if not self._under_way[whose]:
                del self._under_way[whose]


def _normalised(password: str) -> str:
    """However a keyboard composes its characters, the password is the same (RFC 8265, 4.2: NFC)."""
    return unicodedata.normalize("NFC", password)
