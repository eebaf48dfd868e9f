"""Which database this is: what distinguishes two installations on one machine."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session


def identity(session: Session) -> str:
    """The same for every process on this database, and different for any other database.

    It is the number that Postgres drew when its cluster was made, and that of the database in it.
    """
    database = session.scalar(
        sa.text("SELECT oid::text FROM pg_database WHERE datname = current_database()")
    )
    may = "SELECT has_function_privilege('pg_control_system()', 'execute')"
    if not session.scalar(sa.text(may)):
        return f"{session.scalar(sa.text('SELECT current_database()'))}/{database}"
    cluster = sa.text("SELECT system_identifier::text FROM pg_control_system()")
    return f"{session.scalar(cluster)}/{database}"
