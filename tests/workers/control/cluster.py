"""A control plane with training hosts whose ranks the test moves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from jobs.decisions.run_verdict import RankOutcome
from jobs.ledger import hosts, runs
from jobs.ledger.hosts import HostDescription
from jobs.ledger.ranks import RankLease
from jobs.queries import jobs as job_queries
from jobs.states import JobState, RunState
from jobs.tables import Rank, Run
from tests.jobs.ledger.building import PROJECT
from tests.jobs.ledger.training import Training
from tests.workers.control.plane import ControlPlane, arguments
from workers.app import host_queue

TURNS = 4
"""After this many turns nothing moves by itself."""


class Cluster:
    """Training hosts under a control plane; nothing runs on them but what the test says."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.training = Training(plane.ledger)
        self.incarnations: dict[str, str] = {}

    def hosts(self, *names: str, **fields: Any) -> list[HostDescription]:
        made = [self.training.host(name, **fields) for name in names]
        self.incarnations |= {host.name: host.incarnation for host in made}
        return made

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.plane.turn()

    def messages(self, host: str) -> list[list[Any]]:
        """Arguments of the messages that wait in a host's queue."""
        return [arguments(message) for message in self.plane.messages(host_queue(host))]

    def take(self, job_id: str) -> list[RankLease]:
        """Let every host receive its message and claim its rank."""
        run = self.live(job_id)
        for rank in self.training.ranks(run.id):
            message: Any = self.plane.redis.rpop(host_queue(rank.host))
            assert message is not None, rank.host
            assert arguments(message) == [run.id, rank.rank, self.incarnations[rank.host]]
        return self.training.claimed(run.id)

    def started(self, job_id: str) -> list[RankLease]:
        """Form the job's gang in one turn, and let every rank begin."""
        self.turn()
        return self.take(job_id)

    def stop_all(self, leases: list[RankLease], outcome: RankOutcome = RankOutcome.STOPPED) -> None:
        """End every rank, and let control conclude the run."""
        for lease in leases:
            self.training.end(lease, outcome)
        self.turn()

    def crash(self, lease: RankLease, *, error: str | None = None, exit_code: int = 1) -> None:
        self.training.end(lease, RankOutcome.CRASHED, exit_code=exit_code, error=error)

    def lose_a_run(self, job_id: str, *, error: str | None = None, exit_code: int = 1) -> None:
        """Start a run of one host, whose rank crashes."""
        (lease,) = self.started(job_id)
        self.crash(lease, error=error, exit_code=exit_code)
        self.turn(2)

    def leave(self, host: str) -> None:
        """Let a host say that it ends."""
        with self.training.sessions.begin() as session:
            hosts.leave(session, name=host, incarnation=self.incarnations[host])

    def pass_redispatch_time(self) -> None:
        self.make_older(Rank, "dispatched_at", self.plane.settings.redispatch_seconds)

    def succeed(self, leases: list[RankLease]) -> None:
        with self.training.sessions.begin() as session:
            runs.succeed(session, leases[0], output={"rows": 1})

    def live(self, job_id: str) -> Run:
        """The job's run that has not ended."""
        run = self.training.live_run(job_id)
        assert run is not None, self.reason(job_id)
        return run

    def states(self, job_id: str) -> list[RunState]:
        return [run.state for run in self.training.runs_of(job_id)]

    def state(self, job_id: str) -> JobState:
        return self.training.ledger.job(job_id).state

    def reason(self, job_id: str) -> str:
        """Why the job waits; empty where it does not."""
        with self.training.sessions.begin() as session:
            return job_queries.get(session, job_id, project_id=PROJECT).waiting_reason or ""

    def do(self, operation: Any, job_id: str) -> None:
        with self.training.sessions.begin() as session:
            operation(session, job_id, project_id=PROJECT)

    def make_older(self, table: Any, column: str, seconds: float) -> None:
        with self.training.sessions.begin() as session:
            older = getattr(table, column) - timedelta(seconds=seconds)
            session.execute(sa.update(table).values({column: older}))

    def skip_backoff(self, job_id: str) -> None:
        self.training.ledger.set(job_id, not_before=None)
