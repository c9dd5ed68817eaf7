"""Notices and contacts as people ask for them: by what is due, in pages, with what was written opened for whoever may read it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from domain import contacts as contacting
from domain import notices as noticing
from domain.contacts import Channel, Outcome
from domain.errors import Invalid, InvalidId, NotFound
from domain.kernel import ContactId, NoticeId, PlayerId
from policies.findings import Kind, Severity
from queries import contacts, notices
from tests.projections.books import NOON, Book
from tests.queries.house import House

HOUR = timedelta(hours=1)


def raised(book: Book, player: PlayerId, due: int, **more: Any) -> NoticeId:
    notice = NoticeId(f"notice_{book._suffix(0)}")
    given = {"rule": "large_win", "kind": Kind.OPERATIONS, "severity": Severity.HIGH, **more}
    event = noticing.Raised(
        player=player, rule_version=1, events=("e-1",), facts={"amount": 1}, due_at=NOON + HOUR * due, **given
    )
    book._decided(noticing.stream(notice), [event])
    return notice


async def listed(house: House, **asked: Any) -> list[str]:
    """All pages, two rows each."""
    found: list[str] = []
    cursor = None
    while True:
        page = await notices.page(house.context, cursor=cursor, limit=2, **asked)
        found += [item.id for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return found


async def test_notices_are_listed_by_what_is_due_and_found_by_what_they_are(house: House) -> None:
    book = Book("eu")
    anna, ben = book.register(), book.register()
    late, soon, harm = (
        raised(book, anna, 9), raised(book, ben, 1, rule="failed_payments", severity=Severity.LOW), raised(book, anna, 5, kind=Kind.HARM)
    )  # fmt: skip
    book._decided(
        noticing.stream(soon), [noticing.Assigned("operator:bo"), noticing.Closed(noticing.Outcome.EXPLAINED)]
    )
    await house.project(book)
    assert await listed(house) == [soon, harm, late]
    assert await listed(house, status="open") == [harm, late]
    assert await listed(house, player=anna) == [harm, late]
    assert await listed(house, rule="failed_payments") == await listed(house, severity="low") == [soon]
    assert await listed(house, kind="harm", status="open") == [harm]
    assert await listed(house, assignee="operator:bo") == [soon]
    assert await listed(house, due_before=(NOON + HOUR * 5).isoformat()) == [soon]
    assert await listed(house, assignee="\0") == []


async def test_a_notice_shows_its_rules_version_the_events_and_the_figures(house: House) -> None:
    book = Book("eu")
    notice = raised(book, book.register(), 1)
    await house.project(book)
    found = await notices.get(house.context, notice)
    assert (found.state.rule, found.state.rule_version, found.state.events, found.state.facts) == (
        "large_win",
        1,
        ("e-1",),
        {"amount": 1},
    )
    with pytest.raises(NotFound):
        await notices.get(house.context, NoticeId("notice_01m81j18g0f858m2ga1850m2ha"))


async def test_a_contact_is_shown_with_what_was_written(house: House) -> None:
    book = Book("eu")
    player = book.register()
    contact = ContactId(f"contact_{book._suffix(0)}")
    opened = contacting.Opened(player=player, channel=Channel.ANY, due_at=NOON + HOUR, reason="harm_losses")
    made = contacting.Made(
        channel=Channel.PHONE, outcome=Outcome.ADVISED, note="Lost the job.", follow_up_due=NOON + HOUR * 9
    )
    for event in (opened, contacting.Attempted(Channel.PHONE), made):
        book._decided(contacting.stream(contact), [event])
    await house.project(book)
    found = await contacts.get(house.context, contact)
    assert (found.state.status, found.due_at, found.state.attempts) == ("following_up", NOON + HOUR * 9, 1)
    assert [(note.kind, note.note, note.sealed) for note in found.notes.items] == [
        ("attempted", None, False),
        ("made", "Lost the job.", False),
    ]
    first = await contacts.get(house.context, contact, limit=1)
    rest = await contacts.get(house.context, contact, cursor=first.notes.next_cursor, limit=1)
    assert [note.kind for note in (*first.notes.items, *rest.notes.items)] == ["attempted", "made"]
    for asked in ({"status": "following_up"}, {"player": player}, {"reason": "harm_losses"}):
        assert [item.id for item in (await contacts.page(house.context, **asked)).items] == [contact]
    assert (await contacts.page(house.context, status="done")).items == []


@pytest.mark.parametrize(
    "asked",
    [{"status": "lost"}, {"kind": "x"}, {"severity": "x"}, {"cursor": "x"}, {"limit": 0}, {"due_before": "soon"}],
)
async def test_what_cannot_be_meant_is_refused(house: House, asked: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        await notices.page(house.context, **asked)


async def test_ids_of_other_things_are_refused(house: House) -> None:
    with pytest.raises(InvalidId):
        await notices.page(house.context, player="ticket_01m81j18g0f858m2ga1850m2ha")
    with pytest.raises(InvalidId):
        await contacts.page(house.context, trigger="contact_01m81j18g0f858m2ga1850m2ha")
    with pytest.raises(InvalidId):
        await contacts.get(house.context, ContactId("notice_01m81j18g0f858m2ga1850m2ha"))
