"""No route of the whole interface is without a right, and whoever has no token gets nowhere else."""

from __future__ import annotations

from access.policy import Action
from commands.rights import RIGHTS
from tests.system.conftest import Client

OWN = ("/v1/me", "/v1/signin", "/v1/sessions", "/v1/batch", "/v1/commands/")
"""What concerns whoever is signed in, alone, and what they have sent; and what asks for each of its items by itself."""


def test_every_route_names_its_right_or_is_everybodys(eu: Client) -> None:
    paths = eu.get("/openapi.json").json["paths"]
    bare, unknown = [], set()
    for path, methods in paths.items():
        for method, route in methods.items():
            named = route.get("x-action", [])
            unknown |= set(named) - set(Action)
            if not named and route.get("security") != [] and not path.startswith(OWN):
                bare.append(f"{method} {path}")
    assert (bare, unknown) == ([], set())
    assert set(RIGHTS) <= paths.keys()
