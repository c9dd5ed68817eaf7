"""What is learnt of a player: decisions for Book.know, in which everything happens that a card shows beside money."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from domain import kyc, logins, players
from domain.players import Channel, ProfileRecorded
from policies.gates import Level

Learnt = Callable[[Any, Any, Any, datetime], Sequence[Any]]
"""(player, kyc, login, now) → events."""

LOGGED_IN: Learnt = lambda p, _k, login, at: logins.succeed(  # noqa: E731 — as the others
    login, p, succeeded=logins.Succeeded(session=str(at), device="ios", address="192.0.2.1")
)

KNOWN: list[Learnt] = [
    lambda p, _k, _l, at: players.record_profile(
        p,
        profile=ProfileRecorded(city="Wien", email="new", language="de", device="phone of Ada"),
        birth_date=None,
        at=at,
        alike={"email": "x"},
    ),
    lambda p, _k, _l, at: players.record_profile(
        p, profile=ProfileRecorded(jurisdiction="AT", street="Ring 1"), birth_date=None, at=at
    ),
    lambda p, _k, _l, _at: players.give_consent(p, channels=[Channel.SMS, Channel.EMAIL]),
    lambda p, _k, _l, _at: players.withdraw_consent(p, channels=[Channel.SMS]),
    lambda p, _k, _l, _at: players.tag(p, tag="vip"),
    lambda p, _k, _l, _at: players.tag(p, tag="new"),
    lambda p, _k, _l, _at: players.untag(p, tag="vip"),
    lambda p, _k, _l, _at: players.note(p, text="Hm."),
    lambda p, _k, _l, _at: players.unblock(p, reason="paid"),
    lambda p, _k, _l, _at: players.make_dormant(p),
    lambda p, _k, _l, at: players.close(p, reason="asked", at=at),
    lambda p, k, _l, at: kyc.request(k, p, level=Level.ENHANCED, due_at=at + timedelta(hours=20), at=at),
    lambda p, k, _l, _at: kyc.submit(k, p, submitted=kyc.Submitted(Level.IDENTITY, "document")),
    lambda p, k, _l, _at: kyc.submit(k, p, submitted=kyc.Submitted(Level.IDENTITY, "video", "ident", "case 7")),
    lambda p, k, _l, at: kyc.approve(
        k, p, approved=kyc.Approved(Level.IDENTITY, "document", age_verified=True, document_expires=at.date()), at=at
    ),
    lambda p, k, _l, _at: kyc.reject(k, p, rejected=kyc.Rejected(Level.IDENTITY, "document", "blurred")),
    lambda p, k, _l, at: kyc.approve(
        k,
        p,
        approved=kyc.Approved(Level.ENHANCED, "payslip", age_verified=True, document_expires=at.date()),
        at=at,
    ),
    lambda p, k, _l, _at: kyc.doubt_age(k, p, profile=ProfileRecorded(name="x")),
    lambda _p, k, _l, at: kyc.expire(k, at=at),
    lambda _p, k, _l, at: kyc.miss_deadline(k, at=at),
    LOGGED_IN,
    lambda p, _k, login, _at: logins.fail(login, p, failed=logins.Failed(reason="password")),
    lambda p, _k, login, _at: logins.end(login, p, session=(*login.sessions, "")[0]),
]
