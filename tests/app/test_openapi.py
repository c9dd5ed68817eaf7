from __future__ import annotations

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
