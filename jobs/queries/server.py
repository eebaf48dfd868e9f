"""The Postgres server itself: its version, its clock, and the version of the schema."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session


@dataclass(frozen=True)
class ServerView:
    """The server at one moment."""

    version: str  # ``PostgreSQL 18.1``
    number: int  # ``180001``
    now: datetime
    read_only: bool
    connections: int  # of clients
    most_connections: int
    revision: str | None  # of the schema; null: it has none yet


_SERVER = sa.text(
    """
    SELECT
        'PostgreSQL ' || split_part(current_setting('server_version'), ' ', 1) AS version,
        CAST(current_setting('server_version_num') AS integer) AS number,
        clock_timestamp() AS now,
        pg_is_in_recovery() AS read_only,
        (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')
            AS connections,
        CAST(current_setting('max_connections') AS integer) AS most_connections
    """
)


def look(session: Session) -> ServerView:
    """Ask it."""
    found = session.execute(_SERVER).one()._asdict()
    has_schema = session.scalar(sa.text("SELECT to_regclass('alembic_version') IS NOT NULL"))
    version = sa.text("SELECT version_num FROM alembic_version")
    return ServerView(**found, revision=session.scalar(version) if has_schema else None)
