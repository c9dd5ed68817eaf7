from __future__ import annotations

import json
import re
from typing import Annotated

import msgspec
from fastapi import FastAPI

from app.openapi import Schemas
from commands.edge import whole


class Named(msgspec.Struct):
    name: Annotated[list[Annotated[str, whole("[a-z]+")]], msgspec.Meta(max_length=2)]
    pattern: str = ""


def test_a_patterns_end_is_written_as_json_schema_has_it() -> None:
    app, schemas = FastAPI(), Schemas()
    schemas.ref(Named)
    schemas.install(app)
    properties = app.openapi()["components"]["schemas"]["Named"]["properties"]
    assert properties["name"]["items"]["pattern"] == "^[a-z]+$"
    assert properties["pattern"] == {"type": "string", "default": ""}


def test_two_types_with_one_name_are_told_apart_and_every_reference_leads_somewhere() -> None:
    class Here:
        class Named(msgspec.Struct):
            other: int

    Here.Named.__qualname__ = "Here.Named"
    app, schemas = FastAPI(), Schemas()

    @app.get("/a", openapi_extra={"responses": {"200": {"content": schemas.json(Named)}}})
    async def first(limit: int) -> None: ...

    @app.get("/b", openapi_extra={"responses": {"200": {"content": schemas.json(Here.Named)}}})
    async def second() -> None: ...

    schemas.install(app)
    document = app.openapi()
    known = document["components"]["schemas"]
    references = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)))
    assert {each.rpartition("/")[2] for each in references} <= known.keys()
    told = [
        known[document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"][21:]]
        for path in ("/a", "/b")
    ]
    assert [list(each["properties"]) for each in told] == [["name", "pattern"], ["other"]]
