"""Passwords cost time, of everybody the same, and of few at a time."""

from __future__ import annotations

import asyncio
import threading

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.low_level import Type

from access.passwords import AT_ONCE, OF_ONE_MAX, WAITING_MAX, Passwords, PasswordTooWeak, TooManySignIns

PASSWORD = "correct horse battery staple"
OFFICE = "192.0.2.1"


@pytest.fixture
def passwords() -> Passwords:
    return Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


async def test_a_hash_is_argon2id_with_64_mib() -> None:
    parameters = extract_parameters(await Passwords().hashed(PASSWORD, OFFICE))
    assert (parameters.type, parameters.memory_cost, parameters.time_cost) == (Type.ID, 64 * 1024, 3)


async def test_the_right_password_fits_and_no_other(passwords: Passwords) -> None:
    kept = await passwords.hashed(PASSWORD, OFFICE)
    assert await passwords.fits(kept, PASSWORD, OFFICE)
    assert not await passwords.fits(kept, PASSWORD + " ", OFFICE)
    assert not await passwords.fits(None, "nobody has this password", OFFICE)
    assert not await passwords.fits("no hash at all", PASSWORD, OFFICE)


async def test_a_password_is_the_same_however_it_is_composed(passwords: Passwords) -> None:
    kept = await passwords.hashed("caf\u00e9 caf\u00e9 caf\u00e9 caf\u00e9", OFFICE)
    assert await passwords.fits(kept, "cafe\u0301 cafe\u0301 cafe\u0301 cafe\u0301", OFFICE)


@pytest.mark.parametrize("weak", ["", "short", "a" * 40, "abababababababababab", "x" * 201])
async def test_a_weak_password_is_refused(passwords: Passwords, weak: str) -> None:
    with pytest.raises(PasswordTooWeak):
        await passwords.hashed(weak, OFFICE)


async def test_no_more_are_computed_at_once_and_too_many_are_refused(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, most, go, lock = [0], [0], threading.Event(), threading.Lock()

    def slow(_kept: str, _text: str) -> bool:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        go.wait(60)
        with lock:
            running[0] -= 1
        return False

    monkeypatch.setattr(passwords, "_verify", slow)
    addresses = [f"198.51.100.{n}" for n in range(AT_ONCE + WAITING_MAX)]
    under_way = [asyncio.create_task(passwords.fits("x", "y", each)) for each in addresses]
    async with asyncio.timeout(30):
        while running[0] < AT_ONCE:  # noqa: ASYNC110 — threads have no event for it
            await asyncio.sleep(0.01)
    with pytest.raises(TooManySignIns):
        await passwords.fits("x", "y", OFFICE)
    go.set()
    assert await asyncio.gather(*under_way) == [False] * len(under_way)
    assert most[0] == AT_ONCE


async def test_nobody_keeps_others_out_by_asking_often_from_one_network(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    monkeypatch.setattr(passwords, "_verify", lambda _kept, _text: go.wait(10))
    theirs = [f"2001:db8::{n:x}" for n in range(AT_ONCE + WAITING_MAX)]
    asking = [asyncio.create_task(passwords.fits("x", "y", each)) for each in theirs]
    await asyncio.sleep(0.01)
    mine = asyncio.create_task(passwords.fits("x", "y", OFFICE))
    await asyncio.sleep(0.01)
    refused = [each for each in asking if each.done()]
    assert len(refused) == len(asking) - OF_ONE_MAX
    assert not mine.done()
    go.set()
    answers = await asyncio.gather(*asking, mine, return_exceptions=True)
    assert [each for each in answers if each is not True] == [each.exception() for each in refused]
    assert {type(each.exception()) for each in refused} == {TooManySignIns}
    assert await passwords.fits("x", "y", theirs[0]), "and their places are free again"
