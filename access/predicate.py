"""
What is left of the policies for somebody and an action, when only the attributes of the matter and the time are not known.

A predicate is read from the residual of Cedar's partial evaluation. It can be asked of attributes, or be written as SQL
(queries/seeing.py).

Invariant: what cannot be read whole is refused (Untranslatable), never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Known: TypeAlias = Mapping[str, str | int]
"""Attributes by name; one that is not known is absent."""


class Untranslatable(ValueError):
    """A policy says something that a predicate cannot say."""


class Missing(LookupError):
    """An attribute was compared that is not known: Cedar's error, of which the validated policies have none."""


@dataclass(frozen=True, slots=True)
class Constant:
    value: bool


@dataclass(frozen=True, slots=True)
class Attribute:
    name: str


@dataclass(frozen=True, slots=True)
class Value:
    value: str | int


@dataclass(frozen=True, slots=True)
class Has:
    attribute: str


@dataclass(frozen=True, slots=True)
class Compared:
    """`left` and `right` are both text, or both integers."""

    op: Literal["=", "<", "<="]
    left: Attribute | Value
    right: Attribute | Value


@dataclass(frozen=True, slots=True)
class OneOf:
    attribute: Attribute
    values: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: Predicate


@dataclass(frozen=True, slots=True)
class Both:
    """`right` is asked only if `left` holds."""

    left: Predicate
    right: Predicate


@dataclass(frozen=True, slots=True)
class Either:
    """`right` is asked only if `left` does not hold."""

    left: Predicate
    right: Predicate


@dataclass(frozen=True, slots=True)
class Choice:
    condition: Predicate
    then: Predicate
    otherwise: Predicate


Predicate: TypeAlias = Constant | Has | Compared | OneOf | Not | Both | Either | Choice

ALWAYS, NEVER = Constant(True), Constant(False)


def read(expression: Any) -> Predicate:  # noqa: C901, PLR0911, PLR0912 — one line for each word of the notation
    """A predicate from an expression of Cedar's JSON. Raises Untranslatable."""
    match expression:
        case {"Value": bool(value)}:
            return Constant(value)
        case {"&&": {"left": left, "right": right}}:
            return both(read(left), read(right))
        case {"||": {"left": left, "right": right}}:
            return either(read(left), read(right))
        case {"!": {"arg": part}}:
            return negated(read(part))
        case {"if-then-else": {"if": condition, "then": then, "else": otherwise}}:
            return choice(read(condition), read(then), read(otherwise))
        case {"has": {"left": {"unknown": [{"Value": "resource"}]}, "attr": str(name)}}:
            return Has(name)
        case {"==": {"left": left, "right": right}}:
            return _compared("=", left, right)
        case {"!=": {"left": left, "right": right}}:
            return negated(_compared("=", left, right))
        case {"<": {"left": left, "right": right}}:
            return _compared("<", left, right)
        case {"<=": {"left": left, "right": right}}:
            return _compared("<=", left, right)
        case {">": {"left": left, "right": right}}:
            return _compared("<", right, left)
        case {">=": {"left": left, "right": right}}:
            return _compared("<=", right, left)
        case {"contains": {"left": {"Set": list(members)}, "right": member}}:
            return _one_of(members, member)
    raise Untranslatable(f"not what a predicate can say: {str(expression)[:200]}")


def _operand(expression: Any) -> Attribute | Value:
    match expression:
        case {".": {"left": {"unknown": [{"Value": "resource" | "context"}]}, "attr": str(name)}}:
            return Attribute(name)
        case {"Value": bool()}:
            pass
        case {"Value": str(value) | int(value)}:
            return Value(value)
    raise Untranslatable(f"neither an attribute nor a value: {str(expression)[:200]}")


def _compared(op: Literal["=", "<", "<="], left: Any, right: Any) -> Predicate:
    return _decided(Compared(op, _operand(left), _operand(right)))


