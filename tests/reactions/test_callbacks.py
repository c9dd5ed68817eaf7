"""What providers say: signed, in any order, any number of times; and each thing that they say has one effect."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from access.tokens import Tokens
from app import callbacks as door
from app.api import explain_errors
from app.authentication import Authentication
from app.openapi import Schemas
from app.planning import Services
from app.starting import Start
from commands import callbacks
from commands.callbacks import Callback, NotTheirs, UnknownVerb
from commands.edge import Edge
from commands.identity import command_id
from commands.plan import Context, Receipt
from commands.transactions import Payment
from domain import limits, transactions, wallets
from domain.errors import Invalid, KeyReused, NotFound, Rejected, TransactionClosed
from domain.kernel import Money, PlayerId, TransactionId
from domain.transactions import AmountDiffers, NotDisputed, NotSettled, ProviderRefused, Status
from providers import signing
from tests.commands.house import CODEC, SECRET, House, Process, made, placed
from tests.ledger import OWNED
from tests.providers.psp import SECRET as SHARED
from tests.providers.psp import Psp
from tests.reactions.region import Region

Said = dict[str, Any]

SPEAKS = {"acme": {"payments"}, "other": {"payments"}, "ident": {"kyc"}, "other_ident": {"kyc"}}


async def said(house: House, process: Process | None = None, provider: str = "acme", **callback: Any) -> Receipt:
    """A callback over a log in memory, after its signature was found right. Raises Rejected."""

    def edge(context: Context) -> Edge:
        return Edge(context, house.vault, list(OWNED), "eu")  # type: ignore[arg-type]

    plan = callbacks.plan(
        provider, Callback(**callback), speaks=SPEAKS[provider], now=house.now, secret=SECRET, edge=edge, trace=None
    )
    return await (process or house.process).decider.decide(plan)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    made = House()
    yield made
    await made.close()


def fold(house: House, stream: Any) -> Any:
    state = stream.aggregate.initial
    for entry in house.log.entries:
        read = CODEC.decode(entry)
        if read.body.stream == stream.name:
            state = stream.aggregate.evolve(state, read.event, read.at)
    return state


def outcome(house: House, player: str, deposit: str) -> tuple[Any, ...]:
    """All of a deposit that must not depend on the order in which it was told."""
    payment = fold(house, transactions.stream(TransactionId(deposit)))
    accounts = fold(house, wallets.stream(PlayerId(player))).balance("EUR")
    used = fold(house, limits.stream(PlayerId(player))).deposited.of_day
    assert sum(amount for event in house.log.events("wallet") for _, amount in wallets.postings(event)) == 0  # type: ignore[arg-type]
    return payment.status, payment.settled, payment.refunded, payment.lost, accounts, used


HISTORIES: list[list[Said]] = [
    [{"verb": "authorise", "id": "1"}, {"verb": "settle", "id": "2"}],
    [{"verb": "authorise", "id": "1"}, {"verb": "fail", "id": "2", "reason": "no money"}],
    [{"verb": "fail", "id": "1", "reason": "late"}, {"verb": "settle", "id": "2"}],
    [{"verb": "settle", "id": "1", "amount": 4200, "currency": "EUR"}, {"verb": "fail", "id": "2", "reason": "?"}],
    [
        {"verb": "settle", "id": "1"},
        {"verb": "dispute", "id": "2", "reference": "d", "reason": "stolen card"},
        {"verb": "lose", "id": "3", "reference": "d"},
    ],
    [
        {"verb": "authorise", "id": "1"},
        {"verb": "settle", "id": "2"},
        {"verb": "dispute", "id": "3", "reference": "d", "reason": "stolen card"},
        {"verb": "win", "id": "4", "reference": "d"},
    ],
    [
        {"verb": "settle", "id": "1"},
        {"verb": "refund", "id": "2", "reference": "r"},
        {"verb": "authorise", "id": "3"},
    ],
    [
        {"verb": "settle", "id": "1"},
        {"verb": "refund", "id": "2", "reference": "r1", "amount": 1000, "currency": "EUR"},
        {"verb": "refund", "id": "3", "reference": "r2", "amount": 500, "currency": "EUR"},
        {"verb": "refund", "id": "4", "reference": "r1", "amount": 1000, "currency": "EUR"},
    ],
    [
        {"verb": "settle", "id": "1"},
        {"verb": "dispute", "id": "2", "reference": "d1", "reason": "stolen card"},
        {"verb": "win", "id": "3", "reference": "d1"},
        {"verb": "dispute", "id": "4", "reference": "d2", "reason": "not me"},
        {"verb": "lose", "id": "5", "reference": "d2"},
    ],
]
"""What may become of a deposit of 50.00, as a provider would tell it if nothing were lost or overtaken."""

WITHDRAWALS: list[list[Said]] = [
    [{"verb": "settle", "id": "1"}, {"verb": "settle", "id": "2"}],
    [{"verb": "settle", "id": "1"}, {"verb": "return", "id": "2", "reason": "account closed"}],
    [
        {"verb": "settle", "id": "1"},
        {"verb": "return", "id": "2", "reason": "account closed"},
        {"verb": "settle", "id": "3"},
        {"verb": "return", "id": "4", "reason": "account closed"},
    ],
]
"""What may become of a withdrawal of 20.00."""


async def told(house: House, messages: Sequence[Said], deposit: str) -> None:
    """Deliver them in this order, and again what was refused, as providers do, until nothing changes any more."""
    waiting = list(messages)
    while waiting:
        refused = []
        for message in waiting:
            try:
                await said(house, transaction=deposit, **message)
            except Rejected:
                refused.append(message)
        if len(refused) == len(waiting):
            return
        waiting = refused


async def come_to(messages: Sequence[Said]) -> tuple[Any, ...]:
    house = House()
    try:
        player = await house.player()
        deposit = await house.deposit(player, 5000)
        await told(house, messages, deposit)
        return outcome(house, player, deposit)
    finally:
        await house.close()


@pytest.mark.parametrize("history", HISTORIES, ids=lambda history: "-".join(each["verb"] for each in history))
async def test_every_order_of_what_a_provider_says_comes_to_the_same(history: list[Said]) -> None:
    ends = [await come_to(order) for order in itertools.permutations(history)]
    assert ends[1:] == ends[:-1]


async def withdrawn(messages: Sequence[Said], before: Said | None) -> tuple[Any, ...]:
    """What a withdrawal comes to of which people have said `before` what its provider says."""
    house = House()
    try:
        player = await house.player()
        await house.process.post(f"/v1/players/{player}/kyc/approve", KNOWN, actor="payments:acme")
        await told(house, [{"verb": "settle", "id": "rich"}], await house.deposit(player, 5000))
        asked = {"amount": {"amount": 2000, "currency": "EUR"}, "provider": "acme"}
        withdrawal = made(await house.process.post(f"/v1/players/{player}/withdrawals", asked))
        for verb, body in (before or {}).items():
            await house.process.post(f"/v1/transactions/{withdrawal}/{verb}", {**body, "intervention": WHY})
        await told(house, messages, withdrawal)
        return outcome(house, player, withdrawal)[::4]  # where it stands, and what the player has
    finally:
        await house.close()


WHY = {"kind": "payment_trouble", "reason": "the bank has written"}
KNOWN = {"level": "identity", "method": "document", "age_verified": True}
SENT = {"send": {"reference": "P-1"}}
RETURNED = {**SENT, "return": {"reason": "given up"}}
REJECTED = {"reject": {"reason": "given up"}}


@pytest.mark.parametrize("before", [None, SENT, RETURNED, REJECTED], ids=["approved", "sent", "returned", "rejected"])
@pytest.mark.parametrize("history", WITHDRAWALS, ids=lambda history: "-".join(each["verb"] for each in history))
async def test_every_order_of_what_is_said_of_a_withdrawal_comes_to_the_same(history: list[Said], before: Any) -> None:
    ends = [await withdrawn(order, before) for order in itertools.permutations(history)]
    assert ends[1:] == ends[:-1]
    paid = any(each["verb"] == "settle" for each in history) and not any(each["verb"] == "return" for each in history)
    assert ends[0][1].cash == (3000 if paid else 5000)


@settings(max_examples=30)
@given(data=st.data())
async def test_and_so_does_every_repetition(data: Any) -> None:
    history = data.draw(st.sampled_from(HISTORIES))
    repeated = data.draw(st.permutations(history * 3))
    assert await come_to(repeated) == await come_to(history)


async def test_an_order_that_mattered_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault: a deposit that has failed stays failed."""
    real = transactions.settle_deposit

    def stubborn(transaction: Any, *arguments: Any, **named: Any) -> Any:
        if transaction.status is Status.FAILED:
            raise TransactionClosed(ended=transaction.status)
        return real(transaction, *arguments, **named)

    monkeypatch.setattr(transactions, "settle_deposit", stubborn)
    fail, settle = HISTORIES[2]
    assert await come_to([fail, settle]) != await come_to([settle, fail])


