"""Passwords cost time, of everybody the same, and of few at a time."""

from __future__ import annotations

import asyncio
import threading

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.low_level import Type

from access.passwords import AT_ONCE, WAITING_MAX, Passwords, PasswordTooWeak, TooManySignIns

PASSWORD = "correct horse battery staple"


@pytest.fixture
def passwords() -> Passwords:
    return Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


async def test_a_hash_is_argon2id_with_64_mib() -> None:
    parameters = extract_parameters(await Passwords().hashed(PASSWORD))
    assert (parameters.type, parameters.memory_cost, parameters.time_cost) == (Type.ID, 64 * 1024, 3)


async def test_the_right_password_fits_and_no_other(passwords: Passwords) -> None:
    kept = await passwords.hashed(PASSWORD)
    assert await passwords.fits(kept, PASSWORD)
    assert not await passwords.fits(kept, PASSWORD + " ")
    assert not await passwords.fits(None, "nobody has this password")
    assert not await passwords.fits("no hash at all", PASSWORD)


async def test_a_password_is_the_same_however_it_is_composed(passwords: Passwords) -> None:
    kept = await passwords.hashed("caf\u00e9 caf\u00e9 caf\u00e9 caf\u00e9")
    assert await passwords.fits(kept, "cafe\u0301 cafe\u0301 cafe\u0301 cafe\u0301")


@pytest.mark.parametrize("weak", ["", "short", "a" * 40, "abababababababababab", "x" * 201])
async def test_a_weak_password_is_refused(passwords: Passwords, weak: str) -> None:
    with pytest.raises(PasswordTooWeak):
        await passwords.hashed(weak)


async def test_no_more_are_computed_at_once_and_too_many_are_refused(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, most, go, lock = [0], [0], threading.Event(), threading.Lock()

    def slow(_kept: str, _text: str) -> bool:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        go.wait(10)
        with lock:
            running[0] -= 1
        return False

    monkeypatch.setattr(passwords, "_verify", slow)
    under_way = [asyncio.create_task(passwords.fits("x", "y")) for _ in range(AT_ONCE + WAITING_MAX)]
    await asyncio.sleep(0.01)
    with pytest.raises(TooManySignIns):
        await passwords.fits("x", "y")
    go.set()
    assert await asyncio.gather(*under_way) == [False] * len(under_way)
    assert most[0] == AT_ONCE
