"""
What a reader may see: the policies, asked before a query runs.

Three kinds of reads: a list, which is filtered by what is left of the policies; one thing, which is looked up among those that
are seen, so that a hidden one is not found, as one that there is not; and what is about the house, sums over everybody included,
which is asked without attributes, so that whoever is bound to a brand does not get it.

Invariants:
    - a route that does not say that its query filters is asked as one about the house: forgetting it hides too much, never too little;
    - personal fields may be opened where the policies say so of all that this answer can hold;
    - why a player is blocked of whom most of the house must not learn it is told to those alone who may touch such a case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from access import cedar
from access.policy import Action, Principal
from access.predicate import ALWAYS, NEVER, Known, Predicate
from queries import seeing

if TYPE_CHECKING:
    from app.querying import ReadSide


class Sight(NamedTuple):
    """Which rows are answered, and whether what is personal of players may be opened in them."""

    sees: Predicate
    personal: bool


async def sight_of(
    read: ReadSide, principal: Principal, action: Action, identifiers: Mapping[str, str], *, filtered: bool
) -> Sight:
    """What a query of this route may answer. Raises Forbidden, NotFound, InvalidId."""
    policies, at = cedar.in_force(), datetime.now(UTC)
    principal.require(action)
    named = next((name for name in identifiers if name in seeing.THINGS), None)
    sees, personal = policies.sees(principal, action, at), policies.sees(principal, Action.PERSONAL_READ, at)
    if sees == NEVER or (named is None and not filtered):
        policies.require(principal, (action,), cedar.NOTHING, at)
        return Sight(ALWAYS, personal == ALWAYS)
    if named is not None:
        context = read.context(sees=sees)
        await seeing.require(context, named, identifiers[named])
        if personal not in (ALWAYS, NEVER, sees):
            return Sight(sees, await seeing.holds(context, named, identifiers[named], personal))
    return Sight(sees, personal in (ALWAYS, sees))


def may_know(principal: Principal) -> Callable[[Known], bool]:
    """Whether somebody may learn that a case is secret: who may block a player in it."""
    return lambda known: cedar.in_force().decide(principal, Action.PLAYER_BLOCK, known, datetime.now(UTC))


def everything(principal: Principal) -> Sight:
    """All rows, and what is personal for whoever may read it of everybody."""
    return Sight(ALWAYS, cedar.in_force().settled(principal, (Action.PERSONAL_READ,)) is True)


async def require_of(read: ReadSide, principal: Principal, action: Action, player: str | None = None) -> None:
    """Raises Forbidden unless the principal may do this to all, or to the player that is named; NotFound, as if there were none."""
    policies, at = cedar.in_force(), datetime.now(UTC)
    principal.require(action)
    if player is None:
        policies.require(principal, (action,), cedar.NOTHING, at)
    else:
        context = read.context(sees=policies.sees(principal, action, at))
        await seeing.require(context, "player_id", player)