async def test_a_hundred_clients_with_one_reference_have_one_effect(region: Region) -> None:
    player = await region.player()
    deposit = await region.deposit(player, 5000)
    processes = [region.process, *(region.another_process() for _ in range(3))]
    receipts = await asyncio.gather(
        *(
            region.said(
                "acme", processes[n % 4], verb="settle", id=f"delivery {n}", reference="one", transaction=deposit
            )
            for n in range(100)
        )
    )
    assert len({json.dumps(str(each.answer)) for each in receipts}) == 1
    assert sum(not each.repeated for each in receipts) == 1
    assert region.tags("wallet") == ["wallet.credited"]
    assert region.accounts(player).cash == 5000
    region.books_balance()


async def test_a_hundred_clients_with_a_reference_each_settle_once(region: Region) -> None:
    player = await region.player()
    deposit = await region.deposit(player, 5000)
    processes = [region.process, *(region.another_process() for _ in range(3))]
    results = await asyncio.gather(
        *(region.said("acme", processes[n % 4], verb="settle", id=str(n), transaction=deposit) for n in range(100)),
        return_exceptions=True,
    )
    assert all(isinstance(each, Receipt) for each in results), results
    assert region.tags("wallet") == ["wallet.credited"]


# Lies


async def test_the_same_reference_with_another_content_is_refused(house: House) -> None:
    deposit = await house.deposit(await house.player(), 5000)
    first: Said = {"verb": "settle", "id": "1", "reference": "r", "transaction": deposit}
    await said(house, **first)
    assert (await said(house, **{**first, "id": "another delivery"})).repeated
    for lie in ({"amount": 1, "currency": "EUR"}, {"transaction": await house.deposit(await house.player(), 1)}):
        with pytest.raises(KeyReused):
            await said(house, **{**first, **lie})


