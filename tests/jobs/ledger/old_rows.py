"""Rows as processes of an earlier version write them: made from the tables as they are then.

``fill`` puts one row into every table of a database at some revision. It gives the columns that
must be given, and those in ``MORE``.
"""

from __future__ import annotations

import graphlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

MOMENT = datetime(2026, 11, 30, tzinfo=UTC)
ONE_ROW = {"control_status", "message_keys", "collection_rounds"}
"""Tables with a single row, whose id is 1."""
LEFT_OUT = {"alembic_version", "job_dependencies"}
"""The latter is about two jobs."""
NEEDED = {("alias_moves", "version")}
"""Columns that may be null, and must not be in the rows that are made here."""
_ALLOWED = re.compile(r"\(?\(?\"?(\w+)\"?\)?(?:::text)? = ANY \(\(?ARRAY\['(\w+)'")

MORE: Mapping[str, Mapping[str, Any]] = {
    "projects": {"weight": 2.0},
    "chunks": {"rows": 5, "crashes": 1},
    "promotions": {"promoted": True},
    "schedule_versions": {"definition": {"jobs": [{"name": "old", "spec": {}}]}},
    "webhook_endpoints": {"url": "https://example.org", "secret": "s"},
}
"""What a rule of a table asks for, or a migration looks at."""


@dataclass(frozen=True)
class OldRow:
    """A row as it was written, with the columns that its writer knew."""

    table: sa.Table
    values: dict[str, Any]


def fill(connection: sa.Connection, *, mark: str) -> list[OldRow]:
    """One row in each table, referring to each other; ``mark`` tells them from those of others."""
    metadata = sa.MetaData()
    metadata.reflect(connection)
    written: dict[str, dict[str, Any]] = {}
    rows = []
    for table in _in_order(metadata):
        values = dict(_values(connection, table, written, mark=mark))
        row = connection.execute(_insert(table).values(values).returning(table)).first()
        written[table.name] = dict(row._mapping) if row else {"id": 1}
        rows.append(OldRow(table, values))
    return rows


def _in_order(metadata: sa.MetaData) -> list[sa.Table]:
    """Each after those that it must refer to. Those that it may refer to can go in a circle."""
    needs = {
        table.name: {
            parent
            for column, (parent, _) in _references(table)
            if (not table.columns[column].nullable or (table.name, column) in NEEDED)
            and parent != table.name
        }
        for table in metadata.tables.values()
        if table.name not in LEFT_OUT
    }
    return [metadata.tables[name] for name in graphlib.TopologicalSorter(needs).static_order()]


def _insert(table: sa.Table) -> Any:
    statement = insert(table)
    return statement.on_conflict_do_nothing() if table.name in ONE_ROW else statement


def _values(
    connection: sa.Connection, table: sa.Table, written: dict[str, dict[str, Any]], *, mark: str
) -> Iterator[tuple[str, Any]]:
    references = dict(_references(table))
    allowed = _allowed(connection, table.name)
    more = MORE.get(table.name, {})
    for column in table.columns:
        name = column.name
        if name in more:
            yield name, more[name]
        elif name in references and (not column.nullable or (table.name, name) in NEEDED):
            parent, key = references[name]
            yield name, written[parent][key]
        elif table.name in ONE_ROW and name == "id":
            yield name, 1
        elif not column.nullable and column.server_default is None and column.identity is None:
            yield name, allowed.get(name) or _value(column, mark=mark)


def _references(table: sa.Table) -> Iterator[tuple[str, tuple[str, str]]]:
    for constraint in table.foreign_key_constraints:
        for element in constraint.elements:
            yield element.parent.name, (element.column.table.name, element.column.name)


def _allowed(connection: sa.Connection, table: str) -> dict[str, str]:
    """The first value of each column that has a list of them."""
    rules = connection.scalars(
        sa.text(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE contype = 'c' AND conrelid = to_regclass(:table)"
        ),
        {"table": f'"{table}"'},
    )
    found: dict[str, str] = {}
    for rule in rules:
        match = _ALLOWED.search(rule)
        if match and rule.count("ANY") == 1 and " OR " not in rule and ") = (" not in rule:
            found.setdefault(match[1], match[2])
    return found


def _value(column: sa.Column[Any], *, mark: str) -> Any:
    length = getattr(column.type, "length", None)
    for kind, value in (
        (sa.ARRAY, [mark]),
        (sa.JSON, {}),
        (sa.Boolean, False),
        (sa.Integer, 1),
        (sa.Numeric, 1.0),
        (sa.Float, 1.0),
        (sa.DateTime, MOMENT),
        (sa.LargeBinary, b"bytes"),
    ):
        if isinstance(column.type, kind):
            return value
    return f"{mark}-{column.name}"[:length]
