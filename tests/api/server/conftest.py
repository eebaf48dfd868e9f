"""Fixtures: one API process for all tests of this room, and a project of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from jobs.ledger import dependencies, refused_messages, workers
from jobs.ledger.refused_messages import Refusal
from tests.api.server.gang import Gang
from tests.api.server.installation import (
    Hands,
    Installation,
    Tenant,
    new_tenant,
    start_installation,
)
from tests.support.servers import Databases


@pytest.fixture(scope="session")
def installation(
    fresh_database: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    running = start_installation(fresh_database(), tmp_path_factory.mktemp("api"))
    yield running
    running.stop()


@pytest.fixture
def tenant(installation: Installation) -> Iterator[Tenant]:
    with new_tenant(installation) as made:
        yield made


@pytest.fixture
def stranger(installation: Installation) -> Iterator[Tenant]:
    """Another project of the same installation."""
    with new_tenant(installation) as made:
        yield made


class FakeWorkers:
    """What planners, workers and hosts do to jobs of the installation, without processes."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._stack = ExitStack()
        self._sessions = self._stack.enter_context(installation.sessions())

    def take(self, job_id: str) -> Hands:
        """To plan, compute and finalize a job."""
        return Hands(self._sessions, self._installation.store, job_id)

    def gang(self, job_id: str) -> Gang:
        """To train."""
        return Gang(self._sessions, job_id)

    def worker(self, name: str, *, slot: int, engines: list[dict[str, str]]) -> None:
        """A worker of one pool, and what one of its processes has loaded."""
        with self._sessions.begin() as session:
            workers.beat(session, name=name, pool="cpu", slots=2, device="cpu")
            workers.show_engines(session, name=name, slot=slot, engines=engines)

    def refuse(self, digest: str) -> None:
        """A worker has refused a message."""
        refusal = Refusal(digest, "pool.cpu", "unsigned", "it has no signature", 7)
        with self._sessions.begin() as session:
            refused_messages.record(session, [refusal], worker="cpu-1@here")

    def settle(self) -> None:
        """Let go, or end, jobs that wait for others, as control does."""
        while due := self._due():
            for job_id in due:
                with self._sessions.begin() as session:
                    dependencies.settle(session, job_id)

    def _due(self) -> list[str]:
        with self._sessions.begin() as session:
            return dependencies.due(session, limit=100)

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def fake_workers(installation: Installation) -> Iterator[FakeWorkers]:
    made = FakeWorkers(installation)
    yield made
    made.close()
