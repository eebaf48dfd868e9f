"""What planner, control and host agents would do to a training job, through the ledger."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from jobs.database import Sessions
from jobs.decisions.run_verdict import Fault, RunVerdict
from jobs.kinds import DatasetSplit
from jobs.kinds.datasets import MAX_EXAMPLES, Dataset, RejectedRow, SplitFacts
from jobs.ledger import checkpoints, hosts, plans, ranks, runs, step_leases, telemetry
from jobs.ledger.hosts import HostDescription
from jobs.ledger.plans import DataShard
from jobs.ledger.ranks import RankLease, RunProgress
from jobs.states import JobStep, RunState

LEASE = timedelta(seconds=60)

REPORT: dict[str, Any] = {
    "task": "classify",
    "rows": 4,
    "loss": 0.5,
    "accuracy": 0.75,
    "macro_f1": 0.7333,
    "weighted_f1": 0.7333,
    "labels": ["news", "sport"],
    "per_label": [
        {"label": "news", "precision": 0.6667, "recall": 1.0, "f1": 0.8, "rows": 2},
        {"label": "sport", "precision": 1.0, "recall": 0.5, "f1": 0.6667, "rows": 2},
    ],
    "confusion": [[2, 0], [1, 1]],
}


class Gang:
    """Plans a job and runs it on hosts of its own, one live run at a time."""

    def __init__(self, sessions: Sessions, job_id: str) -> None:
        self._sessions = sessions
        self._job_id = job_id
        self._leases: list[RankLease] = []

    def plan(self, *, rows: int = 90, rejected: int = 0) -> None:
        with self._sessions.begin() as session:
            lease = step_leases.claim(
                session, self._job_id, step=JobStep.PLAN, owner="hands", duration=LEASE
            )
        assert lease is not None
        facts = SplitFacts(
            rows=rows,
            rejected=rejected,
            examples=tuple(
                RejectedRow(line, "bad_row", f"line {line} is bad")
                for line in range(2, 2 + min(rejected, MAX_EXAMPLES))
            ),
            labels={"news": rows // 2, "sport": rows - rows // 2},
            fingerprint="f",
            shards=1,
        )
        shard = DataShard(DatasetSplit.TRAIN, object_key="none", sha256="0", first_row=0, rows=rows)
        with self._sessions.begin() as session:
            plans.complete_dataset(
                session,
                lease,
                shards=[shard],
                dataset=Dataset(labels=("news", "sport"), splits={DatasetSplit.TRAIN: facts}),
                model_digest=None,
            )

    def form(self, *, machines: int = 1) -> list[str]:
        """Let hosts arrive and a run claim all its ranks; the hosts' names."""
        made = [_host() for _ in range(machines)]
        with self._sessions.begin() as session:
            for host in made:
                hosts.arrive(session, host)
            run_id = runs.form(session, self._job_id, [host.name for host in made])
        assert run_id is not None
        with self._sessions.begin() as session:
            for rank, host in enumerate(made):
                lease = ranks.claim(
                    session, run_id, rank, incarnation=host.incarnation, duration=LEASE
                )
                assert lease is not None
                self._leases = [*self._leases[:rank], lease]
        return [host.name for host in made]

    def progress(self, step: int, *, total: int = 100, phase: str = "training") -> None:
        with self._sessions.begin() as session:
            ranks.renew(session, self._leases[0], duration=LEASE, phase=phase, progress=True)
            ranks.record_progress(session, self._leases[0], RunProgress(step, total))

    def evaluate(self, rows: int, *, total: int) -> None:
        """Let rank 0 report rows of an evaluation."""
        with self._sessions.begin() as session:
            ranks.renew(session, self._leases[0], duration=LEASE, phase="evaluating", progress=True)
            ranks.record_progress(session, self._leases[0], RunProgress(evaluated=(rows, total)))

    def measure(self, points: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        with self._sessions.begin() as session:
            telemetry.add_points(session, self._leases[0], points)

    def say(self, *lines: str, rank: int = 0) -> None:
        with self._sessions.begin() as session:
            telemetry.add_log_lines(session, self._leases[rank], lines)

    def checkpoint(self, step: int, *, metric: float | None = None, best: bool = False) -> None:
        with self._sessions.begin() as session:
            checkpoints.complete(
                session,
                self._leases[0],
                step=step,
                metric=metric,
                best=best,
                manifest_key="none",
                manifest_sha256="0",
                size=2048,
            )

    def lose(self, reason: str) -> None:
        """The run is lost to a machine."""
        verdict = RunVerdict(RunState.LOST, reason=reason, rank=0, fault=Fault.INFRASTRUCTURE)
        with self._sessions.begin() as session:
            assert runs.conclude(
                session, self._leases[0].run_id, verdict, most_faults=20, most_errors=2
            )

    def succeed(self, **output: Any) -> None:
        with self._sessions.begin() as session:
            runs.succeed(session, self._leases[0], output=output)


def trained(**fields: Any) -> dict[str, Any]:
    """What a fine-tune ends with."""
    return {
        "model": "news@3",
        "version": 3,
        "report": {"validation": REPORT, "test": {**REPORT, "accuracy": 0.5}},
        "best_step": 80,
        "steps": 100,
        "promotion": None,
        "bytes": 4096,
        "rows": 90,
        **fields,
    }


def _host() -> HostDescription:
    return HostDescription(
        name=f"host-{secrets.token_hex(4)}",
        incarnation=secrets.token_hex(4),
        pool="train",
        address="127.0.0.1",
        devices=0,
        device="cpu",
        memory_bytes=2**30,
        shares_pool=None,
        sharing=None,
    )
