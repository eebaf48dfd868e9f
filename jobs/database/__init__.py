"""Connections to Postgres, and the schema's migrations.

``python -m jobs.database migrate`` brings the schema up to date; ``ensure-key`` makes the key in
``NIGHTSHIFT_API_KEY`` valid for a project.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa
import tenacity
from sqlalchemy.orm import Session, sessionmaker

from jobs import backoff
from jobs.decisions import faults

Sessions = sessionmaker[Session]
T = TypeVar("T")

MAY_PASS = (sa.exc.OperationalError, sa.exc.InterfaceError, psycopg.OperationalError)
"""Postgres away, a lock timeout, a deadlock; COPY raises psycopg's own."""

_TIMEOUTS = (
    "-c statement_timeout=60s -c lock_timeout=15s -c idle_in_transaction_session_timeout=60s"
)
_SINGLE_TIMEOUTS = (
    "-c statement_timeout=60s -c lock_timeout=5s -c idle_in_transaction_session_timeout=10s"
)
_READER = (
    "-c default_transaction_read_only=on -c statement_timeout=10s -c lock_timeout=5s "
    "-c idle_in_transaction_session_timeout=10s"
)
_NETWORK: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""A connection that the network has cut is noticed."""
_GONE = ("08", "57P")
"""Classes of SQLSTATE: connection exceptions, and a server that shuts down or is starting."""
_MIGRATIONS = Path(__file__).parents[1] / "migrations"
_MIGRATION_LOCK_MILLISECONDS = 2_000
"""Who waits for a lock on a table holds up everybody who comes after."""
MIGRATING_SECONDS = 600.0
_MIGRATION_LOCK = 0x6E69676874  # "night", any number that nothing else uses


def connect(
    url: str, *, pool_size: int = 5, name: str = "nightshift", options: str = _TIMEOUTS
) -> sa.Engine:
    """An engine whose calls cannot hang: connects in 5 s, statements and locks have limits."""
    return sa.create_engine(
        driver_url(url),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        pool_recycle=1800,
        connect_args={"application_name": name, "options": options, **_NETWORK},
    )


def connect_reader(url: str, *, pool_size: int, name: str) -> sa.Engine:
    """An engine for those who only look: Postgres refuses changes, and ends what takes long."""
    return connect(url, pool_size=pool_size, name=name, options=_READER)


def single_session(url: str, *, name: str) -> tuple[sa.Engine, psycopg.Connection]:
    """An engine on one session and its connection; once the session has ended, neither works.

    Locks and transactions of a process that hangs are freed sooner than elsewhere.
    """
    connection = psycopg.connect(
        plain_url(url), application_name=name, options=_SINGLE_TIMEOUTS, **_NETWORK
    )
    unused = [connection]

    def hand_out() -> psycopg.Connection:
        if not unused:
            raise psycopg.OperationalError("the session has ended")
        return unused.pop()

    engine = sa.create_engine(driver_url(url), creator=hand_out, poolclass=sa.StaticPool)
    return engine, connection


def sessions(engine: sa.Engine) -> Sessions:
    """Makes sessions; ``with sessions.begin() as session`` commits at the end of the block."""
    return sessionmaker(engine, expire_on_commit=False)


def one_snapshot(session: Session) -> None:
    """All statements of the transaction see the database at one moment; call it before the first.

    A row that moves from one table to another between two statements would be in neither.
    """
    session.connection(execution_options={"isolation_level": "REPEATABLE READ"})


def driver_url(url: str) -> sa.URL:
    """The URL with psycopg 3 named as the driver."""
    return sa.make_url(url).set(drivername="postgresql+psycopg")


def plain_url(url: str) -> str:
    """The URL as libpq and psycopg itself read it."""
    return sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def is_away(error: BaseException) -> bool:
    """Whether Postgres is gone or going, and not merely against what was asked.

    A lock timeout and a deadlock are ``OperationalError`` as well, but they
    come with a code of their own.
    """
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    if not isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    return cause.sqlstate is None or cause.sqlstate.startswith(_GONE)


def patiently(sessions: Sessions, work: Callable[[Session], T], *, seconds: float) -> T:
    """Do the work in one transaction; while Postgres is away, retry for ``seconds``.

    Only for work that may be repeated: guarded by a fence, or changing nothing. An answer that was
    lost after the commit looks like a failure here.
    """

    def once() -> T:
        with sessions.begin() as session:
            return work(session)

    again = tenacity.retry_if_exception(_is_transient)
    return backoff.retry(once, again=again, first=0.05, longest=1.0, seconds=seconds)


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, MAY_PASS) and faults.is_transient(error)


def revisions() -> list[str]:
    """Every version of the schema that this code knows, the newest first."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - most processes never migrate

    scripts = ScriptDirectory(str(_MIGRATIONS))
    return [script.revision for script in scripts.walk_revisions()]


def migrate(url: str, *, to: str = "head") -> None:
    """Bring the schema to the newest version, or ``to``; of several callers at once, one does it.

    Processes may work meanwhile. A step that cannot have its locks at once lets them pass and tries
    again, for ``MIGRATING_SECONDS``.
    """
    from alembic import command  # noqa: PLC0415 - most processes never migrate
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    engine = sa.create_engine(driver_url(url), poolclass=sa.NullPool)  # closing gives the lock back

    def upgrade() -> None:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"SET lock_timeout = {_MIGRATION_LOCK_MILLISECONDS}")
            connection.commit()
            config.attributes["connection"] = connection
            command.upgrade(config, to)
            connection.commit()

    again = tenacity.retry_if_exception(_is_locked)
    with engine.connect() as guard:
        guard.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": _MIGRATION_LOCK})
        backoff.retry(upgrade, again=again, first=0.2, longest=5.0, seconds=MIGRATING_SECONDS)


def _is_locked(error: BaseException) -> bool:
    return isinstance(error, sa.exc.DBAPIError) and isinstance(
        error.orig, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected
    )
