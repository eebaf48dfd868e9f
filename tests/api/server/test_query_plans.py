"""What the API reads it finds by an index, however long the tables of an installation become."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.server.app import create_app
from jobs import database
from jobs.settings import Settings
from jobs.tables import Base
from tests.api.server.conftest import FakeWorkers
from tests.api.server.furniture import furnish
from tests.api.server.installation import Tenant

SHORT = {
    "api_keys",
    "collection_rounds",
    "control_status",
    "hosts",
    "projects",
    "refused_messages",
    "storage_usage",
    "workers",
}
"""Tables that have few rows in any installation."""

LONG = set(Base.metadata.tables) - SHORT

FILTERS = {
    "/v1/jobs": (
        *("state=running", "kind=classify", "name=news", "order=asc"),
        *("since=2026-01-01T00:00:00Z", "group={group_id}", "after={job_id}"),
    ),
    "/v1/files": ("purpose=batch", "tag=day", "order=asc", "after={file_id}"),
    "/v1/jobs/{job_id}/chunks": ("after=1",),
    "/v1/jobs/{job_id}/results": ("after=1",),
    "/v1/jobs/{job_id}/points": ("name=loss",),
    "/v1/jobs/{job_id}/logs": ("rank=0", "run=1"),
    "/v1/schedules/{schedule}/fires": ("state=submitted",),
    "/v1/webhook_endpoints/{endpoint}/deliveries": ("state=pending",),
}
"""Filters of listings."""

STREAM = "/events"
"""A route that does not end."""

ANSWERS = (200, 404, 409)
"""404 and 409: a job of another kind has none, or there is no output yet."""


class Statement(NamedTuple):
    """What the API asked Postgres."""

    text: str
    parameters: Any


@contextmanager
def statements() -> Iterator[list[Statement]]:
    """Collects what threads of requests ask; the API's own rounds have threads with names."""
    found: list[Statement] = []

    def keep(_1: Any, _2: Any, text: str, parameters: Any, *_3: Any) -> None:
        if threading.current_thread().name.startswith("AnyIO"):
            found.append(Statement(text, parameters))

    sa.event.listen(sa.Engine, "before_cursor_execute", keep)
    try:
        yield found
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", keep)


class Plans:
    """How Postgres runs a statement when to read a whole table is the last thing it does."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.seen = 0
        self._cursor = psycopg.ClientCursor(connection)
        for way in ("seqscan", "hashjoin", "mergejoin"):
            self._cursor.execute(f"SET enable_{way} = off")
        self._cursor.execute(
            "SELECT indexrelid::regclass::text FROM pg_index WHERE indpred IS NOT NULL"
        )
        self._partial = {name for (name,) in self._cursor.fetchall()}

    def whole_tables(self, statement: Statement) -> set[str]:
        """The long tables that the statement can only read as a whole."""
        self.seen += 1
        self._cursor.execute(f"EXPLAIN (FORMAT JSON) {statement.text}", statement.parameters)
        row = self._cursor.fetchone()
        assert row is not None
        return set(self._reads(row[0][0]["Plan"], limited=False))

    def _reads(self, node: dict[str, Any], *, limited: bool) -> Iterator[str]:
        limited = limited or node["Node Type"] == "Limit"
        table = node.get("Relation Name")
        if table in LONG and self._is_whole(node, limited=limited):
            yield table
        for child in node.get("Plans", ()):
            yield from self._reads(child, limited=limited)

    def _is_whole(self, node: dict[str, Any], *, limited: bool) -> bool:
        if node["Node Type"] == "Seq Scan":
            return True
        if node["Node Type"] not in ("Index Scan", "Index Only Scan"):
            return False
        return not (limited or "Index Cond" in node or node["Index Name"] in self._partial)


def requests(app: FastAPI, places: dict[str, list[str]]) -> Iterator[str]:
    """Every route that reads, with all values of its parameters and each filter."""
    for route, methods in app.openapi()["paths"].items():
        if "get" not in methods or route.endswith(STREAM):
            continue
        names = re.findall(r"{([^}]+)}", route)
        for values in itertools.product(*(places[name] for name in names)):
            yield route.format(**dict(zip(names, values, strict=True)))
        for query in FILTERS.get(route, ()):
            first = {name: values[0] for name, values in places.items()}
            yield f"{route}?{query}".format(**first)


def test_every_route_finds_what_it_reads_by_an_index(
    tenant: Tenant, fake_workers: FakeWorkers, tmp_path: Path
) -> None:
    places = furnish(tenant, fake_workers, tmp_path / "model")
    installation = tenant.installation
    settings = Settings(
        database_url=installation.database_url, object_store_url=installation.objects.as_uri()
    )
    app = create_app(settings)
    headers = {"authorization": f"Bearer {tenant.key}"}
    whole: dict[str, str] = {}
    with (
        TestClient(app, headers=headers) as client,
        psycopg.connect(database.plain_url(installation.database_url), autocommit=True) as plain,
    ):
        plans = Plans(plain)
        for path in requests(app, places):
            with statements() as asked:
                answer = client.get(path)
            assert answer.status_code in ANSWERS, answer.text
            for statement in asked:
                if tables := plans.whole_tables(statement):
                    whole[statement.text] = f"{path} reads {sorted(tables)} as a whole"
        assert plans.seen > 100
    assert not whole, "\n\n".join(f"{said}:\n{text}" for text, said in whole.items())
