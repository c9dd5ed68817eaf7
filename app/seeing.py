"""
What a reader may see: the policies, asked before a query runs.

Three kinds of reads: a list, which is filtered by what is left of the policies; one thing, which is looked up among those that
are seen, so that a hidden one is not found, as one that there is not; and what is about the house, sums over everybody included,
which is asked without attributes, so that whoever is bound to a brand does not get it.

Invariants:
    - a route that does not say that its query filters is asked as one about the house: forgetting it hides too much, never too little;
    - personal fields open where the policies say so of all that this answer can hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from access import cedar
from access.policy import Action, Principal
from access.predicate import ALWAYS, NEVER
from queries import seeing
from queries.context import Context

if TYPE_CHECKING:
    from app.querying import ReadSide


async def context_for(
    read: ReadSide, principal: Principal, action: Action, identifiers: Mapping[str, str], *, filtered: bool
) -> Context:
    """With what a query of this route may be asked. Raises Forbidden, NotFound, InvalidId."""
    policies, at = cedar.in_force(), datetime.now(UTC)
    principal.require(action)
    named = next((name for name in identifiers if name in seeing.THINGS), None)
    sees, personal = policies.sees(principal, action, at), policies.sees(principal, Action.PERSONAL_READ, at)
    if sees == NEVER or (named is None and not filtered):
        policies.require(principal, (action,), cedar.NOTHING, at)
        return read.context(principal, personal=personal == ALWAYS)
    context = read.context(principal, personal=personal in (ALWAYS, sees), sees=sees)
    if named is not None:
        await seeing.require(context, named, identifiers[named])
        if personal not in (ALWAYS, NEVER, sees):
            opens = await seeing.holds(context, named, identifiers[named], personal)
            return read.context(principal, personal=opens, sees=sees)
    return context


async def require_of(read: ReadSide, principal: Principal, action: Action, player: str | None = None) -> None:
    """Raises Forbidden unless the principal may do this to all, or to the player that is named; NotFound, as if there were none."""
    policies, at = cedar.in_force(), datetime.now(UTC)
    principal.require(action)
    if player is None:
        policies.require(principal, (action,), cedar.NOTHING, at)
    else:
        context = read.context(principal, sees=policies.sees(principal, action, at))
        await seeing.require(context, "player_id", player)
