"""A provider's statement against the ledger."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import reconciling
from app.reconciling import KINDS, Line, NotReconciled, Payment, Period, compare, read
from domain.kernel import Money

HEADER = "id,transaction,kind,amount,currency,status,at\n"
AT = "2026-11-20T10:00:00Z"
EVER = Period()


def transaction(number: int) -> str:
    return f"transaction_01m81j18g0ehsa2vkkc5hq8{number:03}"


def payment(number: int, **more: Any) -> Payment:
    nothing = Money(0, "EUR")
    told: dict[str, Any] = {
        "id": transaction(number), "kind": "deposit", "status": "settled", "provider": "acme",
        "settled_at": datetime.fromisoformat(AT), "settled": Money(5000, "EUR"), "refunded": nothing, "lost": nothing,
    }  # fmt: skip
    return Payment(**(told | more))


def line(number: int, amount: int = 5000, kind: str = "deposit", currency: str = "EUR", place: int = 2) -> Line:
    money = Money(amount, currency)
    return Line(place, f"p{place}", transaction(number), kind, money, "settled", datetime.fromisoformat(AT))


def file(folder: Path, *lines: str, header: str = HEADER) -> Path:
    written = folder / "statement.csv"
    written.write_text(header + "\n".join(lines) + "\n")
    return written


def found(lines: Sequence[Line], payments: Sequence[Payment], period: Period = EVER) -> dict[str, int]:
    result = compare("acme", lines, payments, period)
    return {
        name: count for name in ("matched", "missing_here", "missing_there", "amount_differs")
        if (count := len(getattr(result, name)))
    }  # fmt: skip


def test_what_both_know_matches() -> None:
    assert found([line(1)], [payment(1)]) == {"matched": 1}


def test_what_only_one_knows_is_missing_at_the_other() -> None:
    assert found([line(1)], []) == {"missing_here": 1}
    assert found([], [payment(1)]) == {"missing_there": 1}


@pytest.mark.parametrize("lie", [line(1, 4999), line(1, 5001), line(1, currency="SEK")])
def test_another_amount_or_currency_differs(lie: Line) -> None:
    assert found([lie], [payment(1)]) == {"amount_differs": 1}


def test_lines_of_one_transaction_are_added_up() -> None:
    assert found([line(1, 2000), line(1, 3000, place=3)], [payment(1)]) == {"matched": 1}
    assert found([line(1, 2500), line(1, 2500, currency="SEK", place=3)], [payment(1)]) == {"amount_differs": 1}


def test_refunds_chargebacks_and_returns_are_movements_of_their_own() -> None:
    back = payment(1, refunded=Money(1000, "EUR"), lost=Money(4000, "EUR"), status="lost")
    out = payment(2, kind="withdrawal", status="returned")
    lines = [
        line(1), line(1, 1000, "refund"), line(1, 4000, "chargeback"), line(2, 5000, "withdrawal"), line(2, 5000, "return"),
    ]  # fmt: skip
    assert found(lines, [back, out]) == {"matched": 5}
    assert found(lines[:1], [back]) == {"matched": 1, "missing_there": 2}


def test_what_was_settled_outside_the_period_is_not_missed() -> None:
    december = Period.of("2026-12-01T00:00:00Z", None)
    assert found([], [payment(1)], december) == {}
    assert found([line(1)], [payment(1)], december) == {"matched": 1}


movements = st.lists(st.tuples(st.integers(1, 9), st.sampled_from(KINDS), st.integers(1, 3)), max_size=12)


@given(movements, movements)
def test_every_movement_is_in_exactly_one_of_the_four(there: Any, here: Any) -> None:
    lines = [line(number, amount, kind, place=place) for place, (number, kind, amount) in enumerate(there, 2)]
    payments = {number: payment(number, settled=Money(amount, "EUR")) for number, _, amount in here}
    result = compare("acme", lines, list(payments.values()), EVER)
    findings = [*result.matched, *result.missing_here, *result.missing_there, *result.amount_differs]
    wanted = {(each.transaction, each.kind) for each in lines} | {(each.id, "deposit") for each in payments.values()}
    assert sorted((each.transaction, each.kind) for each in findings) == sorted(wanted)
    assert sorted(number for each in findings for number in each.lines) == [each.number for each in lines]
    assert all((each.here, each.there) == (each.there, each.here) for each in result.matched)


def test_lines_that_moved_no_money_are_left_out_and_the_same_line_twice_is_one(tmp_path: Path) -> None:
    one = f"p1,{transaction(1)},deposit,5000,EUR,settled,{AT}"
    failed = f"p2,{transaction(2)},deposit,5000,EUR,failed,{AT}"
    assert [(each.number, each.id) for each in read(file(tmp_path, one, one, failed))] == [(2, "p1")]


GOOD = ("p1", transaction(1), "deposit", "5000", "EUR", "settled", AT)


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, ""), (2, "gift"), (3, "50.00"), (3, "-1"), (3, "0"), (3, "٣"), (3, str(2**53)), (4, "EURO"), (6, "yesterday"),
     (6, "2026-11-20T10:00:00"), (6, "2026-11-20T10:00:00Z,more")],
)  # fmt: skip
def test_a_line_that_cannot_be_understood_is_named_and_nothing_is_compared(
    tmp_path: Path, place: int, value: str
) -> None:
    bad = ",".join((*GOOD[:place], value, *GOOD[place + 1 :])).replace("p1", "p2")
    with pytest.raises(NotReconciled, match="line 3"):
        read(file(tmp_path, ",".join(GOOD), bad))


def test_two_lines_of_one_id_that_differ_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotReconciled, match="lines 2 and 3"):
        read(file(tmp_path, ",".join(GOOD), ",".join(GOOD).replace("5000", "5001")))


def test_a_header_without_a_column_and_a_file_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotReconciled, match="kind"):
        read(file(tmp_path, header="id,transaction,amount,currency,status,at\n"))
    with pytest.raises(NotReconciled, match="nowhere"):
        read(tmp_path / "nowhere.csv")


@contextmanager
def answering(payments: Sequence[Payment], listed: int) -> Iterator[tuple[str, list[dict[str, list[str]]]]]:
    """A region's list of transactions over HTTP, in pages of two; only the first `listed` are in the list."""
    asked: list[dict[str, list[str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            known = {each.id: each for each in payments}
            body: Any = None
            if parts.path == "/v1/transactions":
                query = parse_qs(parts.query)
                asked.append(query)
                at = int(query.get("cursor", ["0"])[0])
                page = [json.loads(encoded(each)) for each in payments[:listed][at : at + 2]]
                body = {"items": page, "next_cursor": str(at + 2) if at + 2 < listed else None}
            elif (named := known.get(parts.path.rpartition("/")[2])) is not None:
                body = json.loads(encoded(named))
            raw = json.dumps(body).encode()
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def encoded(each: Payment) -> bytes:
    import msgspec

    return msgspec.json.encode(each)


def test_all_pages_are_read_and_what_only_the_statement_names_is_looked_up(tmp_path: Path) -> None:
    payments = [payment(number) for number in range(1, 6)] + [payment(6, provider="other")]
    statement = file(
        tmp_path, *(f"p{n},{transaction(n)},deposit,5000,EUR,settled,{AT}" for n in (1, 2, 3, 5, 6, 7)),
        f"p9,no id of ours,deposit,1,EUR,settled,{AT}",
    )  # fmt: skip
    with answering(payments, listed=4) as (url, asked):
        result = reconciling.run(statement, "acme", url, "token", Period(None, datetime(2027, 1, 1, tzinfo=UTC)))
    assert [each.transaction for each in result.matched] == [transaction(n) for n in (1, 2, 3, 5)]
    assert [each.transaction for each in result.missing_there] == [transaction(4)]
    assert [each.transaction for each in result.missing_here] == ["no id of ours", transaction(6), transaction(7)]
    assert (result.status, len(asked)) == (1, 2)
    assert asked[0]["provider"] == ["acme"]
    assert "missing there: deposit" in reconciling.in_words(result)


def test_a_region_that_does_not_answer_could_not_be_compared(tmp_path: Path) -> None:
    with pytest.raises(NotReconciled, match=r"127\.0\.0\.1"):
        reconciling.run(file(tmp_path), "acme", "http://127.0.0.1:9", "token", EVER)
