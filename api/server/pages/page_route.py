"""The class of the routes of pages: an error is answered by a page."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from api.server.pages import page_errors


class PageRoute(APIRoute):
    """A route whose errors people read."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own, with its errors answered."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except page_errors.ANSWERED as error:
                return page_errors.response(error, request.scope)

        return handle


def router() -> APIRouter:
    """For the pages of one noun; programs do not see them in ``/openapi.json``."""
    return APIRouter(route_class=PageRoute, include_in_schema=False)
