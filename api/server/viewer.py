"""``/docs``: the description of the API in a browser, without anything from another server.

Swagger UI's script and style come from the package ``fastapi-offline``, of which nothing else is
used.
"""

from __future__ import annotations

from importlib.resources import as_file, files

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

router = APIRouter(include_in_schema=False)

ASSETS = "/docs/assets"


@router.get("/docs")
def docs(request: Request) -> HTMLResponse:
    """The page. The key that is typed into it stays in its memory."""
    root = request.scope.get("root_path", "")
    return get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json",
        title="Nightshift: the HTTP API",
        swagger_js_url=f"{root}{ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{root}{ASSETS}/swagger-ui.css",
        swagger_favicon_url="data:,",
        swagger_ui_parameters={"docExpansion": "list", "defaultModelsExpandDepth": 0},
    )


def install(app: FastAPI) -> None:
    """Serve the page and its assets."""
    with as_file(files("fastapi_offline") / "static") as folder:  # a wheel is always unpacked
        app.mount(ASSETS, StaticFiles(directory=folder), name="docs assets")
    app.include_router(router)
