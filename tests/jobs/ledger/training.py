"""Training jobs, hosts and gangs in any condition, made by the ledger alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count
from typing import Any

import sqlalchemy as sa

from jobs import kinds
from jobs.decisions.run_verdict import Fault, RankOutcome, RunVerdict
from jobs.kinds import DatasetSplit
from jobs.kinds.datasets import Dataset, SplitFacts
from jobs.ledger import checkpoints, hosts, plans, ranks, runs, submission, telemetry
from jobs.ledger.hosts import HostDescription
from jobs.ledger.plans import DataShard
from jobs.ledger.ranks import PREPARING, Orders, RankLease
from jobs.states import RunState
from jobs.tables import Base, Checkpoint, Host, Rank, Run
from tests.jobs.ledger.building import LEASE, PROJECT, Ledger

MOST_FAULTS, MOST_ERRORS = 3, 1
"""Budgets of restarts in these tests."""

LOST = RunVerdict(RunState.LOST, reason="rank 0 died", rank=0, fault=Fault.INFRASTRUCTURE)

_numbers = count(1)


class Training:
    """A ledger, and short words for what training does to it."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.sessions = ledger.sessions

    def accept(self, *, project: str = PROJECT, **fields: Any) -> str:
        """A new fine-tune, or what ``kind`` says; ``fields`` are its spec's."""
        spec = {"kind": "finetune", "corpus": {"uri": "file:///corpus.jsonl"}, "model": "m"}
        if fields.get("kind", "finetune") == "finetune":
            spec["base"] = "/model"
        with self.sessions.begin() as session:
            job_id, _ = submission.accept(
                session, project_id=project, spec=kinds.parse(spec | fields), idempotency_key=None
            )
        return job_id

    def plan(self, job_id: str) -> None:
        """Write the smallest data set there is."""
        lease = self.ledger.claim_step(job_id)
        assert lease is not None
        facts = SplitFacts(
            rows=9, rejected=0, examples=(), labels={"a": 4, "b": 5}, fingerprint="f", shards=1
        )
        with self.sessions.begin() as session:
            plans.complete_dataset(
                session,
                lease,
                shards=[DataShard(DatasetSplit.TRAIN, "no object", "0", first_row=0, rows=9)],
                dataset=Dataset(labels=("a", "b"), splits={DatasetSplit.TRAIN: facts}),
                model_digest=None,
            )

    def job(self, **fields: Any) -> str:
        """A planned job, which wants a gang."""
        job_id = self.accept(**fields)
        self.plan(job_id)
        return job_id

    def host(self, name: str | None = None, **fields: Any) -> HostDescription:
        """A host that has just arrived."""
        number = next(_numbers)
        host = HostDescription(
            **{
                "name": name or f"host-{number:04d}",
                "incarnation": f"incarnation-{number}",
                "pool": "train",
                "address": "10.0.0.1",
                "devices": 0,
                "device": "cpu",
                "memory_bytes": 2**30,
                "shares_pool": None,
                "sharing": None,
                **fields,
            }
        )
        with self.sessions.begin() as session:
            hosts.arrive(session, host)
        return host

    def hosts(self, number: int, **fields: Any) -> list[HostDescription]:
        """This many hosts that have just arrived."""
        return [self.host(**fields) for _ in range(number)]

    def form(self, job_id: str, gang: list[HostDescription]) -> str | None:
        with self.sessions.begin() as session:
            return runs.form(session, job_id, [host.name for host in gang])

    def formed(self, job_id: str, gang: list[HostDescription] | None = None) -> str:
        """A run that no rank has claimed yet."""
        run_id = self.form(job_id, gang or self.hosts(1))
        assert run_id is not None
        return run_id

    def claim(
        self, run_id: str, rank: int, incarnation: str, *, duration: timedelta = LEASE
    ) -> RankLease | None:
        with self.sessions.begin() as session:
            return ranks.claim(session, run_id, rank, incarnation=incarnation, duration=duration)

    def claimed(self, run_id: str, *, duration: timedelta = LEASE) -> list[RankLease]:
        """The leases of all ranks of a run."""
        found = [
            self.claim(run_id, rank.rank, rank.incarnation, duration=duration)
            for rank in self.ranks(run_id)
        ]
        assert None not in found
        return [lease for lease in found if lease is not None]

    def gang(
        self, job_id: str, machines: int = 1, *, duration: timedelta = LEASE
    ) -> list[RankLease]:
        """The leases of a new run on new hosts."""
        return self.claimed(self.formed(job_id, self.hosts(machines)), duration=duration)

    def end(self, lease: RankLease, outcome: RankOutcome, **facts: Any) -> bool:
        with self.sessions.begin() as session:
            return ranks.end_rank(session, lease, outcome, **facts)

    def conclude(self, run_id: str, verdict: RunVerdict) -> bool:
        with self.sessions.begin() as session:
            return runs.conclude(
                session, run_id, verdict, most_faults=MOST_FAULTS, most_errors=MOST_ERRORS
            )

    def stop(self, run_id: str, how: str = "checkpoint", reason: str = "wanted") -> bool:
        with self.sessions.begin() as session:
            return runs.request_stop(session, run_id, how=how, reason=reason)

    def checkpoint(
        self, lease: RankLease, step: int, *, metric: float | None = None, best: bool = False
    ) -> int:
        """A complete checkpoint without objects; its id."""
        with self.sessions.begin() as session:
            checkpoints.complete(
                session,
                lease,
                step=step,
                metric=metric,
                best=best,
                manifest_key=f"{lease.run_id}/{step}",
                manifest_sha256="0",
                size=1,
            )
            query = sa.select(Checkpoint.id).where(
                Checkpoint.run_id == lease.run_id, Checkpoint.step == step
            )
            return session.scalars(query).one()

    def newest(self, job_id: str) -> int | None:
        """The step of the newest checkpoint that can be used."""
        with self.sessions.begin() as session:
            found = checkpoints.newest(session, job_id)
        return found.step if found else None

    def run(self, run_id: str) -> Run:
        with self.sessions.begin() as session:
            return session.get_one(Run, run_id)

    def live_run(self, job_id: str) -> Run | None:
        with self.sessions.begin() as session:
            query = sa.select(Run).where(Run.job_id == job_id, Run.finished_at.is_(None))
            return session.scalars(query).one_or_none()

    def runs_of(self, job_id: str) -> list[Run]:
        """Every run of a job, in order."""
        with self.sessions.begin() as session:
            return list(
                session.scalars(sa.select(Run).where(Run.job_id == job_id).order_by(Run.number))
            )

    def rank(self, lease: RankLease) -> Rank:
        return self.ranks(lease.run_id)[lease.rank]

    def ranks(self, run_id: str) -> list[Rank]:
        with self.sessions.begin() as session:
            query = sa.select(Rank).where(Rank.run_id == run_id).order_by(Rank.rank)
            return list(session.scalars(query))

    def host_row(self, name: str) -> Host | None:
        with self.sessions.begin() as session:
            return session.get(Host, name)

    def reserved(self, gang: list[HostDescription]) -> set[str | None]:
        """The runs that these hosts are reserved for."""
        names = [host.name for host in gang]
        with self.sessions.begin() as session:
            return set(session.scalars(sa.select(Host.run_id).where(Host.name.in_(names))))

    def run_out(self, run_id: str, *ranks: int) -> None:
        """Let leases of ranks be over."""
        past = sa.func.now() - timedelta(seconds=1)
        with self.sessions.begin() as session:
            session.execute(
                sa.update(Rank)
                .where(Rank.run_id == run_id, Rank.rank.in_(ranks))
                .values(lease_expires_at=past)
            )

    def told(self, job_id: str, kind: str) -> list[dict[str, Any]]:
        """What events of a type say."""
        return [event.data for event in self.ledger.events(job_id) if event.type == kind]

    def renew(
        self, lease: RankLease, *, phase: str = PREPARING, progress: bool = False
    ) -> Orders | None:
        with self.sessions.begin() as session:
            return ranks.renew(session, lease, duration=LEASE, phase=phase, progress=progress)

    def end_overdue(self, lease: RankLease, outcome: RankOutcome) -> bool:
        with self.sessions.begin() as session:
            return ranks.end_overdue(session, lease.run_id, lease.rank, outcome)

    def lose(self, lease: RankLease) -> None:
        """End a run as control does when its rank has died."""
        self.end(lease, RankOutcome.CRASHED)
        assert self.conclude(lease.run_id, LOST)

    def succeed(self, lease: RankLease) -> None:
        with self.sessions.begin() as session:
            runs.succeed(session, lease, output={"rows": 1})

    def add_points(self, lease: RankLease, losses: dict[int, float]) -> None:
        points = [(step, {"loss": loss}) for step, loss in losses.items()]
        with self.sessions.begin() as session:
            telemetry.add_points(session, lease, points)

    def control(self, operation: Any, job_id: str) -> None:
        """Cancel, pause, resume or retry."""
        with self.sessions.begin() as session:
            operation(session, job_id, project_id=PROJECT)

    def end_cancelled(self) -> None:
        with self.sessions.begin() as session:
            runs.end_cancelled(session, kinds=sorted(kinds.TRAINING))

    def drain(self, name: str, incarnation: str) -> None:
        with self.sessions.begin() as session:
            hosts.drain(session, name=name, incarnation=incarnation)

    def beat(self, host: HostDescription) -> bool:
        with self.sessions.begin() as session:
            return hosts.beat(session, host)

    def forget(self) -> list[str]:
        """Hosts that were silent for ten minutes."""
        with self.sessions.begin() as session:
            return hosts.forget_silent(session, seconds=600)

    def age(self, name: str, *, seconds: float) -> None:
        """Let a host's last beat be longer ago."""
        with self.sessions.begin() as session:
            beat_at = sa.func.now() - timedelta(seconds=seconds)
            session.execute(sa.update(Host).where(Host.name == name).values(beat_at=beat_at))

    def waiting(self) -> int:
        """Sessions of this database that wait for a lock."""
        with self.ledger.engine.connect() as connection:
            query = (
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return int(connection.scalar(sa.text(query)) or 0)

    def clear(self) -> None:
        """Leave no job and no host to the next test."""
        kept = {"projects", "api_keys", "files", "alembic_version"}
        with self.sessions.begin() as session:
            session.execute(sa.update(Host).values(run_id=None))
            session.execute(sa.update(Run).values(checkpoint_id=None))
            for table in reversed(Base.metadata.sorted_tables):
                if table.name not in kept:
                    session.execute(sa.delete(table))


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """What the calls return, all begun at the same moment in threads of their own."""
    start = threading.Barrier(len(calls))

    def call(one: Callable[[], Any]) -> Any:
        start.wait()
        return one()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, calls))
