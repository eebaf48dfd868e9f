"""Promise P11: the reason why a job waits is read from the ledger, and is true."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from jobs.decisions.faults import Blame, Diagnosis, RetryLimits
from jobs.ledger import chunks, controls, dispatch_marks, workers
from jobs.queries import dispatch, waits
from jobs.queries import jobs as job_queries
from jobs.queries.capacity import PLANNERS
from jobs.states import JobStep
from jobs.tables import ControlStatus
from tests.jobs.ledger.building import OTHER, PROJECT, RUN_OUT, Ledger
from workers.heartbeat import WorkerRecord

LIMITS = RetryLimits(tries=3, outage=timedelta(hours=1))


@pytest.fixture
def place(ledger: Ledger) -> Iterator[Ledger]:
    """Control has turned, one worker and one planner are there, and no other test's jobs."""
    with ledger.sessions.begin() as session:
        session.merge(
            ControlStatus(id=1, leader="c", turned_at=datetime.now(UTC), broker_error=None)
        )
    beat(ledger, "w")
    beat(ledger, "p", pool=PLANNERS)
    yield ledger
    with ledger.sessions.begin() as session:
        session.execute(sa.text("TRUNCATE jobs, workers CASCADE"))


def beat(ledger: Ledger, name: str, *, pool: str = "cpu", ago: float = 0) -> None:
    with ledger.sessions.begin() as session:
        workers.beat(session, name=name, pool=pool, slots=1, device="cpu")
        session.execute(
            sa.text(
                "UPDATE workers SET beat_at = now() - make_interval(secs => :ago) WHERE name = :n"
            ),
            {"ago": ago, "n": name},
        )


def drain(ledger: Ledger, name: str) -> None:
    record = WorkerRecord(name, pool="cpu", slots=1, device="cpu")
    with ledger.sessions.begin() as session:
        record.drain(session)


def reason(ledger: Ledger, job_id: str, *, project: str = PROJECT) -> str | None:
    with ledger.sessions.begin() as session:
        return job_queries.get(session, job_id, project_id=project).waiting_reason


def busy(ledger: Ledger, **fields: Any) -> str:
    """A job whose chunk the worker ``w`` computes."""
    job_id = ledger.running(1, **fields)
    ledger.claimed(ledger.only_chunk(job_id), owner="w:1")
    return job_id


def test_a_job_that_is_computed_has_no_reason(place: Ledger) -> None:
    assert reason(place, busy(place)) is None


def test_a_job_behind_another_names_it_and_that_they_take_turns(place: Ledger) -> None:
    ahead = busy(place, name="nightly labels")
    assert reason(place, place.running(1)) == (
        f"the only slot of pool 'cpu' is busy with {ahead} (nightly labels); "
        "jobs of one project and priority take turns, chunk by chunk"
    )


def test_a_job_behind_one_of_higher_priority_says_so(place: Ledger) -> None:
    ahead = busy(place, priority=3)
    assert reason(place, place.running(1)) == (
        f"the only slot of pool 'cpu' is busy with {ahead} of higher priority (3, this job has 0)"
    )


def test_of_another_projects_job_only_that_it_is_one_is_said(place: Ledger) -> None:
    busy(place, project=OTHER, name="secret", priority=3)
    said = "the only slot of pool 'cpu' is busy with a job of another project"
    assert reason(place, place.running(1)) == said


def test_a_job_that_is_alone_is_not_busy_with_a_dead_workers_chunks(place: Ledger) -> None:
    """A worker has died and another has taken its place."""
    job_id = place.running(1, 1)
    beat(place, "dead", ago=60)
    first, _ = place.live(job_id)
    place.claimed(first.id, owner="dead:1", duration=RUN_OUT)
    said = reason(place, job_id) or ""
    assert re.fullmatch(
        r"the lease on 1 chunk of worker dead, which was last heard at \d\d:\d\d:\d\d UTC, "
        r"ran out at \d\d:\d\d:\d\d UTC: taken back next",
        said,
    )


def test_a_worker_that_misses_heartbeats_is_named_before_its_lease_runs_out(place: Ledger) -> None:
    job_id = busy(place)
    beat(place, "w", ago=14)
    assert re.fullmatch(
        r"1 chunk of worker w, which was last heard at \d\d:\d\d:\d\d UTC, is taken back "
        r"if the lease runs out at \d\d:\d\d:\d\d UTC",
        reason(place, job_id) or "",
    )


def test_a_job_with_one_dead_worker_of_two_moves(place: Ledger) -> None:
    job_id = place.running(1, 1)
    beat(place, "dead", ago=14)
    for chunk, owner in zip(place.live(job_id), ("w:1", "dead:1"), strict=True):
        place.claimed(chunk.id, owner=owner)
    assert reason(place, job_id) is None


def test_without_a_worker_the_last_one_is_named(place: Ledger) -> None:
    beat(place, "w", ago=14)
    said = reason(place, place.running(1)) or ""
    assert re.match(r"no worker of pool 'cpu' takes new work \(w was last heard at \d\d:", said)


