"""SQL sources: the queries whose rows jobs may read, as the operator of an installation names them.

A job names a source and the bounds of its rows, and never writes SQL. ``:since`` and ``:until`` in
the text of a query are parameters: their values are bound by the server and are no part of the
text. The sources stand in a file, which is read when it is needed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import structlog
from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, model_validator

from jobs.errors import CorpusRefused
from jobs.settings import Settings

log = structlog.get_logger()

_BOUND = re.compile(r"(?<!:):(since|until)\b")


class SqlSource(BaseModel):
    """A query of a Postgres database, and who may read its rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: SecretStr  # of the database, as libpq reads it
    query: str
    projects: tuple[str, ...] | None = None  # that may read it; null: all
    cursor_column: str | None = None  # its largest value is the next ``:since``; null: ``:until``
    begin: str = "-infinity"  # ``:since`` of the first rows
    statement_seconds: float = Field(300.0, gt=0, le=86_400)

    @model_validator(mode="after")
    def _reads(self) -> Self:
        if not re.match(r"\s*(select|with|values|table)\b", self.query, re.IGNORECASE):
            raise ValueError("a query must begin with SELECT, WITH, VALUES or TABLE")
        return self

    def statement(self) -> str:
        """The text with parameters as psycopg writes them, and without a semicolon at its end."""
        text = self.query.rstrip().rstrip(";").replace("%", "%%")
        return _BOUND.sub(r"%(\1)s", text)


_SOURCES: TypeAdapter[dict[str, SqlSource]] = TypeAdapter(dict[str, SqlSource])


def find(name: str, *, project_id: str, settings: Settings) -> SqlSource:
    """The source of this name. Raises ``CorpusRefused`` where the project has none."""
    ours = {
        each: source
        for each, source in _load(settings).items()
        if source.projects is None or project_id in source.projects
    }
    if name not in ours:
        there = f"there are: {', '.join(sorted(ours))}" if ours else "there are none"
        raise CorpusRefused(
            f"there is no SQL source {name!r} that this project may read; {there}",
            param="corpus.sql.source",
        )
    return ours[name]


def _load(settings: Settings) -> Mapping[str, SqlSource]:
    if not settings.sql_sources:
        return {}
    try:
        return _SOURCES.validate_python(json.loads(Path(settings.sql_sources).read_bytes()))
    except (OSError, ValueError) as error:  # its message may hold a password
        log.warning("the file of SQL sources cannot be read", error=type(error).__name__)
        raise CorpusRefused(
            "the SQL sources of this installation cannot be read: its operator must correct the "
            "file that SQL_SOURCES names",
            param="corpus.sql.source",
        ) from None
