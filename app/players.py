"""
The reads of players on HTTP: list, look-up, card, timeline, notes, and whether marketing may write.

Invariants:
    - as in app.querying, whose routes these are;
    - what a player is looked up by stands in a body, and in no address.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from access.policy import Action
from app import openapi
from app.routing import IDENTIFYING
from commands.edge import PERSONAL
from commands.players import index_words
from domain.errors import Invalid, InvalidId, NotFound
from domain.kernel import PlayerId
from domain.players import Channel, Status
from eventstore.vault import Vault
from queries import erasures, limits, players, protection, timeline
from queries.causal import LOG
from queries.context import Context

_ONE = "/v1/players/{player_id}"
_TEXT = {"type": "string"}
_PLAYERS = ("players",)
_FOLDED = (*_PLAYERS, LOG)
"""What is folded from the log, for whoever sees the player."""
_MISSING = (NotFound, InvalidId)
_CHOSEN = [
    openapi.query_parameter("status", {**_TEXT, "enum": [each for each in Status if each is not Status.UNKNOWN]}),
    openapi.query_parameter("brand", _TEXT),
    openapi.query_parameter("country", _TEXT, "ISO 3166-1 alpha-2."),
    openapi.query_parameter("tag", _TEXT),
    openapi.query_parameter("registered_from", _TEXT, "A day (UTC) or an RFC 3339 time."),
    openapi.query_parameter("registered_to", _TEXT, "The same; those registered before it."),
]


Sought = Annotated[
    str, msgspec.Meta(min_length=1, max_length=500, description="Exact look-up by blind index.", extra=PERSONAL)
]


class LookUp(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom to look for: with exactly this e-mail, phone, name or external id, one of which is needed and all of which must fit. Of those
    found, only players with this status, brand, country or tag, or registered in a time (registered_from ≤ … < registered_to; a day
    or an RFC 3339 time).
    """

    email: Sought | None = None
    phone: Sought | None = None
    name: Sought | None = None
    external_id: Sought | None = None
    status: str | None = None
    brand: str | None = None
    country: str | None = None
    tag: str | None = None
    registered_from: str | None = None
    registered_to: str | None = None
    cursor: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=200, description="50 if absent.")] | None = None


def add(get: Callable[..., None], look_up: Callable[..., None], vault: Vault, paging: Sequence[dict[str, Any]]) -> None:
    """Add the routes by `get` and `look_up`, which are those of app.querying."""

    async def page(context: Context, **given: Any) -> players.PlayerPage:
        """Players, the newest first: all, or some."""
        return await players.page(context, **given)

    get(
        "/v1/players",
        players.PlayerPage,
        Action.PLAYER_READ,
        page,
        reads=_PLAYERS,
        parameters=[*_CHOSEN, *paging],
        filtered=True,
    )
    look_up("/v1/players/look-up", LookUp, players.PlayerPage, Action.PLAYER_READ, _finding(vault), reads=_PLAYERS)
    get(_ONE, players.PlayerCard, Action.PLAYER_READ, players.card, reads=_FOLDED, errors=_MISSING, opens=True)
    get(
        f"{_ONE}/history",
        timeline.Timeline,
        Action.PLAYER_READ,
        timeline.history,
        reads=(*_PLAYERS, "transactions", "approvals", "notices", "tickets", LOG),
        parameters=paging,
        errors=_MISSING,
    )
    get(
        f"{_ONE}/notes",
        timeline.Notes,
        Action.PLAYER_READ,
        timeline.notes,
        reads=_FOLDED,
        parameters=paging,
        errors=_MISSING,
        opens=True,
    )
    errors = (erasures.NotErased, InvalidId)
    get(f"{_ONE}/erasure", erasures.Erasure, Action.PLAYER_READ, erasures.get, reads=_FOLDED, errors=errors)
    get(f"{_ONE}/limits", limits.PlayerLimits, Action.PLAYER_READ, limited, reads=_FOLDED, errors=_MISSING)
    get(
        f"{_ONE}/protection",
        protection.PlayerProtection,
        Action.PLAYER_READ,
        protected,
        reads=_FOLDED,
        errors=_MISSING,
    )
    get(
        f"{_ONE}/may-contact",
        players.MayContact,
        Action.PLAYER_READ,
        may_contact,
        reads=_FOLDED,
        parameters=[openapi.query_parameter("channel", {**_TEXT, "enum": list(Channel)}, required=True)],
        errors=_MISSING,
    )


async def may_contact(context: Context, player_id: PlayerId, channel: str) -> players.MayContact:
    """Whether marketing may write to a player through a channel now: the one place to ask."""
    return await players.may_contact(context, player_id, channel, datetime.now(UTC))


async def limited(context: Context, player_id: PlayerId) -> limits.PlayerLimits:
    """A player's limits now: the law's, the house's and their own, what is used of each, and which raises wait."""
    return await limits.card(context, player_id, datetime.now(UTC))


async def protected(context: Context, player_id: PlayerId) -> protection.PlayerProtection:
    """How a player is protected now: what shuts them out, what the house has stopped, what registers have said."""
    return await protection.card(context, player_id, datetime.now(UTC))


def _finding(vault: Vault) -> Callable[..., Awaitable[players.PlayerPage]]:
    async def found(context: Context, **given: Any) -> players.PlayerPage:
        """Players who have exactly this e-mail, phone, name or external id, the newest first."""
        wanted = {field: given.pop(field) for field in IDENTIFYING if field in given}
        if not wanted:
            raise Invalid(f"a look-up says by what: {', '.join(IDENTIFYING)}", pointer="")
        having: list[set[str]] = []
        for field, value in wanted.items():
            if not value.strip():
                raise Invalid(f"{field} is what to look for", pointer=f"/{field}")
            having += [set(await vault.find(field, word)) for word in index_words(field, value)]
        among = [PlayerId(f"player_{subject}") for subject in set.intersection(*having)]
        shown = await players.page(context, among=among, **given)
        # That somebody of this name or address plays here is personal, though nothing is opened for it.
        context.told.update(each.id for each in shown.items)
        return shown

    return found