def _one_of(members: list[Any], member: Any) -> Predicate:
    values = [_operand(each) for each in members]
    attribute = _operand(member)
    if not isinstance(attribute, Attribute) or not all(isinstance(each, Value) for each in values):
        raise Untranslatable("only an attribute is looked for among values")
    found = tuple(each.value for each in values if isinstance(each, Value))
    return OneOf(attribute, found) if found else NEVER


def both(left: Predicate, right: Predicate) -> Predicate:
    if NEVER in (left, right):
        return NEVER
    return right if left == ALWAYS else left if right == ALWAYS else Both(left, right)


def either(left: Predicate, right: Predicate) -> Predicate:
    if ALWAYS in (left, right):
        return ALWAYS
    return right if left == NEVER else left if right == NEVER else Either(left, right)


def negated(part: Predicate) -> Predicate:
    match part:
        case Constant(value):
            return Constant(not value)
        case Not(inner):
            return inner
    return Not(part)


def choice(condition: Predicate, then: Predicate, otherwise: Predicate) -> Predicate:
    match condition:
        case Constant(value):
            return then if value else otherwise
    return then if then == otherwise else Choice(condition, then, otherwise)


def bound(predicate: Predicate, known: Known) -> Predicate:  # noqa: PLR0911 — one for each kind
    """The same where these attributes are known."""
    match predicate:
        case Has(name):
            return ALWAYS if name in known else predicate
        case Compared(op, left, right):
            return _decided(Compared(op, _bound(left, known), _bound(right, known)))
        case OneOf(Attribute(name), values):
            return Constant(known[name] in values) if name in known else predicate
        case Not(part):
            return negated(bound(part, known))
        case Both(left, right):
            return both(bound(left, known), bound(right, known))
        case Either(left, right):
            return either(bound(left, known), bound(right, known))
        case Choice(condition, then, otherwise):
            return choice(bound(condition, known), bound(then, known), bound(otherwise, known))
    return predicate


def _bound(operand: Attribute | Value, known: Known) -> Attribute | Value:
    return Value(known[operand.name]) if isinstance(operand, Attribute) and operand.name in known else operand


def _decided(compared: Compared) -> Predicate:
    match compared:
        case Compared(op, Value(left), Value(right)):
            return Constant(_compare(op, left, right))
    return compared


def _compare(op: str, left: Any, right: Any) -> bool:
    if type(left) is not type(right):
        return False
    return bool(left == right if op == "=" else left < right if op == "<" else left <= right)


def holds(predicate: Predicate, known: Known) -> bool:  # noqa: PLR0911 — one for each kind
    """Whether it holds where nothing but this is known. Raises Missing."""
    match predicate:
        case Constant(value):
            return value
        case Has(name):
            return name in known
        case Compared(op, left, right):
            return _compare(op, _value(left, known), _value(right, known))
        case OneOf(attribute, values):
            return _value(attribute, known) in values
        case Not(part):
            return not holds(part, known)
        case Both(left, right):
            return holds(left, known) and holds(right, known)
        case Either(left, right):
            return holds(left, known) or holds(right, known)
        case Choice(condition, then, otherwise):
            return holds(then if holds(condition, known) else otherwise, known)


def _value(operand: Attribute | Value, known: Known) -> str | int:
    if isinstance(operand, Value):
        return operand.value
    if operand.name not in known:
        raise Missing(operand.name)
    return known[operand.name]


def attributes(predicate: Predicate) -> frozenset[str]:  # noqa: PLR0911 — one for each kind
    """The attributes of which it speaks."""
    match predicate:
        case Has(name):
            return frozenset({name})
        case Compared(_, left, right):
            return frozenset(each.name for each in (left, right) if isinstance(each, Attribute))
        case OneOf(Attribute(name), _):
            return frozenset({name})
        case Not(part):
            return attributes(part)
        case Both(left, right) | Either(left, right):
            return attributes(left) | attributes(right)
        case Choice(condition, then, otherwise):
            return attributes(condition) | attributes(then) | attributes(otherwise)
    return frozenset()