async def test_another_amount_than_was_settled_is_refused(house: House) -> None:
    deposit = await house.deposit(await house.player(), 5000)
    await said(house, verb="settle", id="1", transaction=deposit)
    with pytest.raises(AmountDiffers):
        await said(house, verb="settle", id="2", transaction=deposit, amount=500_000, currency="EUR")


async def test_what_does_not_fit_is_recorded_and_refused_alike_when_it_is_said_again(house: House) -> None:
    deposit = await house.deposit(await house.player(), 5000)
    await said(house, verb="settle", id="1", transaction=deposit)
    for _ in range(2):
        with pytest.raises(AmountDiffers):
            await said(house, verb="settle", id="2", transaction=deposit, amount=4900, currency="EUR")
    with pytest.raises(TransactionClosed):
        await said(house, verb="fail", id="3", transaction=deposit, reason="no money")
    assert [event for event in house.log.events("transaction") if isinstance(event, ProviderRefused)] == [
        ProviderRefused(verb="settle", reference="2", money=Money(4900, "EUR"), code="amount_differs"),
        ProviderRefused(verb="fail", reference="3", code="transaction_closed"),
    ]


async def test_what_a_provider_says_beside_the_point_is_not_recorded_with_its_refusal(house: House) -> None:
    """An amount of which the verb does not speak was checked by nobody, and may be more than a log can hold."""
    player = await house.player()
    deposit = await house.deposit(player, 50)
    await said(house, id="1", verb="fail", transaction=deposit, reason="card")
    with pytest.raises(TransactionClosed):
        await said(house, id="2", verb="authorise", transaction=deposit, amount=2**60, currency="X" * 1000)
    [refused] = [event for event in house.log.events("transaction") if isinstance(event, ProviderRefused)]
    assert refused == ProviderRefused(verb="authorise", reference="2", code="transaction_closed")


