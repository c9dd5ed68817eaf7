"""Nobody gets in by any route; and where there is a hole, the suite finds it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from attacks import routes, site, suite, world
from attacks.__main__ import GROUPS, attack
from attacks.fuzz import SEED, fuzz
from attacks.suite import World

CHECKOUT = Path(__file__).parents[2]
Attacked = tuple[World, list[str]]


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    with site.running(tmp_path_factory.mktemp("attacked")) as here:
        yield world.make(here, quick=True)


def test_no_route_is_without_a_policy(attacked: Attacked) -> None:
    here, bare = attacked
    assert bare == []
    names = {route.name for route in here.routes}
    assert {
        *routes.OPEN,
        *routes.OWN,
        routes.BATCH,
        routes.FATE,
    } <= names  # nobody is let in where there is nothing any more


@pytest.mark.parametrize("group", GROUPS)
def test_no_attack_succeeds(attacked: Attacked, group: str) -> None:
    here, bare = attacked
    found = attack(here, bare, {group: GROUPS[group]})
    assert [str(each) for each in found.succeeded] == []
    assert found.faults == 0
    assert found.attacks.total() > 0


@pytest.mark.timeout(240)
def test_no_request_is_answered_by_a_fault_or_by_what_the_description_does_not_tell(attacked: Attacked) -> None:
    here, _ = attacked
    found = fuzz(here.site, 500, 60, SEED, workers=2)
    assert [str(each) for each in found.findings.values()] == []
    assert found.requests > 0


# Planted faults

HOLES = """
import msgspec
import access.sessions
import access.totp
import commands.rights

access.sessions.Session.may_change = lambda self, csrf: True  # CSRF is not checked

_begin = access.sessions.Sessions._keep


async def _kept(self, session, at):  # an id that somebody chose is what a session gets
    access.sessions.secrets.token_urlsafe = lambda n: "planted-by-somebody"
    return await _begin(self, session, at)


access.sessions.Sessions._keep = _kept

_step_of = access.totp.step_of
access.totp.step_of = lambda secret, code, at, last: _step_of(secret, code, at, 0)  # a code is good again

_named = commands.rights.require_named


def _asked(path, plan):  # one route asks for no right
    plan = _named(path, plan)
    return msgspec.structs.replace(plan, require=()) if path.endswith("/block") else plan


commands.rights.require_named = _asked
"""


@pytest.fixture(scope="module")
def leaking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A region whose processes have holes."""
    folder = tmp_path_factory.mktemp("holes")
    (folder / "sitecustomize.py").write_text(HOLES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{folder}:{CHECKOUT}")
        with site.running(tmp_path_factory.mktemp("leaking")) as here:
            made, _ = world.make(here, quick=False)
            few = [each for each in made.routes if each.template.endswith(("/block", "/unblock"))]
            yield made._replace(routes=few)


@pytest.mark.parametrize(
    ("group", "what"),
    [
        ("cross_role", "/block: answered 200"),
        ("csrf", "no CSRF token"),
        ("sessions", "an id that was planted"),
    ],
)
def test_a_hole_is_found(leaking: World, group: str, what: str) -> None:
    found = [str(each) for each in attack(leaking, [], {group: GROUPS[group]}).succeeded]
    assert [each for each in found if what in each]
    assert not [each for each in found if "/unblock" in each and group == "cross_role"]


def test_what_was_changed_is_found_whatever_was_answered(leaking: World) -> None:
    here = leaking.site
    asked = suite.Attack(
        "planted",
        "POST /v1/players",
        "registers somebody",
        site.Request(
            "POST",
            "/v1/players",
            {**here.as_role("operator"), "Content-Type": "application/json", "Idempotency-Key": here.key()},
            b'{"country":"AT","currency":"EUR"}',
        ),
        ((201, None),),
    )
    (outcome,) = suite.run([asked], here)
    assert outcome.wrong.startswith("recorded ")


def described(path: str, **told: Any) -> dict[str, Any]:
    return {"paths": {path: {"post": told}}, "components": {"schemas": {}}}


@pytest.mark.parametrize(
    "document",
    [
        described("/v1/new"),
        described("/v1/new", security=[]),
        described("/v1/new", security=[{"session": []}]),
        described("/v1/players/{player_id}/block", security=[], **{"x-action": ["player.block"]}),
        described("/v1/me/recovery-codes", security=[]),
        described("/v1/batch", security=[]),
    ],
)
def test_a_route_that_nobody_has_looked_at_is_without_a_policy(document: dict[str, Any]) -> None:
    assert len(routes.without_policy(routes.routes(document, {}), document)) == 1
