"""Migrations of a database that is in use: a writer of the version before goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy as sa

from jobs import database
from tests.jobs.ledger import old_rows
from tests.jobs.ledger.test_migrations import empty
from tests.support.servers import Server
from tests.support.waiting import wait_until

BEFORE = "0032"
"""The next one changes tables that everybody uses."""


class OldWorker:
    """A process of an earlier version that goes on: heartbeats, leases, events, without end."""

    def __init__(self, url: str) -> None:
        self._engine = database.connect(url, pool_size=1, name="old-worker")
        self._over = threading.Event()
        self.turns = 0
        self.error: BaseException | None = None

    def _turn(self, session: sa.Connection) -> None:
        fence = {"fence": self.turns}
        session.execute(sa.text("UPDATE chunks SET fence = fence + 1, last_error = 'old'"))
        session.execute(sa.text("UPDATE jobs SET step_fence = :fence"), fence)
        session.execute(sa.text("UPDATE workers SET beat_at = now()"))
        session.execute(
            sa.text("INSERT INTO events (job_id, type, data) SELECT id, 'old', '{}' FROM jobs")
        )

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                with self._engine.begin() as session:
                    self._turn(session)
                self.turns += 1
        except BaseException as error:  # noqa: BLE001 - the test shows it
            self.error = error

    def await_turns(self) -> None:
        """Return once it has worked since, or stumbled."""
        turns = self.turns
        wait_until(lambda: self.turns > turns + 1 or self.error, seconds=30)

    @contextmanager
    def working(self) -> Iterator[OldWorker]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join()
            self._engine.dispose()


def test_a_migration_that_waits_for_a_reader_holds_up_no_writer_and_ends_after_it(
    postgres: Server,
) -> None:
    url = empty(postgres, "waits_for_a_reader")
    database.migrate(url, to=BEFORE)
    engine = sa.create_engine(database.driver_url(url), poolclass=sa.NullPool)
    with engine.begin() as connection:
        old_rows.fill(connection, mark="old")
    with psycopg.connect(url) as reader, OldWorker(url).working() as worker:
        reader.execute("SELECT count(*) FROM jobs, chunks")  # its transaction stays open
        migration = threading.Thread(target=database.migrate, args=(url,))
        migration.start()
        wait_until(lambda: _waits(url), seconds=30)
        worker.await_turns()
        assert migration.is_alive()
        reader.rollback()
        migration.join(60)
        assert not migration.is_alive()
        assert worker.error is None
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        assert found == (database.revisions()[0],)


def _waits(url: str) -> bool:
    """Whether the migration waits for a lock on a table."""
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
        ).fetchone()
        return found is not None and found[0] > 0