@pytest.mark.parametrize("verb", ["dispute", "win", "lose", "refund"])
async def test_what_has_come_too_early_is_not_recorded(house: House, verb: str) -> None:
    deposit = await house.deposit(await house.player(), 5000)
    before = len(house.log.entries)
    reason = {"reason": "stolen"} if verb == "dispute" else {}
    with pytest.raises(NotDisputed if verb in ("win", "lose") else NotSettled):
        await said(house, verb=verb, id="1", reference="r", transaction=deposit, **reason)
    assert len(house.log.entries) == before


@pytest.mark.parametrize("verb", ["dispute", "win", "lose", "refund"])
async def test_what_could_be_told_twice_needs_a_reference_of_its_own(house: House, verb: str) -> None:
    deposit = await house.deposit(await house.player(), 5000)
    with pytest.raises(Invalid, match="reference"):
        await said(house, verb=verb, id="1", transaction=deposit)


async def test_a_refund_that_a_person_has_booked_is_not_booked_again_by_its_provider(house: House) -> None:
    player = await house.player()
    deposit = await house.deposit(player, 5000)
    await said(house, verb="settle", id="1", transaction=deposit)
    refund = {"reference": "re_1", "amount": {"amount": 2000, "currency": "EUR"}, "intervention": WHY}
    await house.process.post(f"/v1/transactions/{deposit}/refund", refund)
    for message in ("2", "3"):
        told = await said(
            house, verb="refund", id=message, reference="re_1", transaction=deposit, amount=2000, currency="EUR"
        )
        assert told.answer == Payment(deposit, Status.REFUNDED)
    assert fold(house, wallets.stream(PlayerId(player))).balance("EUR").cash == 3000


async def test_who_knows_people_moves_no_money_and_who_moves_money_knows_nobody(house: House) -> None:
    player = await house.player()
    deposit = await house.deposit(player, 5000)
    before = len(house.log.entries)
    with pytest.raises(NotTheirs):
        await said(house, verb="kyc_approve", id="1", player=player, **KNOWN)
    with pytest.raises(NotTheirs):
        await said(house, provider="ident", verb="settle", id="1", transaction=deposit)
    assert len(house.log.entries) == before


async def test_what_is_said_of_a_player_names_no_transaction(house: House) -> None:
    player = await house.player()
    deposit = await house.deposit(player, 5000)
    with pytest.raises(Invalid, match="transaction"):
        await said(house, provider="ident", verb="kyc_approve", id="1", player=player, transaction=deposit, **KNOWN)


async def test_a_provider_speaks_of_its_own_payments_only(house: House) -> None:
    deposit = await house.deposit(await house.player(), 5000)
    before = len(house.log.entries)
    with pytest.raises(NotFound):
        await said(house, provider="other", verb="settle", id="1", transaction=deposit)
    assert len(house.log.entries) == before


@pytest.mark.parametrize("verb", ["approve", "reject", "cancel", "send", "expire", "", "settle "])
async def test_what_is_not_for_providers_to_say_is_refused(house: House, verb: str) -> None:
    with pytest.raises(UnknownVerb):
        await said(house, verb=verb, id="1", transaction=await house.deposit(await house.player(), 5000))


async def test_what_a_verb_needs_is_asked_for_as_over_rest(house: House) -> None:
    deposit = await house.deposit(await house.player(), 5000)
    with pytest.raises(Invalid, match="reason"):
        await said(house, verb="fail", id="1", transaction=deposit)
    with pytest.raises(Invalid):
        await said(house, verb="settle", id="1", transaction=deposit, amount=1)


