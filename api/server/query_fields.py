"""A query field that a route does not have is refused: misspelt, it would change nothing."""

from __future__ import annotations

from fastapi import Request
from fastapi.dependencies.models import Dependant

from jobs.errors import UnknownParameter

SHOWN = 60
"""Characters of an unknown name that are repeated."""


async def check(request: Request) -> None:
    """A dependency of every route. Raises ``UnknownParameter``."""
    if not request.query_params:
        return
    known = sorted(_fields(request.scope["route"].dependant))
    for name in request.query_params:
        if name not in known:
            shown = name if len(name) <= SHOWN else f"{name[:SHOWN]}…"
            there = f"there are {', '.join(known)}" if known else "this route has none"
            raise UnknownParameter(f"{shown}: no such field in the query; {there}", param=shown)


def _fields(dependant: Dependant) -> set[str]:
    """The query fields of a route and of all that it depends on."""
    own = {field.alias for field in dependant.query_params}
    return own.union(*(_fields(inner) for inner in dependant.dependencies))
