"""The rows of a SQL source as lines of JSON, read by a server-side cursor in bounded memory.

The transaction is read only and sees one state of the database. ``:since`` and ``:until`` are bound
as parameters. Postgres writes each row as JSON; one longer than the limit is cut, so that the
reader makes it an error row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import structlog
from psycopg import IsolationLevel
from psycopg.sql import SQL, Composed, Identifier

from jobs.errors import CorpusFailure, StorageAway
from jobs.progress import Beat
from jobs.sql_sources import SqlSource

log = structlog.get_logger()

FETCHED = 100
"""Rows in memory at a time; each may be as long as the limit."""

CONNECT_SECONDS = 10
_MAY_PASS = ("08", "40", "53", "55", "57")
"""Classes of SQLSTATE: connection, conflict, resources, lock, intervention by the operator."""
_TIMEOUT = "57014"
_ROWS = "rows of nightshift"
"""The name of the query within ours; no column has it."""


@dataclass(frozen=True)
class Bounds:
    """The values of ``:since`` and ``:until``, as Postgres reads them."""

    since: str
    until: str


class SqlRows:
    """One reading of a source; ``largest`` is that of the cursor column so far, as text."""

    def __init__(
        self, name: str, source: SqlSource, bounds: Bounds, *, max_row_bytes: int, beat: Beat
    ) -> None:
        self.rows = 0
        self.largest: str | None = None
        self._name = name
        self._source = source
        self._bounds = bounds
        self._max_row_bytes = max_row_bytes
        self._beat = beat

    def lines(self) -> Iterator[bytes]:
        """Each row as a line. Raises ``CorpusFailure``, ``StorageAway``."""
        with self._explained(), self._connected() as connection:
            largest: Any = None
            with connection.cursor(name="corpus") as cursor:
                cursor.itersize = FETCHED
                cursor.execute(self._statement(), self._parameters())
                for line, value in cursor:
                    self._beat()
                    self.rows += 1
                    if value is not None and (largest is None or value > largest):
                        largest = value
                        self.largest = str(value)
                    yield line.encode() + b"\n"

    @contextlib.contextmanager
    def _connected(self) -> Iterator[psycopg.Connection]:
        with psycopg.connect(
            self._source.url.get_secret_value(),
            connect_timeout=CONNECT_SECONDS,
            application_name="nightshift corpus",
        ) as connection:
            connection.read_only = True
            connection.isolation_level = IsolationLevel.REPEATABLE_READ
            milliseconds = str(int(self._source.statement_seconds * 1000))
            connection.execute(
                "SELECT set_config('statement_timeout', %s, true), "
                "set_config('lock_timeout', %s, true)",
                [milliseconds, milliseconds],
            )
            yield connection

    def _statement(self) -> Composed:
        column = self._source.cursor_column
        cursor = SQL("NULL") if column is None else Identifier(_ROWS, column)
        return SQL(
            "SELECT left(translate(row_to_json({rows})::text, E'\\n\\r', '  '), %(characters)s), "
            "{cursor} FROM (\n{query}\n) AS {rows}"
        ).format(
            rows=Identifier(_ROWS),
            cursor=cursor,
            query=SQL(self._source.statement()),
        )

    def _parameters(self) -> dict[str, Any]:
        bounds = {"since": self._bounds.since, "until": self._bounds.until}
        return {**bounds, "characters": self._max_row_bytes + 1}

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of the database in words that name the source, not its host or account."""
        try:
            yield
        except psycopg.Error as error:
            state = error.sqlstate or ""
            log.warning("a SQL source failed", source=self._name, sqlstate=state, error=str(error))
            if state == _TIMEOUT:
                raise CorpusFailure(
                    f"the query of the SQL source {self._name} took longer than "
                    f"{self._source.statement_seconds:g} s for its next {FETCHED} rows",
                    code="sql_timeout",
                ) from error
            if state.startswith(_MAY_PASS) or (
                not state and isinstance(error, psycopg.OperationalError)
            ):
                raise StorageAway(f"the SQL source {self._name} does not answer") from error
            reason = error.diag.message_primary or type(error).__name__
            raise CorpusFailure(
                f"the query of the SQL source {self._name} cannot be read after row "
                f"{self.rows:,}: {reason}",
                code="sql_failed",
            ) from error
