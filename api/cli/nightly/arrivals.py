"""What arrives: documentation strings of the installed packages, labelled by their topics.

They come as objects in a folder that jobs may read, and as rows of a table in a database of its
own, which the named query ``checked`` reads with an account that can do nothing else.
"""

from __future__ import annotations

import itertools
import json
import random
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import httpx
import psycopg
from psycopg.sql import SQL, Literal

from api.cli import docstring_corpus
from api.cli.failures import Failure
from api.cli.nightly.nights import FIRST_ROWS, NIGHTS, ROWS, Night
from api.stack import private_files
from jobs import distribution

SOURCE = "checked"
"""The name of the query."""

QUERY = "SELECT id, text, label FROM checked WHERE at >= :since AND at < :until ORDER BY id"

TABLE = (
    "CREATE TABLE checked (id bigint GENERATED ALWAYS AS IDENTITY, text text NOT NULL, "
    "label text NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp())"
)

SEED = 7


class Row(NamedTuple):
    """A text and its topic."""

    text: str
    label: str


class Arrivals:
    """The rows of every night, and the places where they arrive."""

    def __init__(self, folder: Path, *, database_url: str) -> None:
        """``database_url``: of the embedded Postgres, on which the table gets its own database."""
        self.incoming = folder / "incoming"
        self.first = folder / "first.jsonl"
        self.sources = folder / "sources.json"
        self._admin_url = database_url
        self._shop_url = str(httpx.URL(database_url).copy_with(path="/shop"))
        rows = iter(_rows(folder / "labelled.jsonl"))
        _write(self.first, _take(rows, FIRST_ROWS))
        self._objects = {
            name: _take(rows, count) for night in NIGHTS for name, count in night.objects.items()
        }
        self._checked = {night.number: _take(rows, night.checked_rows) for night in NIGHTS}

    def prepare(self) -> None:
        """Make the table, the account that may read it, and the file that names the query."""
        with psycopg.connect(self._admin_url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE shop")
        password = secrets.token_urlsafe(16)
        role = SQL("CREATE ROLE reader LOGIN PASSWORD {}").format(Literal(password))
        with psycopg.connect(self._shop_url) as connection:
            connection.execute(TABLE)
            connection.execute(role)
            connection.execute("GRANT SELECT ON checked TO reader")
        url = httpx.URL(self._shop_url).copy_with(username="reader", password=password)
        source = {"url": str(url), "query": QUERY, "projects": ["default"]}
        private_files.write(self.sources, json.dumps({SOURCE: source}, indent=2) + "\n")

    def write_objects(self, night: Night) -> None:
        """Write the objects of a night; each appears when it is whole."""
        for name in night.objects:
            rows = self._objects[name]
            _write(self.incoming / name, flipped(rows) if name == night.flipped else rows)

    def correct(self, night: Night) -> None:
        """Write the object with wrong labels again, with the right ones."""
        assert night.flipped is not None
        _write(self.incoming / night.flipped, self._objects[night.flipped])

    def add_checked(self, night: Night) -> None:
        """Add the night's rows to the table."""
        with psycopg.connect(self._shop_url) as connection, connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO checked (text, label) VALUES (%s, %s)", self._checked[night.number]
            )


def _rows(path: Path) -> list[Row]:
    """All rows, in an order that does not depend on their topics."""
    docstring_corpus.write_labelled(path, rows=ROWS, behind=0)
    with path.open(encoding="utf-8") as lines:
        rows = [Row(_storable(each["text"]), each["label"]) for each in map(json.loads, lines)]
    if len(rows) < ROWS:
        raise Failure(
            f"the example needs {ROWS:,} documentation strings of the packages that Nightshift "
            f"stands on, and there are only {len(rows):,}: {distribution.with_extra('demo')}"
        )
    random.Random(SEED).shuffle(rows)  # noqa: S311 - a sample, not a secret
    return rows


def _storable(text: str) -> str:
    """The text as Postgres stores it."""
    return text.replace("\0", " ")


def _take(rows: Iterator[Row], count: int) -> list[Row]:
    return list(itertools.islice(rows, count))


def flipped(rows: Sequence[Row]) -> list[Row]:
    """The rows with the label of the next topic."""
    topics = list(docstring_corpus.TOPICS)
    following = dict(zip(topics, [*topics[1:], topics[0]], strict=True))
    return [Row(row.text, following[row.label]) for row in rows]


def _write(path: Path, rows: Sequence[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}")  # a pattern leaves out what begins with a dot
    with draft.open("w", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(row._asdict(), ensure_ascii=False)}\n" for row in rows)
    draft.replace(path)
