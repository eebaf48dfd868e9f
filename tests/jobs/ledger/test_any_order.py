"""Whatever is done to a job in whatever order: its rows are partitioned and its states hold."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from jobs import folding, objects
from jobs.decisions.faults import Blame, Diagnosis, RetryLimits
from jobs.errors import Conflict, LeaseLost
from jobs.ledger import (
    chunks,
    controls,
    dispatch_marks,
    plans,
    removals,
    rescue,
    step_leases,
)
from jobs.ledger.chunks import ChunkLease
from jobs.ledger.plans import PlannedShard
from jobs.ledger.step_leases import StepLease
from jobs.objects import ObjectStore
from jobs.queries import dispatch, jobs
from jobs.retention import Piece
from jobs.states import FINAL, ChunkState, JobState, JobStep
from jobs.tables import Chunk
from tests.jobs.ledger.building import LEASE, PROJECT, RUN_OUT, Ledger

sizes = st.lists(st.integers(1, 4), min_size=1, max_size=3)


class AnyOrder(RuleBasedStateMachine):
    """Planners, workers, control and users, each acting whenever chance wants it."""

    ledger: ClassVar[Ledger]
    store: ClassVar[ObjectStore]

    def __init__(self) -> None:
        super().__init__()
        self.leases: list[ChunkLease] = []
        self.step: StepLease | None = None
        self.fences: dict[int, int] = {}
        self.job_id = ""

    @initialize()
    def submit(self) -> None:
        self.job_id = self.ledger.accept()

    # Planner and finalizer.

    @rule(sizes=sizes, last=st.booleans())
    def plan(self, *, sizes: list[int], last: bool) -> None:
        self.step = self.ledger.claim_step(self.job_id) or self.step
        if self.step is None:
            return
        with contextlib.suppress(LeaseLost), self.ledger.sessions.begin() as session:
            done = plans.begin(session, self.step, fingerprint="f", model_digest="m")
            shard = PlannedShard(done.shards, "k", done.rows, tuple(sizes))
            plans.add_shard(session, self.step, shard)
            if last:
                plans.complete(session, self.step)

    @rule()
    def give_step_back(self) -> None:
        if self.step is not None:
            with self.ledger.sessions.begin() as session:
                step_leases.release(session, self.step)

    @rule()
    def finalize(self) -> None:
        with self.ledger.sessions.begin() as session:
            for job_id in dispatch.computed(session, limit=100):
                dispatch_marks.begin_finalizing(session, job_id)
        if any(chunk.state is ChunkState.LEASED for chunk in self._live()):
            return  # control sends no message then
        if lease := self.ledger.claim_step(self.job_id, step=JobStep.FINALIZE, owner="f"):
            self.step = lease
            self.ledger.set(self.job_id, step_owner=None, step_lease_expires_at=None)
            self.ledger.finish(self.job_id)

    # Workers.

    @rule(place=st.integers(0, 30), run_out=st.booleans())
    def claim(self, *, place: int, run_out: bool) -> None:
        live = self._live()
        if not live:
            return
        chunk = live[place % len(live)]
        owner = f"w{len(self.leases)}"
        lease = self.ledger.claim(chunk.id, owner=owner, duration=RUN_OUT if run_out else LEASE)
        if lease is not None:
            assert chunk.state is ChunkState.PENDING
            assert lease.fence > self.fences.get(chunk.id, 0), "a fence was given twice"
            self.fences[chunk.id] = lease.fence
            self.leases.append(lease)

    @precondition(lambda self: self.leases)
    @rule(which=st.integers(0, 30), failed=st.booleans())
    def commit(self, *, which: int, failed: bool) -> None:
        lease = self._lease(which)
        before = self.ledger.chunk(lease.chunk_id)
        ours = before.state is ChunkState.LEASED and before.fence == lease.fence
        with contextlib.suppress(LeaseLost):
            part = self.ledger.commit(lease, failed=int(failed))
            assert ours or before.part_key == part.key, "committed under an old fence"
        after = self.ledger.chunk(lease.chunk_id)
        assert ours or after.part_key == before.part_key

    @precondition(lambda self: self.leases)
    @rule(which=st.integers(0, 30))
    def renew(self, *, which: int) -> None:
        with self.ledger.sessions.begin() as session:
            chunks.renew(session, self._lease(which), duration=LEASE)

    @precondition(lambda self: self.leases)
    @rule(which=st.integers(0, 30), error=st.sampled_from([None, "disk full"]))
    def release(self, *, which: int, error: str | None) -> None:
        with self.ledger.sessions.begin() as session:
            lease = self._lease(which)
            if error is None:
                chunks.release(session, lease)
            else:
                found = Diagnosis(Blame.TRANSIENT, "storage_unavailable", error)
                limits = RetryLimits(tries=5, outage=timedelta(days=1))
                chunks.release_after_fault(session, lease, found, limits=limits)

    @rule(place=st.integers(0, 30), times=st.integers(1, 3))
    def die(self, *, place: int, times: int) -> None:
        """Workers that take the chunk one after the other die of it."""
        live = self._live()
        for _ in range(times if live else 0):
            self.claim(place=place, run_out=False)
            chunk = self.ledger.chunk(live[place % len(live)].id)
            if chunk.state is ChunkState.LEASED:
                with self.ledger.sessions.begin() as session:
                    owner = chunk.owner or ""
                    rescue.report_crash(session, chunk.id, owner=owner, reason="killed")

    @rule()
    def rescue(self) -> None:
        self.ledger.rescue()

    # Users.

    @rule(
        operation=st.sampled_from(
            [controls.pause, controls.resume, controls.cancel, controls.retry]
        )
    )
    def control(self, *, operation: Callable[..., object]) -> None:
        with contextlib.suppress(Conflict), self.ledger.sessions.begin() as session:
            operation(session, self.job_id, project_id=PROJECT)

    @rule()
    def fold_and_unfold(self) -> None:
        """If the job has ended: its counts stay, and its chunks come back as they were."""
        if not self.job_id or self.ledger.job(self.job_id).state not in FINAL:
            return
        before, counts = self._rows(), self._counts()
        with self.ledger.sessions.begin() as session:
            job = controls.lock(session, self.job_id, project_id=PROJECT)
            removals.mark(session, job, [Piece.CHUNKS])
        folding.fold_due(self.ledger.sessions, self.store, seconds=60)
        assert self._counts() == counts
        folding.unfold(self.ledger.sessions, self.store, self.job_id)
        assert self._rows() == before

    # What always holds.

    @invariant()
    def live_chunks_partition_the_planned_rows(self) -> None:
        expected = 0
        for chunk in self._live():
            assert chunk.first_row == expected
            expected += chunk.rows
        assert expected == (self.ledger.job(self.job_id).rows_planned if self.job_id else 0)

    @invariant()
    def a_chunk_is_done_if_and_only_if_it_has_a_part_of_its_own_fence(self) -> None:
        for chunk in self._live():
            part = f"parts/{chunk.id}-{chunk.fence}"
            assert (chunk.state is ChunkState.DONE) == (chunk.part_key is not None)
            assert chunk.part_key in (None, part)

    @invariant()
    def a_job_that_succeeded_has_every_row_done(self) -> None:
        if self.job_id and self.ledger.job(self.job_id).state is JobState.SUCCEEDED:
            assert all(chunk.state is ChunkState.DONE for chunk in self._live())

    def teardown(self) -> None:
        """Left alone, with everybody alive, the job comes to an end."""
        if not self.job_id:
            return
        self.control(operation=controls.resume)
        if self.ledger.job(self.job_id).state in (JobState.QUEUED, JobState.PLANNING):
            self._forget_step()
            self.plan(sizes=[1], last=True)
        for _ in range(20):
            if self.ledger.job(self.job_id).state in FINAL:
                return
            self._forget_step()
            self._finish_every_chunk()
            self.finalize()
        raise AssertionError(f"{self.job_id} does not end: {self.ledger.job(self.job_id).state}")

    def _finish_every_chunk(self) -> None:
        for chunk in self._live():
            self.ledger.run_out(chunk.id)
        self.ledger.rescue()
        for chunk in self._live():
            if lease := self.ledger.claim(chunk.id, owner="last"):
                self.ledger.commit(lease)

    def _forget_step(self) -> None:
        self.ledger.set(self.job_id, step_owner=None, step_lease_expires_at=None)

    def _live(self) -> list[Chunk]:
        return self.ledger.live(self.job_id) if self.job_id else []

    def _rows(self) -> list[tuple[object, ...]]:
        with self.ledger.sessions.begin() as session:
            query = sa.select(Chunk.__table__).where(Chunk.job_id == self.job_id)
            return [tuple(row) for row in session.execute(query.order_by(Chunk.id))]

    def _counts(self) -> tuple[object, ...]:
        with self.ledger.sessions.begin() as session:
            found = jobs.get(session, self.job_id, project_id=PROJECT)
        counts = found.counts
        sums = (counts.pending, counts.done, counts.rows_done, counts.rows_failed, counts.tokens)
        return (*sums, found.histogram, found.row_errors)

    def _lease(self, which: int) -> ChunkLease:
        return self.leases[which % len(self.leases)]


def test_rows_and_states_hold_in_any_order(ledger: Ledger, tmp_path: Path) -> None:
    class OnThisLedger(AnyOrder):
        pass

    OnThisLedger.ledger = ledger
    OnThisLedger.store = objects.connect(tmp_path.as_uri())
    run_machine(
        OnThisLedger,
        settings=settings(
            max_examples=20,
            stateful_step_count=30,
            phases=[Phase.generate],  # to shrink takes minutes on a real database
            suppress_health_check=list(HealthCheck),
        ),
    )
