"""Jobs in any condition, made by the ledger alone: no processes, no objects."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from jobs import database
from jobs.decisions.crash_policy import CrashVerdict, Phase
from jobs.kinds import ClassifySpec
from jobs.ledger import chunks, finalization, plans, projects, rescue, step_leases, submission
from jobs.ledger.chunks import ChunkLease, PartRecord
from jobs.ledger.plans import PlannedShard
from jobs.ledger.result_rows import COLUMNS
from jobs.ledger.step_leases import StepLease
from jobs.states import ChunkState, JobState, JobStep
from jobs.tables import Chunk, Event, Job

LEASE = timedelta(seconds=30)
RUN_OUT = timedelta(seconds=-1)
"""A lease of this length has run out when it is given."""

PROJECT = "ours"
OTHER = "theirs"


class Ledger:
    """A database with two projects, and short words for what is done to it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = database.connect(url)
        self.sessions = database.sessions(self.engine)
        with self.sessions.begin() as session:
            for project in (PROJECT, OTHER):
                projects.ensure_key(session, project_id=project, key=f"key of {project}")

    def accept(self, *, project: str = PROJECT, key: str | None = None, **fields: Any) -> str:
        """A new job; ``fields`` are its spec's."""
        spec = {"corpus": {"uri": "file:///corpus.jsonl"}, "model": "/model", **fields}
        with self.sessions.begin() as session:
            job_id, _ = submission.accept(
                session,
                project_id=project,
                spec=ClassifySpec.model_validate(spec),
                idempotency_key=key,
            )
        return job_id

    def claim_step(
        self,
        job_id: str,
        *,
        step: JobStep = JobStep.PLAN,
        owner: str = "p",
        duration: timedelta = LEASE,
    ) -> StepLease | None:
        with self.sessions.begin() as session:
            return step_leases.claim(session, job_id, step=step, owner=owner, duration=duration)

    def plan(self, job_id: str, *shards: Sequence[int], complete: bool = True) -> StepLease:
        """Plan shards of chunks of these sizes."""
        lease = self.claim_step(job_id)
        assert lease is not None
        with self.sessions.begin() as session:
            done = plans.begin(session, lease, fingerprint="f", model_digest="m")
        first_row = done.rows
        for index, sizes in enumerate(shards, start=done.shards):
            shard = PlannedShard(index, f"shard {index}", first_row, tuple(sizes))
            with self.sessions.begin() as session:
                plans.add_shard(session, lease, shard)
            first_row += shard.rows
        if complete:
            with self.sessions.begin() as session:
                plans.complete(session, lease)
        return lease

    def running(self, *sizes: int, **fields: Any) -> str:
        """A planned job with chunks of these sizes."""
        job_id = self.accept(**fields)
        self.plan(job_id, sizes or (10,))
        return job_id

    def job(self, job_id: str) -> Job:
        with self.sessions.begin() as session:
            return session.get_one(Job, job_id)

    def set(self, job_id: str, **values: Any) -> None:
        """Write a job's fields behind the ledger's back."""
        with self.sessions.begin() as session:
            session.execute(sa.update(Job).where(Job.id == job_id).values(**values))

    def live(self, job_id: str) -> list[Chunk]:
        """Chunks that were not split, in row order."""
        query = (
            sa.select(Chunk)
            .where(Chunk.job_id == job_id, Chunk.state != ChunkState.SPLIT)
            .order_by(Chunk.first_row)
        )
        with self.sessions.begin() as session:
            return list(session.scalars(query))

    def chunk(self, chunk_id: int) -> Chunk:
        with self.sessions.begin() as session:
            return session.get_one(Chunk, chunk_id)

    def only_chunk(self, job_id: str) -> int:
        (chunk,) = self.live(job_id)
        return chunk.id

    def claim(
        self, chunk_id: int, *, owner: str = "w", duration: timedelta = LEASE
    ) -> ChunkLease | None:
        with self.sessions.begin() as session:
            return chunks.claim(session, chunk_id, owner=owner, duration=duration)

    def claimed(
        self, chunk_id: int, *, owner: str = "w", duration: timedelta = LEASE
    ) -> ChunkLease:
        lease = self.claim(chunk_id, owner=owner, duration=duration)
        assert lease is not None
        return lease

    def commit(
        self,
        lease: ChunkLease,
        *,
        failed: int = 0,
        code: str = "no_tokens",
        results: Sequence[tuple[Any, ...]] = (),
    ) -> PartRecord:
        part = part_of(lease, failed=failed, code=code)
        with self.sessions.begin() as session:
            chunks.commit(session, lease, part, results=results)
        return part

    def commit_all(self, job_id: str, *, failed: int = 0) -> None:
        for chunk in self.live(job_id):
            if chunk.state is ChunkState.PENDING:
                self.commit(self.claimed(chunk.id), failed=failed)

    def finish(self, job_id: str) -> None:
        """Finalize the job, as the finalizer does when the outputs are written."""
        lease = self.claim_step(job_id, step=JobStep.FINALIZE)
        assert lease is not None
        with self.sessions.begin() as session:
            rows = finalization.done_rows(session, job_id)
            assert finalization.finish(session, lease, output={"rows": rows, "file": None})

    def end_thousands(self, *, ago: timedelta = timedelta()) -> None:
        """2,000 chunks and 2,000 jobs that ended this long ago, in Postgres's statistics too."""
        done = self.running(*[1] * 2_000)
        names = ", ".join(column.name for column in Job.__table__.columns if column.name != "id")
        more = sa.text(
            f"INSERT INTO jobs (id, {names}) SELECT 'old_' || n, {names} "
            "FROM jobs, generate_series(1, 2000) AS n WHERE id = :job_id"
        )
        chunks_done = sa.update(Chunk).where(Chunk.job_id == done)
        jobs_ended = sa.update(Job).where(sa.or_(Job.id == done, Job.id.startswith("old_")))
        with self.sessions.begin() as session:
            session.execute(chunks_done.values(state=ChunkState.DONE, part_key="k", rows_failed=0))
            session.execute(more, {"job_id": done})
            session.execute(
                jobs_ended.values(state=JobState.SUCCEEDED, finished_at=sa.func.now() - ago)
            )
            session.execute(sa.text("ANALYZE jobs, chunks"))

    def rescue(self) -> int:
        """Take back every lease that has run out."""
        with self.sessions.begin() as session:
            return rescue.rescue_expired(session).chunks

    def run_out(self, chunk_id: int) -> None:
        """Let a chunk's lease, or its delay, be over."""
        past = sa.func.now() - timedelta(seconds=1)
        leased = sa.case((Chunk.state == ChunkState.LEASED, past))
        with self.sessions.begin() as session:
            session.execute(
                sa.update(Chunk)
                .where(Chunk.id == chunk_id)
                .values(lease_expires_at=leased, not_before=None)
            )

    def crash(self, lease: ChunkLease, *, owner: str = "w") -> CrashVerdict | None:
        with self.sessions.begin() as session:
            return rescue.report_crash(session, lease.chunk_id, owner=owner, reason="killed")

    def die_at_load(self, lease: ChunkLease, *, phase: Phase = Phase.LOAD) -> CrashVerdict | None:
        with self.sessions.begin() as session:
            return rescue.report_load_death(
                session,
                lease.chunk_id,
                owner="w",
                phase=phase,
                timed_out=True,
                reason="too slow",
            )

    def events(self, job_id: str) -> list[Event]:
        with self.sessions.begin() as session:
            query = sa.select(Event).where(Event.job_id == job_id).order_by(Event.id)
            return list(session.scalars(query))


def part_of(lease: ChunkLease, *, failed: int = 0, code: str = "no_tokens") -> PartRecord:
    return PartRecord(
        key=f"parts/{lease.chunk_id}-{lease.fence}",
        bytes=1,
        rows=lease.rows,
        rows_failed=failed,
        tokens=lease.rows,
        engine_seconds=0.5,
        histogram={"good": lease.rows - failed},
        errors={code: _errors(lease, failed)} if failed else {},
    )


def _errors(lease: ChunkLease, failed: int) -> dict[str, Any]:
    """As the worker counts them: the chunk's first rows failed."""
    row = lease.first_row
    return {"rows": failed, "row": row, "line": row + 1, "id": f"id {row}", "message": "it is bad"}


def result_rows(lease: ChunkLease, *, label: str = "good") -> list[tuple[Any, ...]]:
    """Rows as COPY takes them."""
    said = {"job_id": lease.job_id, "label": label, "score": 1.0, "tokens": 1, "truncated": False}
    rows = range(lease.first_row, lease.first_row + lease.rows)
    return [tuple((said | {"row": row}).get(name) for name in COLUMNS) for row in rows]
