"""CDNOW purchases: what a file says, what is sent, and what happens when the service dies, refuses, or has seen it all before."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cdnow import Imported, import_cdnow, locate, published
from app.cdnow.batches import BATCH_ITEMS, CUSTOMER_ITEMS_MAX, batches
from app.cdnow.history import Purchase, parse
from app.cdnow.stopped import DownloadFailed, ItemRefused, MalformedLine
from app.sending import ImportStopped, RequestRefused, Silent, Unreachable
from tests.app.shop import Shop, answer, busy, hang_up, open_shop

SAMPLE = b"""\
 00004 0001 19970101  2   29.33\r
 00004 0001 19970118  2   29.73\r
 00021 0002 19970101  3    0.00\r
 00021 0002 19970113  1   11.77\r
 00021 0002 19970113  1   11.77\r
 00050 0003 19970102  1    0.00\r
"""
MASTER = (
    b" customer_id  date number_of_cds  dollar_value\r\n 00001 19970101  1   11.77\r\n 00002 19970112  1   12.00\r\n"
)


@pytest.fixture
def shop() -> Iterator[Shop]:
    with open_shop() as opened:
        yield opened


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "purchases.txt"
    path.write_bytes(SAMPLE)
    return path


async def send(path: Path, shop: Shop, **options: object) -> Imported:
    return await import_cdnow(path, shop.url, "secret", **options)


# What a file says


def test_lines_are_grouped_by_customer_and_those_of_nothing_are_skipped() -> None:
    history = parse(SAMPLE)
    first, second, third = history.customers
    assert first.id == "00004"
    assert first.purchases == [Purchase(1, date(1997, 1, 1), 2933), Purchase(2, date(1997, 1, 18), 2973)]
    assert (second.line, second.since) == (3, date(1997, 1, 1)), "the first line counts, also one of 0.00"
    assert [purchase.line for purchase in second.purchases] == [4, 5], "two identical lines are two purchases"
    assert third.purchases == []
    assert (history.lines, history.skipped) == (6, 2)
    assert history.digest == hashlib.sha256(SAMPLE).hexdigest()


def test_the_master_file_names_its_columns_and_has_no_sample_id() -> None:
    history = parse(MASTER)
    assert [(c.id, c.line, c.purchases[0].cents) for c in history.customers] == [("00001", 2, 1177), ("00002", 3, 1200)]
    assert history.lines == 2


def test_lines_of_a_customer_need_not_stand_together() -> None:
    history = parse(b"1 19970101 1 1.00\n2 19970101 1 2.00\n1 19970102 1 3.00")
    assert [[purchase.cents for purchase in customer.purchases] for customer in history.customers] == [
        [100, 300],
        [200],
    ]


@given(st.integers(min_value=0, max_value=10**14 - 1))
def test_cents_are_exact(cents: int) -> None:
    history = parse(f"1 19970101 1 {cents // 100}.{cents % 100:02}".encode())
    assert sum(purchase.cents for purchase in history.customers[0].purchases) == cents


@pytest.mark.parametrize(("text", "cents"), [("7", 700), ("7.5", 750), ("0.07", 7), ("7.500", 750), ("1.15", 115)])
def test_dollars_are_written_in_several_ways(text: str, cents: int) -> None:
    assert parse(f"1 19970101 1 {text}".encode()).customers[0].purchases[0].cents == cents


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"1 19970101 1", "columns"),
        (b"1 1 19970101 1 1.00", "the lines before it have 4"),
        (b"1 19970230 1 1.00", "not a day of the calendar"),
        (b"1 1997-01-01 1 1.00", "not a date"),
        (b"1 2024W011 1 1.00", "not a date"),
        (b"1 19970101 1 1.005", "whole number of cents"),
        (b"1 19970101 1 -1.00", "not an amount"),
        (b"1 19970101 1 1e3", "not an amount"),
        (b"1 19970101 1 NaN", "not an amount"),
        (b"1 19970101 1 1,00", "not an amount"),
        (b"1 19970101 1 1_000", "not an amount"),
        (b"1 19970101 two 1.00", "not a number"),
        (b'x" 19970101 1 1.00', "not a number"),
        ("\u0661 19970101 1 1.00".encode(), "not a number"),
        (b"\xff\xfe 19970101 1 1.00", "not a number"),
        (b"customer_id date units dollars", "not a number"),
    ],
)
def test_a_malformed_line_is_named(line: bytes, reason: str) -> None:
    with pytest.raises(MalformedLine, match=rf"line 3: .*{reason}") as caught:
        parse(b"1 19970101 1 1.00\n\n" + line + b"\n1 19970101 1 1.00\n")
    assert caught.value.line == 3


def test_a_file_of_other_columns_is_refused_at_its_first_line() -> None:
    with pytest.raises(MalformedLine, match="line 1: has 2 columns; a line of the sample has 5"):
        parse(b"a,b,c d\n")


@pytest.mark.parametrize(
    ("name", "customers", "lines", "deposits", "skipped", "cents"),
    [("sample", 2_357, 6_919, 6_911, 8, 24_409_194), ("master", 23_570, 69_659, 69_579, 80, 250_031_563)],
)
def test_the_published_files_say_what_was_published(
    name: str, customers: int, lines: int, deposits: int, skipped: int, cents: int
) -> None:
    try:
        path = locate(name)
    except DownloadFailed as error:
        pytest.skip(str(error))
    history = parse(path.read_bytes())
    purchases = [purchase for customer in history.customers for purchase in customer.purchases]
    assert (len(history.customers), history.lines) == (customers, lines)
    assert (len(purchases), history.skipped, sum(p.cents for p in purchases)) == (deposits, skipped, cents)
    sent = [item for batch in batches(history) for item in batch.items]
    assert len(sent) == customers + deposits
    assert all(item.counted for item in sent)


# Where a file is


def test_a_cache_is_filled_once_and_a_damaged_file_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    told: list[str] = []
    try:
        path = locate("sample", told.append)
    except DownloadFailed as error:
        pytest.skip(str(error))
    assert "584 kB" in told[0]
    assert "228,327 bytes" in told[1]
    assert sorted(each.name for each in path.parent.iterdir()) == ["CDNOW_master.txt", "CDNOW_sample.txt"]
    assert locate("sample", told.append) == path
    assert len(told) == 2
    path.write_bytes(path.read_bytes()[:-10])
    assert parse(locate("sample", told.append).read_bytes()).lines == 6_919


def test_without_an_installer_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(published.shutil, "which", lambda _: None)
    monkeypatch.setattr(published, "find_spec", lambda _: None)
    with pytest.raises(DownloadFailed, match="neither uv nor pip"):
        locate("sample", lambda _: None)


def test_any_other_name_is_a_path(file: Path) -> None:
    assert locate(str(file)) == file
    with pytest.raises(ImportStopped, match="there is no file"):
        locate(file.with_name("other"))


# What is sent


def test_a_batch_holds_whole_customers_and_deposits_name_their_registration() -> None:
    history = parse(SAMPLE)
    made = list(batches(history, size=6))
    assert [len(batch.items) for batch in made] == [6, 1]
    items = json.loads(made[0].body)["items"]
    assert items[0] == {
        "key": f"{history.digest}:player:00004",
        "path": "/v1/players",
        "body": {
            "country": "US",
            "currency": "USD",
            "brand": "cdnow",
            "external_id": "cdnow:00004",
            "occurred": "1997-01-01",
        },
    }
    assert items[5] == {
        "key": f"{history.digest}:5",
        "path": "/v1/players/$3/deposits",
        "body": {
            "amount": {"amount": 1177, "currency": "USD"},
            "provider": "cdnow",
            "reference": "line 5",
            "occurred": "1997-01-13",
        },
    }
    assert len({item["key"] for batch in made for item in json.loads(batch.body)["items"]}) == 7


def test_a_customer_of_very_many_purchases_fills_several_batches_and_counts_once() -> None:
    purchases = 2 * CUSTOMER_ITEMS_MAX + 1
    made = list(batches(parse(b"1 19970101 1 1.00\n" * purchases)))
    assert [len(batch.items) for batch in made] == [CUSTOMER_ITEMS_MAX + 1, CUSTOMER_ITEMS_MAX + 1 + 2]
    assert sum(item.counted for batch in made for item in batch.items) == purchases + 1
    assert max(BATCH_ITEMS, CUSTOMER_ITEMS_MAX + 1) <= 1000, "what the API takes"


def test_a_key_is_short_enough_for_the_api() -> None:
    [batch] = batches(parse(b"99999999999999999999 19970101 1 1.00"))
    assert all(len(item["key"]) <= 200 for item in json.loads(batch.body)["items"])


# How it is sent


async def test_an_import_counts_what_the_ledger_accepted(file: Path, shop: Shop) -> None:
    done = await send(file, shop)
    assert (done.players, done.deposits, done.skipped) == (3, 4, 2)
    assert done.amount == {"USD": 2933 + 2973 + 2 * 1177}
    assert (done.repeated, done.new) == (0, 7)
    assert shop.authorization == "Bearer secret"
    assert sum(body["amount"]["amount"] for body in shop.deposits()) == done.amount["USD"]
    assert [body["external_id"] for body in shop.players()] == ["cdnow:00004", "cdnow:00021", "cdnow:00050"]


async def test_a_second_import_changes_nothing(file: Path, shop: Shop) -> None:
    first = await send(file, shop)
    before = dict(shop.kept)
    second = await send(file, shop)
    assert shop.kept == before
    assert (second.repeated, second.new) == (7, 0)
    assert (second.players, second.deposits, second.amount) == (first.players, first.deposits, first.amount)


@pytest.mark.parametrize("recorded", [False, True], ids=["not recorded", "recorded, but the answer got lost"])
async def test_a_killed_service_is_asked_again(file: Path, shop: Shop, recorded: bool) -> None:
    (shop.after if recorded else shop.before).extend([hang_up, hang_up])
    done = await send(file, shop)
    assert (done.players, done.deposits) == (3, 4)
    assert len(shop.kept) == 7
    assert done.repeated == (7 if recorded else 0)
    assert shop.requests == 3


async def test_a_busy_service_is_given_the_time_it_asks_for(file: Path, shop: Shop) -> None:
    shop.before.append(busy)
    done = await send(file, shop)
    assert done.new == 7
    assert done.seconds >= 1


async def test_a_fault_of_the_service_passes(file: Path, shop: Shop) -> None:
    shop.before.extend([lambda request, _: answer(request, 500, {"code": "fault"})] * 2)
    assert (await send(file, shop)).new == 7


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"status": 503, "title": "busy", "code": "unavailable"}, "an item: busy"),
        (
            {"status": 202, "command": "6c51", "state": "unknown"},
            "of an item it is not known yet whether it was recorded",
        ),
    ],
)
async def test_items_that_were_not_taken_are_sent_again(file: Path, shop: Shop, said: dict[str, Any], why: str) -> None:
    told: list[str] = []

    class Told(Silent):
        def waiting(self, reason: str) -> None:
            told.append(reason)

    key = f"{hashlib.sha256(SAMPLE).hexdigest()}:player:00021"
    shop.refused[key] = said

    def relent(_request: object, shop: Shop) -> bool:
        shop.refused.clear()
        return False

    shop.after.append(relent)
    done = await send(file, shop, progress=Told())
    assert told == [why]
    assert (done.players, done.deposits) == (3, 4)
    assert shop.requests == 2
    assert len(shop.kept) == 7


async def test_a_refused_item_stops_the_import_and_names_its_line(file: Path, shop: Shop) -> None:
    digest = hashlib.sha256(SAMPLE).hexdigest()
    shop.refused[f"{digest}:player:00021"] = {"status": 409, "title": "The player is blocked", "code": "player_blocked"}
    with pytest.raises(ItemRefused, match=r"line 3 was refused: The player is blocked \[player_blocked\]") as caught:
        await send(file, shop)
    assert (caught.value.line, caught.value.code) == (3, "player_blocked")
    assert shop.requests == 1


async def test_a_request_that_is_refused_as_a_whole_is_not_repeated(file: Path, shop: Shop) -> None:
    shop.before.append(lambda request, _: answer(request, 401, {"title": "who?", "code": "unauthenticated"}))
    with pytest.raises(RequestRefused, match=r"401: who\? \[unauthenticated\]"):
        await send(file, shop)
    assert shop.requests == 1


async def test_another_service_at_that_address_is_recognised(file: Path, shop: Shop) -> None:
    shop.before.append(lambda request, _: answer(request, 200, {"hello": "world"}))
    with pytest.raises(RequestRefused, match="does not answer as the API of a region does"):
        await send(file, shop)


async def test_patience_ends(file: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(Unreachable, match=r"has not taken a batch for 0\.5 s .* run the same import again"):
            await import_cdnow(file, url, "secret", patience_s=0.5)


def test_a_malformed_file_sends_nothing(file: Path, shop: Shop) -> None:
    file.write_bytes(SAMPLE + b"oops\n")
    with pytest.raises(MalformedLine, match=r"purchases\.txt, line 7: has 1 columns"):
        asyncio.run(send(file, shop))
    assert shop.requests == 0


async def test_an_import_that_was_stopped_goes_on(tmp_path: Path, shop: Shop) -> None:
    path = tmp_path / "many.txt"
    path.write_bytes(b"".join(b"%d 19970101 1 1.00\n" % (line // 3) for line in range(9_000)))
    started = asyncio.create_task(send(path, shop))
    while shop.requests < 3:  # noqa: ASYNC110 — the service is a thread
        await asyncio.sleep(0.002)
    started.cancel()
    with pytest.raises(asyncio.CancelledError):
        await started
    with shop.lock:
        assert 0 < len(shop.kept) < 12_000
    done = await send(path, shop)
    assert (done.players, done.deposits, done.amount) == (3_000, 9_000, {"USD": 900_000})
    assert len(shop.kept) == 12_000
    assert 0 < done.repeated < 12_000


async def test_progress_is_told_and_always_ends(file: Path, shop: Shop) -> None:
    told: list[object] = []

    class Told:
        def start(self, total: int) -> None:
            told.append(total)

        def advance(self, count: int) -> None:
            told.append(("done", count))

        def waiting(self, reason: str) -> None:
            told.append("waiting")

        def stop(self) -> None:
            told.append("stopped")

    shop.before.append(hang_up)
    await send(file, shop, progress=Told())
    assert told == [7, "waiting", ("done", 7), "stopped"]
    told.clear()
    shop.before.append(lambda request, _: answer(request, 403, {}))
    with pytest.raises(RequestRefused):
        await send(file, shop, progress=Told())
    assert told == [7, "stopped"]
