"""Styles and scripts of the pages, from the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

FOLDER = Path(__file__).with_name("static")
ROUTE = "/page"


class AskedAgain(StaticFiles):
    """Files of which a browser asks each time whether they have changed, as after an upgrade."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Starlette's own, with that rule."""
        found = super().file_response(*args, **kwargs)
        found.headers["cache-control"] = "no-cache"
        found.headers["x-content-type-options"] = "nosniff"
        return found


def install(app: FastAPI) -> None:
    """Serve them."""
    app.mount(ROUTE, AskedAgain(directory=FOLDER), name="page")
