"""What needs no right: the live page, and whether the service is alive and ready."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.responses import Response

import console
from app import causal, openapi
from app.starting import refuse_unwritable

if TYPE_CHECKING:
    from app.querying import ReadSide


def add(router: APIRouter, read: ReadSide) -> None:
    shown = console.page()
    csp = console.policy(shown, [region.url for region in read.regions.items])

    async def page() -> Response:
        """The live page."""
        return Response(shown, headers={"Content-Security-Policy": csp}, media_type="text/html")

    async def healthz() -> Response:
        """Alive."""
        return Response(b'{"status":"alive"}', media_type="application/json")

    async def readyz() -> Response:
        """Can take commands: the log is open, may be written, its database answers, and the start of this process is recorded."""
        await refuse_unwritable(read.pool)
        read.start.require()
        return Response(b'{"status":"ready"}', media_type="application/json")

    unread = {**openapi.UNGUARDED, **causal.NOTHING}
    router.add_api_route("/", page, methods=["GET"], include_in_schema=False, openapi_extra=unread)
    for path, look in (("/healthz", healthz), ("/readyz", readyz)):
        router.add_api_route(path, look, methods=["GET"], tags=["health"], openapi_extra=unread)
