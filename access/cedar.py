"""
Who may do what in this case: Cedar policies, asked with what is known of the matter and with the time.

A decision goes three steps, and stops at the first that says enough: does any role grant the action at all (Principal.granted);
do the policies say yes or no whatever the matter is (`Policies.rule`, found once for somebody and an action); what does Cedar say
of these attributes at this hour (`Policies.decide`). Lists are filtered by the rule's predicate instead (`Policies.sees`).

Invariants:
    - same values, same decision: it is kept by all the values that the rule speaks of, and by nothing else;
    - the hour comes with the question; no clock is read here;
    - a refusal names a policy and its reason, and nothing of the matter.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cache, lru_cache
from typing import Any, NamedTuple

import cedarpy
import msgspec

from access import files, predicate
from access.files import Files, Malformed
from access.policy import SERVICES, Action, Principal, Scope
from access.predicate import Known, Predicate, Untranslatable
from access.resources import SECRECY
from domain.errors import Forbidden

_RULES_KEPT = 20_000
_DECISIONS_KEPT = 50_000
_SLICES_KEPT = 5_000
_ACTOR, _MATTER = {"type": "Actor", "id": "who"}, {"type": "Matter", "id": "it"}
_GROUPS = ("about players", "about the house")
_WHEN = frozenset({"hour", "weekday"})

NOTHING: Known = {}


class Rule(NamedTuple):
    """What the policies come to for somebody and an action, over what is not known yet: the matter and the hour."""

    predicate: Predicate
    attributes: frozenset[str]
    slice: _Slice
    entities: cedarpy.Entities

    @property
    def settled(self) -> bool | None:
        """The decision, if it is the same for all matters at all hours."""
        return self.predicate.value if isinstance(self.predicate, predicate.Constant) else None


class Deciding(msgspec.Struct, frozen=True):
    """A policy that decided, or would have."""

    id: str
    reason: str


class Explanation(msgspec.Struct, frozen=True):
    """Why somebody may, or may not. `policies`: those that decided: which permit, or which forbid.

    `unmet`: permits of their roles for this action whose conditions do not hold. `attributes`: what was known of the matter, but
    never whether it is secret; `hash`: of the policies in force.
    """

    actor: str
    action: str
    allowed: bool
    roles: list[str]
    policies: list[Deciding]
    unmet: list[Deciding]
    attributes: dict[str, str | int]
    at: datetime
    hash: str


class _Who(NamedTuple):
    """What policies may ask of a principal. `name`: empty where none of those that matter asks it, so that all of an office share."""

    name: str
    roles: frozenset[str]
    scope: Scope
    machine: bool


class Policies:
    """The policies of some files, parsed once. Raises Malformed."""

    def __init__(self, read: Files) -> None:
        if found := files.faults(read):
            raise Malformed("\n".join(found))
        self.hash = read.digest
        self._static: Mapping[str, Any] = json.loads(cedarpy.policies_to_json_str(read.text))["staticPolicies"]
        schema = cedarpy.Schema.from_str(read.schema)
        entities = json.loads(str(cedarpy.Entities.from_json_str("[]", schema)))
        known = {each["uid"]["id"]: each for each in entities}
        self._groups = {name: sorted(above["id"] for above in each["parents"]) for name, each in known.items()}
        if differing := set(Action) ^ (known.keys() - set(_GROUPS)):
            raise Malformed(f"schema and access/policy.py do not know the same actions: {sorted(differing)}")
        self._rule = lru_cache(_RULES_KEPT)(self._new_rule)
        self._decision = lru_cache(_DECISIONS_KEPT)(self._new_decision)
        self._slice = lru_cache(_SLICES_KEPT)(self._new_slice)

    # Asking

    def rule(self, principal: Principal, action: Action) -> Rule:
        """Raises Untranslatable."""
        return self._rule(self._who(principal, action), action)

    def _who(self, principal: Principal, action: Action) -> _Who:
        name = principal.actor if self._slice(principal.roles, action).names else ""
        return _Who(name, principal.roles, principal.scope, principal.machine)

    def settled(self, principal: Principal, actions: Iterable[Action]) -> bool | None:
        """Whether the principal may do all of this whatever it is about, and at any hour; None: that depends."""
        depends = False
        for action in actions:
            settled = action in principal.granted and self.rule(principal, action).settled
            if settled is False:
                return False
            depends |= settled is None
        return None if depends else True

    def decide(self, principal: Principal, action: Action, known: Known, at: datetime) -> bool:
        """Whether the principal may do this to a matter of which this is known."""
        if action not in principal.granted:
            return False
        rule = self.rule(principal, action)
        if (settled := rule.settled) is not None:
            return settled
        who = self._who(principal, action)
        asked = tuple(sorted((name, known[name]) for name in rule.attributes - _WHEN if name in known))
        when = moment(at) if rule.attributes & _WHEN else (0, 1)
        return self._decision(who, action, asked, when)

    def require(self, principal: Principal, actions: Iterable[Action], known: Known, at: datetime) -> None:
        """Raises Forbidden (action, policy, reason) unless the principal may do all of this."""
        for action in actions:
            principal.require(action)
            if not self.decide(principal, action, known, at):
                raise self._refusal(principal, action, known, at)

    def sees(self, principal: Principal, action: Action, at: datetime) -> Predicate:
        """Of which matters the principal may do this now. Raises Untranslatable."""
        if action not in principal.granted:
            return predicate.NEVER
        hour, weekday = moment(at)
        return predicate.bound(self.rule(principal, action).predicate, {"hour": hour, "weekday": weekday})

    def explain(self, principal: Principal, action: Action, known: Known, at: datetime) -> Explanation:
        """Which policies decide, and why."""
        who = self._who(principal, action)
        found = self._ask(who, action, tuple(sorted(known.items())), moment(at))
        slice_ = self._rule(who, action).slice
        deciding = [slice_.annotations[id_] for id_ in found.diagnostics.reasons]
        permits = slice_.permits if not found.allowed else ()
        unmet = [] if deciding else [slice_.annotations[id_] for id_ in permits]
        granted = found.allowed and action in principal.granted
        return Explanation(
            principal.actor,
            action,
            granted,
            sorted(principal.roles),
            sorted(deciding, key=lambda each: each.id),
            unmet,
            {name: value for name, value in known.items() if name != SECRECY},
            at,
            self.hash,
        )

    def _refusal(self, principal: Principal, action: Action, known: Known, at: datetime) -> Forbidden:
        said = self.explain(principal, action, known, at)
        why = next(iter((*said.policies, *said.unmet)), None)
        facts = {"policy": why.id, "reason": why.reason} if why else {}
        return Forbidden(f"{principal.actor} may not {action} here", action=str(action), **facts)

    # Cedar

    def _new_rule(self, who: _Who, action: Action) -> Rule:
        slice_, entities = self._slice(who.roles, action), self._entities(who, action)
        request = {"principal": _uid("Actor", "who"), "action": _uid("Action", action)}
        found = cedarpy.is_authorized_partial(request, slice_.policies, entities)
        if found.diagnostics.errors:
            raise Untranslatable("; ".join(found.diagnostics.errors))
        permitted: Predicate = predicate.NEVER
        forbidden: Predicate = predicate.NEVER
        for residual in found.residuals.values():
            if residual["effect"] == "permit":
                permitted = predicate.either(permitted, _residual(residual))
            else:
                forbidden = predicate.either(forbidden, _residual(residual))
        rule = predicate.both(predicate.negated(forbidden), permitted)
        return Rule(rule, predicate.attributes(rule), slice_, entities)

    def _new_decision(
        self, who: _Who, action: Action, known: tuple[tuple[str, str | int], ...], when: tuple[int, int]
    ) -> bool:
        return self._ask(who, action, known, when).allowed

    def _ask(
        self, who: _Who, action: Action, known: tuple[tuple[str, str | int], ...], when: tuple[int, int]
    ) -> cedarpy.AuthzResult:
        matter = {"uid": _MATTER, "attrs": dict(known), "parents": []}
        request = {
            "principal": _ACTOR,
            "action": {"type": "Action", "id": str(action)},
            "resource": _MATTER,
            "context": {"hour": when[0], "weekday": when[1]},
        }
        rule = self._rule(who, action)
        entities = rule.entities.with_added_json_str(json.dumps([matter]))
        found = cedarpy.is_authorized(request, rule.slice.policies, entities)
        if found.diagnostics.errors:
            raise Untranslatable("; ".join(found.diagnostics.errors))
        return found

    def _entities(self, who: _Who, action: Action) -> cedarpy.Entities:
        """Who asks, and the groups of what they want to do."""
        attributes: dict[str, Any] = {"name": who.name, "machine": who.machine}
        if who.scope.brands is not None:
            attributes["brands"] = sorted(who.scope.brands)
        if who.scope.countries is not None:
            attributes["countries"] = sorted(who.scope.countries)
        parents = [{"type": _kind(role), "id": role} for role in sorted(who.roles)]
        groups = [{"type": "Action", "id": group} for group in self._groups[action]]
        actor = {"uid": _ACTOR, "attrs": attributes, "parents": parents}
        acted = {"uid": {"type": "Action", "id": str(action)}, "attrs": {}, "parents": groups}
        return cedarpy.Entities.from_json_str(json.dumps([actor, acted]))

    def _new_slice(self, roles: frozenset[str], action: Action) -> _Slice:
        """The policies that can matter: of these roles and this action. The others never apply."""
        kept, annotations, permits = {}, {}, []
        for key, policy in self._static.items():
            named = {each["id"] for each in files.scope(policy["action"])}
            whom = policy["principal"].get("entity")
            if named and not named & {action, *self._groups[action]}:
                continue
            if policy["effect"] == "permit" and (whom["type"], whom["id"]) not in {
                (_kind(role), role) for role in roles
            }:
                continue
            kept[key] = policy
            annotations[key] = Deciding(policy["annotations"]["id"], policy["annotations"]["reason"])
            if policy["effect"] == "permit":
                permits.append(key)
        encoded = json.dumps({"templates": {}, "staticPolicies": kept, "templateLinks": []})
        return _Slice(cedarpy.PolicySet.from_json_str(encoded), annotations, tuple(permits), _asks_name(kept))


class _Slice(NamedTuple):
    """Policies, by Cedar's name for each what it is called here, and which of them permit. `names`: whether one asks who it is."""

    policies: cedarpy.PolicySet
    annotations: Mapping[str, Deciding]
    permits: tuple[str, ...]
    names: bool


def moment(at: datetime) -> tuple[int, int]:
    """The hour (0 to 23) and the day of the week (1 is Monday), as they are in UTC."""
    return at.hour, at.isoweekday()


@cache
def in_force() -> Policies:
    """Those of this release."""
    return Policies(files.read())


def _residual(policy: Mapping[str, Any]) -> Predicate:
    found: Predicate = predicate.ALWAYS
    for each in policy["conditions"]:
        part = predicate.read(each["body"])
        found = predicate.both(found, part if each["kind"] == "when" else predicate.negated(part))
    return found


def _asks_name(part: Any) -> bool:
    """Whether an expression (Cedar's JSON) asks for an attribute `name`, or for the principal as a whole."""
    if isinstance(part, dict):
        if part.get("attr") == "name" or part == {"Var": "principal"}:
            return True
        if (inner := part.get(".") or part.get("has")) and inner.get("left") == {"Var": "principal"}:
            return bool(inner.get("attr") == "name")
        return any(map(_asks_name, part.values()))
    return isinstance(part, list) and any(map(_asks_name, part))


def _kind(role: str) -> str:
    return "Service" if role in SERVICES else "Role"


def _uid(type_: str, id_: str) -> str:
    return f"{type_}::{json.dumps(id_)}"
