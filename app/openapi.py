"""The one adapter between msgspec's wire types and OpenAPI: schemas, parameters and problem responses of every route."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app import problems
from app.problems import Problem
from domain.errors import Rejected

_REF = "#/components/schemas/{name}"
_KIND = "#/countroom/kinds/"
"""What stands for a wire type until all are known: of two types with one name each is called by its module too."""
_OF_FASTAPI = ("HTTPValidationError", "ValidationError")
"""Schemas of an answer that is never given: ours is a problem document."""

IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": True,
    "description": "Names the command; the same key with the same request has one effect and the first answer.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 200},
}

IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": "The ETag with which this was read: if it has changed since, the command is refused.",
    "schema": {"type": "string", "pattern": r'^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$'},
}
UNGUARDED: dict[str, Any] = {"security": []}


def needs(*actions: str) -> dict[str, Any]:
    """What a route says of the right that it needs: names of access/policy.py, of which the first always applies."""
    return {"x-action": [str(action) for action in actions]}


BY_SESSION: dict[str, Any] = {"security": [{"session": []}]}
ETAG = {"ETag": {"schema": {"type": "string"}, "description": "names this state; for If-Match"}}


class Schemas:
    """Collects wire types; `install` puts them into the application's OpenAPI document."""

    def __init__(self) -> None:
        self._types: dict[Any, int] = {Problem: 0}

    def ref(self, kind: Any) -> dict[str, Any]:
        return {"$ref": f"{_KIND}{self._types.setdefault(kind, len(self._types))}"}

    def json(self, kind: Any) -> dict[str, Any]:
        return {"application/json": {"schema": self.ref(kind)}}

    def refusals(self, errors: Iterable[type[Rejected]]) -> dict[str, Any]:
        """The problem responses of a route, by status, naming their codes."""
        by_status: dict[int, list[str]] = {}
        for error in errors:
            codes = by_status.setdefault(problems.status_of(error), [])
            if error.code not in codes:
                codes.append(error.code)
        return {
            str(status): {
                "description": ", ".join(f"`{code}`" for code in codes),
                "content": {problems.MEDIA_TYPE: {"schema": self.ref(Problem)}},
            }
            for status, codes in sorted(by_status.items())
        }

    def install(self, app: FastAPI) -> None:
        def document() -> dict[str, Any]:
            if app.openapi_schema is None:
                made = get_openapi(
                    title=app.title,
                    version=app.version,
                    description=app.description,
                    routes=app.routes,
                    openapi_version="3.1.0",
                )
                kinds, components = msgspec.json.schema_components(list(self._types), ref_template=_REF)
                made = _named(made, kinds)
                parts = made.setdefault("components", {})
                others = {name: kind for name, kind in parts.get("schemas", {}).items() if name not in _OF_FASTAPI}
                parts["schemas"] = {**others, **_ecma(components)}
                parts["securitySchemes"] = {
                    "bearer": {"type": "http", "scheme": "bearer"},
                    "session": {"type": "apiKey", "in": "cookie", "name": "__Host-countroom"},
                }
                made["security"] = [{"bearer": []}, {"session": []}]
                app.openapi_schema = made
            return app.openapi_schema

        app.openapi = document  # type: ignore[method-assign]


def _named(part: Any, kinds: Sequence[Any]) -> Any:
    """The same with each wire type under the name that it has among the components; without FastAPI's own problems."""
    match part:
        case {"$ref": str(ref)} if ref.startswith(_KIND):
            return _ecma(kinds[int(ref.removeprefix(_KIND))])
        case dict():
            return {name: _named(value, kinds) for name, value in part.items() if not _is_of_fastapi(value)}
        case list():
            return [_named(value, kinds) for value in part]
        case _:
            return part


def _is_of_fastapi(media: Any) -> bool:
    return isinstance(media, dict) and media.get("schema") == {"$ref": _REF.format(name=_OF_FASTAPI[0])}


def _ecma(schema: Any) -> Any:
    r"""The same with patterns as JSON Schema has them (ECMA 262): the end of a text is `$`, which is `\Z` in Python."""
    match schema:
        case dict():
            written = {name: _ecma(value) for name, value in schema.items()}
            if isinstance(pattern := written.get("pattern"), str):
                written["pattern"] = re.sub(r"\\Z\Z", "$", pattern)
            return written
        case list():
            return [_ecma(value) for value in schema]
        case _:
            return schema


def path_parameters(path: str) -> list[dict[str, Any]]:
    """`{player_id}` and the like, as TypeIDs."""
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [{"name": name, "in": "path", "required": True, "schema": _parameter_schema(name)} for name in names]


def _parameter_schema(name: str) -> dict[str, Any]:
    if name.endswith("_id"):
        return {"type": "string", "pattern": f"^{name.removesuffix('_id')}_[0-7][0-9a-hjkmnp-tv-z]{{25}}$"}
    return {"type": "string"}


def query_parameter(
    name: str, schema: dict[str, Any], description: str = "", *, required: bool = False
) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": required, "description": description, "schema": schema}
