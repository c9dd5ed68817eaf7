"""
The routes of the interface as its own description (OpenAPI) tells them, and a request for each that would be right.

Invariant: a route is one of those that name a right (x-action), or it stands in OWN, SIGNED or OPEN with its reason. What stands
nowhere is a route without a policy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

OWN: Mapping[str, str] = {
    "POST /v1/signin/step-up": "shows a second factor of whoever is signed in",
    "POST /v1/signin/out": "ends the session that asks",
    "GET /v1/me": "tells people who they are",
    "POST /v1/me/factors/totp": "enrols a factor of one's own",
    "POST /v1/me/factors/passkey": "enrols a factor of one's own",
    "POST /v1/me/factors/{factor}/remove": "removes a factor of one's own",
    "POST /v1/me/recovery-codes": "makes recovery codes of one's own",
    "GET /v1/me/sessions": "lists one's own sessions; others' by operator.manage, which the handler asks for",
    "POST /v1/me/sessions/{session}/revoke": "ends a session of one's own; others' by operator.manage",
}
"""What a session opens without any right: it concerns whoever is signed in, and nobody else."""

LOOK_UPS = frozenset({"POST /v1/players/look-up"})
"""What is read by POST: what is asked for is personal, and stands in no address."""

BATCH = "POST /v1/batch"
"""Each item is asked for the right of its own path."""

FATE = "GET /v1/commands/{command_id}"
"""Everybody's of commands of their own; of others' by log.read, which the handler asks for."""

SIGNED = re.compile(r"POST /v1/(games/\{provider\}/[a-z_]+|providers/\{provider\}/callbacks)")
"""What a provider signs: the signature is the right."""

OPEN: Mapping[str, str] = {
    "GET /healthz": "says that the process lives",
    "GET /readyz": "says whether commands are taken",
    "GET /metrics": "sums without identifiers, for a scraper that the house's own proxy lets in",
    "GET /v1/logs/{log}/checkpoint": "a signed head, which witnesses and regulators compare",
    "GET /v1/logs/{log}/heads": "signed heads: hashes, no entry",
    "GET /v1/logs/{log}/consistency": "hashes of the tree, no entry",
    "GET /v1/signin": "names of the providers of identities, for the buttons of the page",
    "POST /v1/signin/password": "the first factor",
    "POST /v1/signin/factor": "the second factor, by a ticket of the first",
    "POST /v1/signin/passkey/options": "a challenge: random bytes",
    "POST /v1/signin/passkey/verify": "a passkey's answer to a challenge",
    "POST /v1/me/password": "an invitation is accepted here by its secret; without one a session is asked for",
    "GET /v1/signin/oidc/{provider}/start": "on to a provider of identities",
    "POST /v1/signin/oidc/{provider}/start": "the same with an invitation, which no address tells",
    "GET /v1/signin/oidc/{provider}/callback": "back from there, by a state that is good once for one browser",
    "POST /v1/signin/oidc/{provider}/logout": "a logout token, believed by the provider's signature",
}
"""What anybody may ask, each looked at by hand."""


class Route(NamedTuple):
    """`actions`: rights, of which the first is always asked for. `body`: an example; None: it takes none. `form`: of a form."""

    method: str
    template: str
    actions: tuple[str, ...]
    query: Mapping[str, str]
    body: Any
    media: str
    keyed: bool

    @property
    def name(self) -> str:
        return f"{self.method} {self.template}"

    @property
    def reads(self) -> bool:
        """Whether it changes nothing, but that reading it may be recorded."""
        return self.method == "GET" or self.name in LOOK_UPS

    def path(self, ids: Mapping[str, str]) -> str:
        """With identifiers in it. Raises KeyError for a parameter that has none."""
        made = re.sub(r"\{(\w+)\}", lambda found: quote(ids[found[1]], safe="/"), self.template)
        return made + ("?" + "&".join(f"{k}={quote(v)}" for k, v in self.query.items()) if self.query else "")


def routes(document: Mapping[str, Any], values: Mapping[str, Any]) -> list[Route]:
    """All of them. `values`: examples for fields, by "<path> <field>" or "<field>", which go before those that a schema gives."""
    schemas = document.get("components", {}).get("schemas", {})
    return [
        _route(path, method.upper(), told, schemas, values)
        for path, methods in document["paths"].items()
        for method, told in methods.items()
    ]


def without_policy(found: list[Route], document: Mapping[str, Any]) -> list[str]:
    """Routes that nobody has said who may ask for; and those whose list says otherwise than the document."""
    wrong = []
    for route in found:
        security = document["paths"][route.template][route.method.lower()].get("security")
        if route.actions:
            right = security is None
        elif route.name in OWN:
            right = security == [{"session": []}]
        elif route.name in OPEN or SIGNED.fullmatch(route.name):
            right = security == []
        else:
            right = route.name in (BATCH, FATE) and security is None
        if not right:
            wrong.append(route.name)
    return wrong


def _route(
    path: str, method: str, told: Mapping[str, Any], schemas: Mapping[str, Any], values: Mapping[str, Any]
) -> Route:
    parameters = told.get("parameters", [])
    query = {
        each["name"]: str(values.get(each["name"], _example(each["schema"], schemas, values, path, each["name"])))
        for each in parameters
        if each["in"] == "query" and each.get("required")
    }
    keyed = any(each["name"] == "Idempotency-Key" for each in parameters)
    media, body = "", None
    for media, content in told.get("requestBody", {}).get("content", {}).items():  # noqa: B007 — there is one
        body = _example(content["schema"], schemas, values, path, "")
    return Route(method, path, tuple(told.get("x-action", ())), query, body, media, keyed)


ALSO = frozenset({"intervention"})
"""What a person must say although a program need not."""
_TEXTS = (
    (re.compile(r"\^\[0-9a-f\]\{64\}"), "0" * 64),
    (re.compile(r"\\d\{4\}-"), "2099-01-01T00:00:00Z"),
    (re.compile(r"\[A-Z\]\{2\}"), "AT"),
)


def _example(schema: Any, schemas: Mapping[str, Any], values: Mapping[str, Any], path: str, name: str) -> Any:
    """The least that the schema allows, or the value that is given for the field."""
    for key in (f"{path} {name}", name):
        if name and key in values:
            return values[key]
    several = next((schema[each] for each in ("anyOf", "oneOf", "allOf") if each in schema), None)
    if several or "$ref" in schema:
        inner = several[0] if several else schemas[schema["$ref"].rpartition("/")[2]]
        return _example(inner, schemas, values, path, "")
    if schema.get("type") == "object":
        properties, needed = schema.get("properties", {}), set(schema.get("required", ()))
        chosen = [each for each in properties if each in needed or each in ALSO or f"{path} {each}" in values]
        return {each: _example(properties[each], schemas, values, path, each) for each in chosen}
    if schema.get("type") == "array":
        return [_example(schema["items"], schemas, values, path, "")] if schema.get("minItems") else []
    return _plain(schema)


def _plain(schema: Mapping[str, Any]) -> Any:
    if "enum" in schema or "const" in schema:
        return schema.get("const") or schema["enum"][0]
    match schema.get("type"):
        case "integer" | "number":
            return max(1, schema.get("minimum", 1))
        case "boolean":
            return True
        case _:
            pattern = schema.get("pattern", "")
            return next((text for form, text in _TEXTS if form.search(pattern)), "word")


def as_json(body: Any) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
