"""
Administrators: those who look after everybody else's rights. Each of their matters takes two of them, so the house is never left with
fewer by what one of them, or two of three, decide.

Invariant: once two persons administer without an end, no decision leaves fewer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from domain import operators
from domain.errors import Conflict
from domain.operators import Operator, OperatorEvent


class LastAdministrator(Conflict):
    code = "last_administrator"
    title = "Two people at least administer the house without an end; make another one first"


def keep(
    operator: Operator, decided: Sequence[OperatorEvent], others: Iterable[Operator], at: datetime
) -> Sequence[OperatorEvent]:
    """What was decided, unless fewer than two persons would administer without an end, and fewer than did. `others`: operators
    beside this one; who is missing among them makes it stricter. Raises LastAdministrator.
    """
    after = operator
    for event in decided:
        after = operators.evolve(after, event, at)
    people = {each.person for each in others if each.administers}
    before, left = ({*people, *([each.person] if each.administers else [])} for each in (operator, after))
    if len(left) < min(2, len(before)):
        raise LastAdministrator
    return decided
