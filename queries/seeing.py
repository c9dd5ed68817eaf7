"""
Whose rows somebody sees: what is left of the policies, as SQL. Lists are filtered where they are read, so that neither what they
count nor where they end tells of anything else; a single thing that is not seen is not found.

Invariants:
    - a hidden row and no row are told apart by nothing: same error, same words;
    - values are parameters; what SQL cannot say here is refused (Untranslatable);
    - where a listing does not say what an attribute is, no policy that asks for it is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import LiteralString, NamedTuple

from access.predicate import (
    ALWAYS,
    NEVER,
    Attribute,
    Both,
    Choice,
    Compared,
    Constant,
    Either,
    Has,
    Known,
    Not,
    OneOf,
    Predicate,
    Untranslatable,
    Value,
    both,
    choice,
    either,
    negated,
)
from domain.errors import NotFound
from domain.kernel import parse_id
from queries.context import Context


class NotSeen(NotFound):
    """To the caller it is NotFound: there may be nothing. (Who asked is recorded.)"""


Columns = Mapping[str, LiteralString | None]
"""By attribute, the expression that is it in a row, NULL where it is not known; None: these rows have none."""


class Sql(NamedTuple):
    text: LiteralString
    values: Sequence[object]


class Thing(NamedTuple):
    """What a path names: `kind` of its identifier ("": it has another form), where it is, and its attributes."""

    kind: str
    table: LiteralString
    id: LiteralString
    missing: str
    columns: Columns


def of_player(player: LiteralString, **more: LiteralString) -> Columns:
    """The attributes of what belongs to a player; `player`: the column, with its table."""
    whose: LiteralString = f"FROM read.player AS w WHERE w.id = {player}"
    return {
        "brand": f"(SELECT w.brand {whose})",
        "country": f"(SELECT w.country {whose})",
        "secrecy": f"(SELECT CASE WHEN w.block_reason = 'aml' THEN 'money_laundering' END {whose})",
        "vip": f"""(SELECT coalesce(max(CASE v.tag WHEN 'vip' THEN 1 ELSE right(v.tag, 1)::integer END), 0)
            FROM read.player_tag AS v WHERE v.player = {player} AND v.tag ~ '^vip(_[1-9])?$')""",
        **dict.fromkeys(("amount", "currency", "assignee")),
        **more,
    }


PLAYERS = of_player("p.id")
PAYMENTS = of_player("transaction.player", amount="transaction.amount", currency="transaction.currency")
TICKETS = of_player("t.player", assignee="t.assignee")
NOTICES = of_player("n.player", assignee="n.assignee")
CONTACTS = of_player("c.player")
APPROVALS = of_player("approval.player")
ROUNDS = of_player("round.player")
SESSIONS = of_player("session.player")

THINGS: Mapping[str, Thing] = {
    "player_id": Thing("player", "read.player AS p", "p.id", "no such player", PLAYERS),
    "transaction_id": Thing("transaction", "read.transaction", "id", "no such transaction", PAYMENTS),
    "ticket_id": Thing("ticket", "read.ticket AS t", "t.id", "no such ticket", TICKETS),
    "notice_id": Thing("notice", "read.notice AS n", "n.id", "no such notice", NOTICES),
    "contact_id": Thing("contact", "read.contact AS c", "c.id", "no such contact", CONTACTS),
    "approval_id": Thing("approval", "read.approval", "id", "no such approval", APPROVALS),
    "round": Thing("", "read.round", "id", "no such round", ROUNDS),
}
"""By the identifier in a path."""


async def holds(context: Context, identifier: str, value: str, predicate: Predicate) -> bool:
    """Whether there is such a thing, and the predicate holds of it. Raises InvalidId."""
    thing = THINGS[identifier]
    if thing.kind:
        parse_id(thing.kind, value)
    if predicate == NEVER or "\0" in value:  # no text of PostgreSQL holds it
        return False
    found = where(predicate, thing.columns)
    query: LiteralString = f"SELECT 1 FROM {thing.table} WHERE {thing.id} = %s AND {found.text}"
    return bool(await context.fetch(query, value, *found.values))


async def require(context: Context, identifier: str, value: str) -> None:
    """Raises InvalidId; NotFound if there is no such thing among those that are seen."""
    if context.sees != ALWAYS and not await holds(context, identifier, value, context.sees):
        raise NotSeen(THINGS[identifier].missing)


async def known(context: Context, identifier: str, value: str) -> Known:
    """What policies may ask of a thing that is seen. Raises InvalidId, NotFound."""
    await require(context, identifier, value)
    thing = THINGS[identifier]
    named = {name: column for name, column in thing.columns.items() if column is not None}
    columns: LiteralString = ", ".join(named.values())
    rows = await context.fetch(f"SELECT {columns} FROM {thing.table} WHERE {thing.id} = %s", value)
    if not rows:
        raise NotFound(thing.missing)
    return {name: found for name, found in zip(named, rows[0], strict=True) if found is not None}


def where(predicate: Predicate, columns: Columns) -> Sql:
    """SQL that is true for the rows of which the predicate holds. Raises Untranslatable."""
    return _sql(_without(predicate, columns), columns)


def _without(predicate: Predicate, columns: Columns) -> Predicate:
    """The same where rows lack some attributes."""
    match predicate:
        case Has(name):
            return predicate if _column(name, columns) is not None else NEVER
        case Not(part):
            return negated(_without(part, columns))
        case Both(left, right):
            return both(_without(left, columns), _without(right, columns))
        case Either(left, right):
            return either(_without(left, columns), _without(right, columns))
        case Choice(condition, then, otherwise):
            return choice(_without(condition, columns), _without(then, columns), _without(otherwise, columns))
    return predicate


def _sql(predicate: Predicate, columns: Columns) -> Sql:  # noqa: PLR0911 — one for each kind
    match predicate:
        case Constant(value):
            return Sql("true" if value else "false", ())
        case Has(name):
            return Sql(f"({_expression(name, columns)} IS NOT NULL)", ())
        case Compared(op, left, right):
            first, second = _operand(left, columns), _operand(right, columns)
            return Sql(f"({first.text} {op} {second.text})", (*first.values, *second.values))
        case OneOf(Attribute(name), values):
            kind: LiteralString = "bigint" if all(isinstance(each, int) for each in values) else "text"
            return Sql(f"({_expression(name, columns)} = ANY (%s::{kind}[]))", (list(values),))
        case Not(part):
            inner = _sql(part, columns)
            return Sql(f"(NOT {inner.text})", inner.values)
        case Both(left, right):
            return _joined("AND", _sql(left, columns), _sql(right, columns))
        case Either(left, right):
            return _joined("OR", _sql(left, columns), _sql(right, columns))
        case Choice(condition, then, otherwise):
            parts = [_sql(each, columns) for each in (condition, then, otherwise)]
            text: LiteralString = f"(CASE WHEN {parts[0].text} THEN {parts[1].text} ELSE {parts[2].text} END)"
            return Sql(text, [value for part in parts for value in part.values])


def _joined(word: LiteralString, left: Sql, right: Sql) -> Sql:
    return Sql(f"({left.text} {word} {right.text})", (*left.values, *right.values))


def _operand(operand: Attribute | Value, columns: Columns) -> Sql:
    if isinstance(operand, Attribute):
        return Sql(_expression(operand.name, columns), ())
    return Sql("%s::bigint" if isinstance(operand.value, int) else "%s::text", (operand.value,))


def _column(name: str, columns: Columns) -> LiteralString | None:
    """Raises Untranslatable."""
    if name not in columns:
        raise Untranslatable(f"these rows do not say what {name} is")
    return columns[name]


def _expression(name: str, columns: Columns) -> LiteralString:
    """Raises Untranslatable."""
    found = _column(name, columns)
    if found is None:
        raise Untranslatable(f"a policy compares {name}, which these rows do not have, without asking for it first")
    return found
