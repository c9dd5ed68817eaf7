"""The adapter over HTTP, against a provider that fails, repeats, delays and lies."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest

from domain.kernel import Money, TransactionId
from providers.http import TRIES, HttpProvider
from providers.port import Accepted, Declined, Payout, Unanswered, Unbelievable
from tests.providers.psp import Fault, Psp, delay, fail, hang_up, open_psp, say, sign_wrongly

PAYOUT = Payout(TransactionId("transaction_01m81j18g0ehsa2vkkc5hq8c1a"), Money(5000, "EUR"), "DE02 1203")


@pytest.fixture
def psp() -> Iterator[Psp]:
    with open_psp() as opened:
        yield opened


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(trust_env=False) as opened:
        yield opened


def adapter(psp: Psp, client: httpx2.AsyncClient, **more: Any) -> HttpProvider:
    return HttpProvider(psp.known, client, pause_s=0.001, **more)


async def test_a_payout_is_asked_for_and_its_reference_comes_back(psp: Psp, client: httpx2.AsyncClient) -> None:
    assert await adapter(psp, client).pay(PAYOUT) == Accepted("psp-1")
    assert psp.asked == [
        {"transaction": PAYOUT.transaction, "amount": 5000, "currency": "EUR", "instrument": "DE02 1203"}
    ]


async def test_a_refusal_is_an_answer(psp: Psp, client: httpx2.AsyncClient) -> None:
    psp.declines.add(5000)
    assert await adapter(psp, client).pay(PAYOUT) == Declined("no such account")
    assert psp.paid == []


async def test_asking_again_does_not_pay_again(psp: Psp, client: httpx2.AsyncClient) -> None:
    asking = adapter(psp, client)
    assert {await asking.pay(PAYOUT) for _ in range(3)} == {Accepted("psp-1")}
    assert len(psp.paid) == 1


@pytest.mark.parametrize("fault", [hang_up, fail])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_lost_answer_is_asked_for_again(psp: Psp, client: httpx2.AsyncClient, fault: Fault, when: str) -> None:
    getattr(psp, when).extend([fault, fault])
    assert await adapter(psp, client).pay(PAYOUT) == Accepted("psp-1")
    assert (len(psp.asked), len(psp.paid)) == (3, 1)


async def test_a_provider_that_stays_away_has_not_answered(psp: Psp, client: httpx2.AsyncClient) -> None:
    psp.before.extend([fail] * TRIES)
    with pytest.raises(Unanswered, match="503"):
        await adapter(psp, client).pay(PAYOUT)
    assert len(psp.asked) == TRIES


async def test_nobody_waits_for_ever(psp: Psp, client: httpx2.AsyncClient) -> None:
    psp.after.extend([delay(0.3)] * TRIES)
    with pytest.raises(Unanswered, match="Timeout"):
        await adapter(psp, client, timeout_s=0.02).pay(PAYOUT)


LIES: list[tuple[Fault, str]] = [
    (say(amount=50), "another payout"),
    (say(currency="SEK"), "another payout"),
    (say(transaction="transaction_01m81j18g0ehsa2vkkc5hq8c1b"), "another payout"),
    (say(reference=""), "without a reference"),
    (say(status="perhaps"), "status"),
    (sign_wrongly, "another's"),
    (say(status="declined", reason="no\ufffe"), r"U\+FFFE"),
    (say(status="declined", reason="no\0"), r"U\+0000"),
    (say(reference="\U0010ffff"), r"U\+10FFFF"),
    (say(reference="\ud800"), "acme"),
    (say(reference="r" * 201), "200"),
    (say(status="declined", reason="r" * 501), "500"),
]


@pytest.mark.parametrize(("lie", "noticed"), LIES)
async def test_a_lie_is_noticed_and_is_no_answer(
    psp: Psp, client: httpx2.AsyncClient, lie: Fault, noticed: str
) -> None:
    psp.before.append(lie)
    with pytest.raises(Unbelievable, match=noticed):
        await adapter(psp, client).pay(PAYOUT)
    assert len(psp.asked) == 1


async def test_an_answer_that_was_recorded_long_ago_is_no_answer(psp: Psp, client: httpx2.AsyncClient) -> None:
    with pytest.raises(Unanswered, match="401"):  # neither side believes the other then
        await adapter(psp, client, clock=lambda: time.time() - 400).pay(PAYOUT)
    assert psp.unsigned == TRIES


async def test_what_an_answer_says_may_be_as_long_as_is_agreed(psp: Psp, client: httpx2.AsyncClient) -> None:
    psp.before.extend([say(reference="ö" * 200), say(status="declined", reason="ö" * 500)])
    asking = adapter(psp, client)
    assert [await asking.pay(PAYOUT) for _ in range(2)] == [Accepted("ö" * 200), Declined("ö" * 500)]