def test_a_pool_whose_only_worker_drains_takes_no_new_work(place: Ledger) -> None:
    busy(place)
    drain(place, "w")
    said = reason(place, place.running(1)) or ""
    assert said.startswith("no worker of pool 'cpu' takes new work; start one")


def test_a_job_says_whose_chunks_are_in_the_queue_before_its_own(place: Ledger) -> None:
    ahead = place.running(1, 1, priority=1)
    job_id = place.running(1)
    assert reason(place, job_id) == "its chunks are sent to the queue of pool 'cpu' next"
    with place.sessions.begin() as session:
        dispatch_marks.mark_chunks(session, {ahead: 2})
    assert reason(place, job_id) == (
        f"the queue of pool 'cpu' has chunks of {ahead} of higher priority (1, this job has 0); "
        "its own follow in turn"
    )
    assert reason(place, ahead) == "its chunks are on their way to a worker"


def test_a_chunk_that_failed_says_when_it_is_tried_again(place: Ledger) -> None:
    job_id = place.running(1)
    lease = place.claimed(place.only_chunk(job_id), owner="w:1")
    found = Diagnosis(Blame.TRANSIENT, "storage_unavailable", "no space left")
    with place.sessions.begin() as session:
        chunks.release_after_fault(session, lease, found, limits=LIMITS)
    said = reason(place, job_id) or ""
    assert re.fullmatch(
        r"1 chunk failed and is tried again in \d+ s; the last error: no space left", said
    )


def test_a_queued_job_names_the_job_that_the_planner_is_busy_with(place: Ledger) -> None:
    ahead = place.accept(name="huge")
    job_id = place.accept()
    assert reason(place, job_id) == "its message is on the way to a planner"
    place.claim_step(ahead, owner="p:1")
    assert reason(place, job_id) == (
        f"no planner is free: the only planner is busy with {ahead} (huge)"
    )
    assert reason(place, ahead) is None


def test_what_a_draining_planner_still_does_keeps_no_other_planner_busy(place: Ledger) -> None:
    beat(place, "draining", pool=PLANNERS)
    place.claim_step(place.accept(), owner="draining:1")
    drain(place, "draining")
    ahead, job_id = place.accept(), place.accept()
    assert reason(place, job_id) == "its message is on the way to a planner"
    place.claim_step(ahead, owner="p:1")
    assert reason(place, job_id) == (f"no planner is free: the only planner is busy with {ahead}")


def test_a_job_whose_planner_died_names_it(place: Ledger) -> None:
    job_id = place.accept()
    place.claim_step(job_id, owner="p:1")
    beat(place, "p", pool=PLANNERS, ago=14)
    assert re.fullmatch(
        r"it is with planner p, which was last heard at \d\d:\d\d:\d\d UTC; "
        r"another takes over if the lease runs out at \d\d:\d\d:\d\d UTC",
        reason(place, job_id) or "",
    )


def test_a_paused_job_says_what_still_ends(place: Ledger) -> None:
    job_id = busy(place)
    with place.sessions.begin() as session:
        controls.pause(session, job_id, project_id=PROJECT)
    assert reason(place, job_id) == (
        "paused, with 1 chunk still under way; resume it with `nightshift jobs resume`"
    )


def test_a_job_that_is_finalized_or_cancelled_says_who_is_missing(place: Ledger) -> None:
    done, cancelled = place.running(1), busy(place)
    place.commit_all(done)
    with place.sessions.begin() as session:
        dispatch_marks.begin_finalizing(session, done)
        controls.cancel(session, cancelled, project_id=PROJECT)
        workers.leave(session, name="p")
    assert "no planner takes new work" in (reason(place, done) or "")
    assert reason(place, cancelled) == "1 chunk under way must end first"
    assert place.claim_step(done, step=JobStep.FINALIZE, owner="p:1") is not None
    assert reason(place, done) is None


@pytest.mark.parametrize(
    ("query", "values"),
    [
        (waits.pool_rows(), {"pool": "cpu"}),
        (waits.step_rows(), {}),
        (waits.lease_rows(), {"job_ids": ["x", "y"]}),
        (dispatch.candidate_rows(resend=False), {"pool": "cpu", "limit": 8}),
        (dispatch.overtaking(), {"pool": "cpu"}),
    ],
)
def test_what_is_asked_often_never_scans_all_chunks_or_jobs(
    place: Ledger, query: sa.Select[Any], values: dict[str, Any]
) -> None:
    """A thousand ended jobs and chunks beside one that runs: plans keep to partial indexes."""
    busy(place)
    place.end_thousands()
    compiled = query.params(values).compile(
        dialect=postgresql.dialect(),  # type: ignore[no-untyped-call]
        compile_kwargs={"literal_binds": True},
    )
    with place.sessions.begin() as session:
        plan = "\n".join(session.scalars(sa.text("EXPLAIN " + str(compiled).replace(":", "\\:"))))
    assert "Seq Scan on chunks" not in plan, plan
    assert "Seq Scan on jobs" not in plan, plan
