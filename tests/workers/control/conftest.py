"""A control plane on real servers; with training hosts it is a cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from jobs.tables import (
    Chunk,
    ControlStatus,
    Event,
    Fire,
    Job,
    JobDependency,
    Project,
    Removal,
    Schedule,
    ScheduleVersion,
    Shard,
    Worker,
)
from tests.jobs.ledger.building import Ledger
from tests.support.servers import Server
from tests.workers.control.cluster import Cluster
from tests.workers.control.plane import ControlPlane


@pytest.fixture
def plane(ledger: Ledger, valkey: Server) -> Iterator[ControlPlane]:
    valkey.start()
    plane = ControlPlane(ledger, valkey.url)
    plane.redis.flushall()
    yield plane
    plane.close()
    _clear(ledger)


@pytest.fixture
def cluster(plane: ControlPlane) -> Iterator[Cluster]:
    cluster = Cluster(plane)
    yield cluster
    cluster.training.clear()


def _clear(ledger: Ledger) -> None:
    """Leave no job to the next test: control looks at all of them."""
    with ledger.sessions.begin() as session:
        of_schedules = (Fire, ScheduleVersion, Schedule)
        of_jobs = (JobDependency, Removal, Event, Chunk, Shard, Job)
        for table in (*of_jobs, *of_schedules, Worker, ControlStatus):
            session.execute(sa.delete(table))
        session.execute(sa.update(Project).values(weight=1))
