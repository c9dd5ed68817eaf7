"""The adapter over HTTP, against a register that fails, repeats, delays and lies."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from providers.port import Unanswered, Unbelievable
from providers.posting import ANSWER_BYTES_MAX
from providers.signing import WINDOW_S
from registers.http import TRIES, HttpRegister
from registers.port import Clear, InRegister, Person
from tests.registers.register import Fault, Register, delay, fail, hang_up, open_register, repeat, say, sign_wrongly

ADA = Person("Ada Lovelace", "1990-12-10", "ada@example.org", "+43 1 99")


@pytest.fixture
def register() -> Iterator[Register]:
    with open_register() as opened:
        yield opened


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(trust_env=False) as opened:
        yield opened


def adapter(register: Register, client: httpx2.AsyncClient, **more: Any) -> HttpRegister:
    return HttpRegister(register.known, client, pause_s=0.001, **more)


async def test_who_is_not_in_the_register_is_clear(register: Register, client: httpx2.AsyncClient) -> None:
    assert await adapter(register, client).ask(ADA) == Clear()
    (asked,) = register.asked
    assert {**asked, "question": ""} == {
        "question": "", "register": "CRUKS", "name": "Ada Lovelace", "birth_date": "1990-12-10",
        "email": "ada@example.org", "phone": "+43 1 99",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("until", "told"), [(None, None), ("2027-05-01T02:00:00+02:00", datetime(2027, 5, 1, tzinfo=UTC))]
)
async def test_who_is_in_it_is_excluded(
    register: Register, client: httpx2.AsyncClient, until: str | None, told: datetime | None
) -> None:
    register.excluded["Ada Lovelace", "1990-12-10"] = until
    assert await adapter(register, client).ask(ADA) == InRegister(told)


async def test_nothing_is_said_of_what_is_not_known(register: Register, client: httpx2.AsyncClient) -> None:
    await adapter(register, client).ask(Person(email="x@example.org"))
    assert set(register.asked[0]) == {"question", "register", "email"}


@pytest.mark.parametrize("fault", [hang_up, fail])
async def test_a_lost_answer_is_asked_for_again(register: Register, client: httpx2.AsyncClient, fault: Fault) -> None:
    register.faults.append(fault)
    assert await adapter(register, client).ask(ADA) == Clear()
    assert len({each["question"] for each in register.asked}) == 2


async def test_a_register_that_stays_down_has_not_answered_and_never_clear(
    register: Register, client: httpx2.AsyncClient
) -> None:
    register.down = True
    with pytest.raises(Unanswered):
        await adapter(register, client).ask(ADA)
    assert len(register.asked) == TRIES


async def test_nobody_listens(client: httpx2.AsyncClient) -> None:
    with open_register() as register:
        gone = register
    with pytest.raises(Unanswered):
        await adapter(gone, client).ask(ADA)


async def test_an_answer_that_takes_too_long_is_none(register: Register, client: httpx2.AsyncClient) -> None:
    register.faults += [delay(0.5), delay(0.5)]
    with pytest.raises(Unanswered):
        await adapter(register, client, timeout_s=0.05).ask(ADA)


@pytest.mark.parametrize(
    "lie",
    [
        sign_wrongly,
        say(question="0" * 32),
        say(register="ROFUS"),
        say(status="perhaps"),
        say(until="soon"),
        say(until="2027-05-01T00:00:00"),
        say(padding="x" * ANSWER_BYTES_MAX),
    ],
    ids=["another's signature", "another question", "another register", "no status", "no date", "no zone", "long"],
)
async def test_a_lie_is_no_answer_and_is_not_asked_for_again(
    register: Register, client: httpx2.AsyncClient, lie: Fault
) -> None:
    if getattr(lie, "__name__", "") == "fault":
        register.excluded["Ada Lovelace", "1990-12-10"] = None  # so that `until` is looked at
    register.faults.append(lie)
    with pytest.raises(Unbelievable):
        await adapter(register, client).ask(ADA)
    assert len(register.asked) == 1


async def test_an_old_answer_that_is_told_again_is_none(register: Register, client: httpx2.AsyncClient) -> None:
    fault = repeat()
    register.faults += [fault, fault]
    asking = adapter(register, client)
    assert await asking.ask(ADA) == Clear()
    with pytest.raises(Unbelievable):
        await asking.ask(ADA)


async def test_what_was_signed_at_another_time_is_no_answer_and_no_question(
    register: Register, client: httpx2.AsyncClient
) -> None:
    late = adapter(register, client, clock=lambda: time.time() + 2 * WINDOW_S)
    with pytest.raises(Unanswered):
        await late.ask(ADA)
    assert register.unsigned == TRIES
    assert register.asked == []


def test_a_person_is_not_told_by_accident() -> None:
    assert "Ada" not in repr(ADA)
    assert "Ada" not in f"{ADA}"
