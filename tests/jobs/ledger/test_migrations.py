"""The migrations and the tables say the same."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

import jobs
from api.stack import postgres as postgres_server
from jobs import database
from jobs.tables import Base
from tests.support.servers import Databases, Server
from tests.support.waiting import wait_until

ADVISORY_LOCKS = (  # of this database: other databases of the server have leaders of their own
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
MIGRATIONS = Path(jobs.__file__).parent / "migrations"


def empty(postgres: Server, name: str) -> str:
    with psycopg.connect(postgres_server.maintenance(postgres.url), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return f"{postgres.url.rpartition('/')[0]}/{name}"


def test_an_upgraded_database_is_what_the_tables_say(fresh_database: Databases) -> None:
    engine = database.connect(fresh_database())
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
        assert _checks_and_indexes(connection) == _those_of_the_tables()
    engine.dispose()


def test_two_that_migrate_at_once_both_succeed(postgres: Server) -> None:
    url = empty(postgres, "migrated_twice")
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(database.migrate, [url] * 3))
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (0,)


def test_migrating_leaves_no_lock_behind(postgres: Server) -> None:
    url = empty(postgres, "unlocked")
    database.migrate(url)
    with psycopg.connect(url, autocommit=True) as connection:
        wait_until(lambda: connection.execute(ADVISORY_LOCKS).fetchone() == (0,))


def test_a_downgrade_and_upgrade_leave_the_same_schema(postgres: Server) -> None:
    url = empty(postgres, "down_and_up")
    database.migrate(url)
    engine = sa.create_engine(database.driver_url(url), poolclass=sa.NullPool)
    with engine.connect() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        connection.commit()
    database.migrate(url)
    with engine.connect() as connection:
        assert _checks_and_indexes(connection) == _those_of_the_tables()


def _checks_and_indexes(connection: sa.Connection) -> set[str]:
    """What Alembic's comparison does not see: CHECKs, and partial indexes by name."""
    query = sa.text(
        "SELECT conname FROM pg_constraint WHERE contype = 'c' AND conname LIKE 'ck\\_%' "
        "UNION SELECT indexname FROM pg_indexes WHERE indexname LIKE 'ix\\_%'"
    )
    return set(connection.scalars(query))


def _those_of_the_tables() -> set[str]:
    names = set()
    for table in Base.metadata.sorted_tables:
        names |= {str(each.name) for each in table.indexes if str(each.name).startswith("ix")}
        names |= {
            str(each.name) for each in table.constraints if isinstance(each, sa.CheckConstraint)
        }
    return names
