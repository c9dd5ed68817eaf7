"""
The reads of players on HTTP: list, card, timeline, notes, and whether marketing may write.

Invariant: as in app.querying, whose routes these are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from access.policy import Action
from app import openapi, problems
from commands.players import index_words
from domain.errors import Invalid, InvalidId, NotFound
from domain.kernel import PlayerId
from domain.players import Channel, Status
from eventstore.vault import Vault
from queries import erasures, limits, players, protection, timeline
from queries.context import Context

_FOUND_BY = ("email", "phone", "name", "external_id")
_ONE = "/v1/players/{player_id}"
_TEXT = {"type": "string"}
_MISSING = (NotFound, InvalidId)


def add(get: Callable[..., None], vault: Vault, paging: Sequence[dict[str, Any]]) -> None:
    """Add the routes by `get`, which is that of app.querying."""

    async def page(context: Context, **given: Any) -> players.PlayerPage:
        """Players, the newest first: all, some, or of those the ones with exactly this e-mail, phone, name or external id."""
        wanted = {field: given.pop(field) for field in _FOUND_BY if field in given}
        found: list[set[str]] = []
        for field, value in wanted.items():
            if not value.strip():
                raise Invalid(f"{field} is what to look for", parameter=field)
            found += [set(await vault.find(field, word)) for word in index_words(field, value)]
        among = [PlayerId(f"player_{subject}") for subject in set.intersection(*found)] if found else None
        return await players.page(context, among=among, **given)

    async def may_contact(context: Context, player_id: PlayerId, channel: str) -> players.MayContact:
        """Whether marketing may write to a player through a channel now: the one place to ask."""
        return await players.may_contact(context, player_id, channel, datetime.now(UTC))

    async def limited(context: Context, player_id: PlayerId) -> limits.PlayerLimits:
        """A player's limits now: the law's, the house's and their own, what is used of each, and which raises wait."""
        return await limits.card(context, player_id, datetime.now(UTC))

    async def protected(context: Context, player_id: PlayerId) -> protection.PlayerProtection:
        """How a player is protected now: what shuts them out, what the house has stopped, what registers have said."""
        return await protection.card(context, player_id, datetime.now(UTC))

    look_up = [openapi.query_parameter(field, _TEXT, "Exact look-up by blind index.") for field in _FOUND_BY]
    chosen = [
        openapi.query_parameter("status", {**_TEXT, "enum": [each for each in Status if each is not Status.UNKNOWN]}),
        openapi.query_parameter("brand", _TEXT),
        openapi.query_parameter("country", _TEXT, "ISO 3166-1 alpha-2."),
        openapi.query_parameter("tag", _TEXT),
        openapi.query_parameter("registered_from", _TEXT, "A day (UTC) or an RFC 3339 time."),
        openapi.query_parameter("registered_to", _TEXT, "The same; those registered before it."),
    ]
    listed = [*look_up, *chosen, *paging]
    get("/v1/players", players.PlayerPage, Action.PLAYER_READ, page, parameters=listed, filtered=True)
    get(_ONE, players.PlayerCard, Action.PLAYER_READ, players.card, errors=(*_MISSING, problems.Unopenable))
    get(
        f"{_ONE}/history",
        timeline.Timeline,
        Action.PLAYER_READ,
        timeline.history,
        parameters=paging,
        errors=_MISSING,
    )
    get(
        f"{_ONE}/notes",
        timeline.Notes,
        Action.PLAYER_READ,
        timeline.notes,
        parameters=paging,
        errors=(*_MISSING, problems.Unopenable),
    )
    errors = (erasures.NotErased, InvalidId)
    get(f"{_ONE}/erasure", erasures.Erasure, Action.PLAYER_READ, erasures.get, errors=errors)
    get(f"{_ONE}/limits", limits.PlayerLimits, Action.PLAYER_READ, limited, errors=_MISSING)
    get(f"{_ONE}/protection", protection.PlayerProtection, Action.PLAYER_READ, protected, errors=_MISSING)
    get(
        f"{_ONE}/may-contact",
        players.MayContact,
        Action.PLAYER_READ,
        may_contact,
        parameters=[openapi.query_parameter("channel", {**_TEXT, "enum": list(Channel)}, required=True)],
        errors=_MISSING,
    )
