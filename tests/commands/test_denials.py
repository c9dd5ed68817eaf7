"""Refusals are recorded: soon, together, and never more often than every ten seconds."""

from __future__ import annotations

import asyncio
from typing import Any

from access.policy import Principal
from commands import denials as recording
from commands.denials import GAP_SECONDS, Denials, Kind
from commands.plan import Plan, Receipt
from domain.denials import DENIALS_MAX, AccessDenied, Denial
from domain.errors import Forbidden
from eventstore.writer import Unavailable

MARIA = Principal("operator:maria", frozenset())
TICKET = Kind("POST /v1/tickets/{ticket_id}/close", "ticket.work", "scope.brand")


class Log:
    """Takes what is recorded, and tells when; `down`: the next so many times it does not say whether it has."""

    def __init__(self) -> None:
        self.at = 0.0
        self.told: list[tuple[float, AccessDenied]] = []
        self.commands: set[bytes] = set()
        self.down = 0

    async def decide(self, plan: Plan) -> Receipt:
        if plan.context.command_id not in self.commands:
            self.commands.add(plan.context.command_id)
            [event] = plan.decision(plan.context.now, state=None)
            self.told.append((self.at, event))  # type: ignore[arg-type]
        if self.down:
            self.down -= 1
            raise Unavailable("nobody knows")
        return Receipt(recording.Recorded(1), None, repeated=False)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.at += seconds

    def recorder(self, **more: Any) -> Denials:
        return Denials("eu", self.decide, monotonic=lambda: self.at, **{"sleep": self.sleep, **more})


async def settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_the_first_is_recorded_at_once_and_the_others_together() -> None:
    log = Log()
    recorder = log.recorder()
    recorder.note(MARIA, TICKET)
    await asyncio.sleep(0)
    for _ in range(5):
        recorder.note(MARIA, TICKET)
    await settled()
    assert [event.denials for _, event in log.told] == [(Denial(*TICKET, 1),), (Denial(*TICKET, 5),)]
    assert log.told[1][0] - log.told[0][0] >= GAP_SECONDS


async def test_of_more_kinds_than_an_event_holds_the_rest_is_counted() -> None:
    log = Log()
    recorder = log.recorder()
    for number in range(DENIALS_MAX + 7):
        recorder.note(MARIA, Kind(f"GET /{number}", "", ""))
    await settled()
    [(_, event)] = log.told
    assert (len(event.denials), event.more) == (DENIALS_MAX, 7)


async def test_what_the_log_has_not_confirmed_is_sent_again_as_it_was() -> None:
    log = Log()
    log.down = 2
    recorder = log.recorder()
    recorder.note(MARIA, TICKET)
    await settled()
    assert [event.denials for _, event in log.told] == [(Denial(*TICKET, 1),)]
    assert log.down == 0


async def test_closing_records_what_waits() -> None:
    log = Log()
    recorder = log.recorder(sleep=lambda _: asyncio.sleep(3600))
    recorder.note(MARIA, TICKET)
    await settled()
    recorder.note(MARIA, TICKET)
    await settled()
    assert len(log.told) == 1
    await recorder.close()
    assert [event.denials[0].times for _, event in log.told] == [1, 1]


def test_a_refusal_is_known_by_what_its_answer_says() -> None:
    refused = Forbidden("no", action="ticket.work", policy="scope.brand", reason="outside_brands")
    assert recording.kind_of(TICKET.what, refused) == TICKET