async def test_the_provider_stands_in_the_log_as_who_said_it(house: House) -> None:
    deposit = await house.deposit(await house.player(), 5000)
    await said(house, verb="settle", id="1", reference="r", transaction=deposit)
    body = CODEC.decode(house.log.entries[-1]).body
    assert (body.actor, body.command.id) == ("provider:acme", command_id("provider:acme", "settle\nr").hex())


# The door


class Door:
    def __init__(self, client: httpx2.AsyncClient, region: Region) -> None:
        self._client = client
        self.region = region

    async def post(
        self, message: Said, *, provider: str = "acme", at: float | None = None, secret: bytes = SHARED,
        header: str | None = None, raw: bytes | None = None,
    ) -> httpx2.Response:  # fmt: skip
        body = json.dumps(message).encode()
        signed = signing.sign(secret, body, int(time.time() if at is None else at))
        headers = {signing.HEADER: signed if header is None else header}
        return await self._client.post(f"/v1/providers/{provider}/callbacks", content=raw or body, headers=headers)


@asynccontextmanager
async def open_door(region: Region) -> AsyncIterator[Door]:
    services = Services(region.process.decider, region.vault, Authentication(Tokens([])), SECRET)  # type: ignore[arg-type]
    services = services._replace(residency=placed(OWNED))
    start, app = Start(), FastAPI()
    await start.record(region.process.decider, region.pool)
    known = {"acme": Psp().known, "other": Psp().known}
    app.include_router(door.router(services, start, Schemas(), lambda _counts: None, known))
    explain_errors(app)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://door") as client:
        yield Door(client, region)


async def test_what_is_signed_is_taken_and_taken_once(region: Region) -> None:
    player = await region.player()
    message = {"id": "1", "verb": "settle", "transaction": await region.deposit(player, 5000)}
    async with open_door(region) as door:
        first, second = await door.post(message), await door.post(message)
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json()
    assert first.json()["status"] == "settled"
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    assert first.headers["Ledger-Position"] == second.headers["Ledger-Position"]
    assert region.accounts(player).cash == 5000


async def test_what_is_not_signed_as_it_should_be_is_401_and_leaves_no_trace(region: Region) -> None:
    message = {"id": "1", "verb": "settle", "transaction": await region.deposit(await region.player(), 5000)}
    now = time.time()
    async with open_door(region) as door:
        before = len(region.ledger.entries())
        refused = [
            await door.post(message, header=""),
            await door.post(message, secret=b"another secret than ours"),
            await door.post(message, provider="nobody"),
            await door.post(message, at=now - 302),
            await door.post(message, at=now + 302),
            await door.post(message, raw=json.dumps({**message, "amount": 1}).encode()),
        ]
        assert {(each.status_code, each.json()["code"]) for each in refused} == {(401, "unauthenticated")}
        assert len({each.content for each in refused}) == 1
        assert len(region.ledger.entries()) == before


async def test_a_signed_message_that_makes_no_sense_is_refused_as_any_command(region: Region) -> None:
    deposit = await region.deposit(await region.player(), 5000)
    async with open_door(region) as door:
        unknown = {"id": "1", "verb": "settle", "transaction": deposit[:-1] + ("0" if deposit[-1] != "0" else "1")}
        assert (
            await door.post({"id": "1", "verb": "settle", "transaction": deposit}, provider="other")
        ).status_code == 404
        assert (await door.post({"id": "1", "verb": "steal", "transaction": deposit})).json()["code"] == "unknown_verb"
        assert (await door.post({"id": "1", "verb": "settle", "transaction": "x"})).status_code == 422
        assert (await door.post(unknown)).status_code in (404, 421)
        assert (await door.post({"verb": "settle"})).status_code == 422
        assert (
            await door.post({}, raw=b"not json", header=signing.sign(SHARED, b"not json", int(time.time())))
        ).status_code == 422
        wrong = {"id": "1", "verb": "win", "reference": "CB-1", "transaction": deposit}
        assert (await door.post(wrong)).status_code == 409
