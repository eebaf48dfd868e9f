"""Facts of the ledger for metrics and autoscalers: they are true, and cheap."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from jobs.decisions.faults import Blame, Diagnosis, RetryLimits
from jobs.ledger import chunks, controls, dispatch_marks, workers
from jobs.monitoring import catalogue, ledger_metrics
from jobs.monitoring.catalogue import Metric
from jobs.queries import demand, monitoring
from jobs.queries.capacity import PLANNERS
from jobs.queries.demand import PoolDemand
from jobs.states import JobStep
from jobs.tables import Chunk, ControlStatus
from tests.jobs.ledger.building import PROJECT, Ledger

LIMITS = RetryLimits(tries=3, outage=timedelta(hours=1))


@pytest.fixture
def place(ledger: Ledger) -> Iterator[Ledger]:
    """One worker with two slots and one planner are there, and no other test's jobs."""
    beat(ledger, "w", slots=2)
    beat(ledger, "p", pool=PLANNERS)
    yield ledger
    with ledger.sessions.begin() as session:
        session.execute(sa.text("TRUNCATE jobs, workers, control_status CASCADE"))


def beat(ledger: Ledger, name: str, *, pool: str = "cpu", slots: int = 1) -> None:
    with ledger.sessions.begin() as session:
        workers.beat(session, name=name, pool=pool, slots=slots, device="cpu")


def leave(ledger: Ledger, name: str) -> None:
    with ledger.sessions.begin() as session:
        workers.leave(session, name=name)


def waits(ledger: Ledger) -> dict[tuple[str, str], int]:
    with ledger.sessions.begin() as session:
        return {(each.pool, each.reason): each.jobs for each in monitoring.waiting(session)}


def facts(ledger: Ledger, metric: Metric) -> dict[tuple[str, ...], float]:
    with ledger.sessions.begin() as session:
        return dict(ledger_metrics.read(session)[metric])


def of_pool(ledger: Ledger, pool: str = "cpu") -> PoolDemand:
    with ledger.sessions.begin() as session:
        return demand.of_pool(session, pool)


def test_a_job_that_moves_waits_for_nothing(place: Ledger) -> None:
    place.claimed(place.only_chunk(place.running(1)), owner="w:1")
    assert waits(place) == {}


def test_what_a_job_waits_for_has_a_name_of_a_closed_set(place: Ledger) -> None:
    job_id = place.accept()
    assert waits(place) == {("cpu", "planner"): 1}
    leave(place, "p")
    assert waits(place) == {("cpu", "no_planner"): 1}
    place.plan(job_id, [1])
    assert waits(place) == {("cpu", "turn"): 1}
    leave(place, "w")
    assert waits(place) == {("cpu", "no_worker"): 1}
    with place.sessions.begin() as session:
        controls.pause(session, job_id, project_id=PROJECT)
    assert waits(place) == {("cpu", "paused"): 1}


def test_a_job_of_which_only_failed_chunks_are_left_waits_for_their_next_try(place: Ledger) -> None:
    lease = place.claimed(place.only_chunk(place.running(1)), owner="w:1")
    fault = Diagnosis(Blame.TRANSIENT, "store_away", "no answer")
    with place.sessions.begin() as session:
        chunks.release_after_fault(session, lease, fault, limits=LIMITS)
    assert waits(place) == {("cpu", "retry"): 1}


def test_a_job_to_be_finalized_waits_for_a_planner_until_one_has_it(place: Ledger) -> None:
    done = place.running(1)
    place.commit_all(done)
    with place.sessions.begin() as session:
        dispatch_marks.begin_finalizing(session, done)
    assert waits(place) == {("cpu", "planner"): 1}
    assert place.claim_step(done, step=JobStep.FINALIZE, owner="p:1") is not None
    assert waits(place) == {}


def test_jobs_are_counted_while_they_run_and_for_an_hour_after_their_end(place: Ledger) -> None:
    job_id = place.running(1)
    assert facts(place, catalogue.JOBS) == {("running", "classify", "cpu"): 1}
    place.commit_all(job_id)
    with place.sessions.begin() as session:
        dispatch_marks.begin_finalizing(session, job_id)
    place.finish(job_id)
    assert facts(place, catalogue.JOBS) == {}
    assert facts(place, catalogue.JOBS_ENDED) == {("succeeded", "classify"): 1}
    place.set(job_id, finished_at=datetime.now(UTC) - timedelta(hours=2))
    assert facts(place, catalogue.JOBS_ENDED) == {}


def test_chunks_are_pending_sent_and_leased(place: Ledger) -> None:
    job_id = place.running(1, 1, 1, 1)
    first, second, *_ = (chunk.id for chunk in place.live(job_id))
    place.claimed(first)
    with place.sessions.begin() as session:
        session.execute(
            sa.update(Chunk).where(Chunk.id == second).values(dispatched_at=sa.func.now())
        )
    assert facts(place, catalogue.CHUNKS) == {
        ("cpu", "pending"): 3,
        ("cpu", "sent"): 1,
        ("cpu", "leased"): 1,
    }


def test_control_says_when_it_turned_and_whether_it_reached_the_broker(place: Ledger) -> None:
    assert facts(place, catalogue.CONTROL_AGE) == {}
    with place.sessions.begin() as session:
        turned_at = datetime.now(UTC) - timedelta(seconds=60)
        session.merge(ControlStatus(id=1, leader="c", turned_at=turned_at, broker_error="away"))
    assert facts(place, catalogue.CONTROL_AGE)[()] == pytest.approx(60, abs=10)
    assert facts(place, catalogue.BROKER_AWAY) == {(): 1}


def test_states_of_which_a_rise_is_an_alert_are_there_before_it(place: Ledger) -> None:
    endpoints = facts(place, catalogue.WEBHOOK_ENDPOINTS)
    assert endpoints == {("well",): 0, ("failing",): 0, ("disabled",): 0}
    assert facts(place, catalogue.FIRES)[("missed",)] == 0


def test_a_pool_wants_slots_for_the_chunks_that_are_left_by_their_deadlines(place: Ledger) -> None:
    job_id = place.running(*[1] * 10)
    done, claimed, *_ = (chunk.id for chunk in place.live(job_id))
    place.commit(place.claimed(done))
    place.claimed(claimed)
    begun_at = sa.func.now() - timedelta(seconds=100)
    with place.sessions.begin() as session:
        session.execute(
            sa.update(Chunk)
            .where(Chunk.id == done)
            .values(begun_at=begun_at, done_at=sa.func.now())
        )
    place.set(job_id, expires_at=datetime.now(UTC) + timedelta(seconds=310))
    found = of_pool(place)
    assert found.slots.chunks == 9
    assert found.slots.chunk_seconds == pytest.approx(100)
    assert (found.slots.wanted, found.slots.for_deadlines) == (3, 3)  # 900 s within 310
    assert (found.slots_heard, found.slots_busy, found.chunks_pending) == (2, 1, 8)


def test_work_that_cannot_go_on_wants_no_slot(place: Ledger) -> None:
    job_id = place.running(1, 1)
    assert of_pool(place).slots.wanted == 1
    with place.sessions.begin() as session:
        controls.pause(session, job_id, project_id=PROJECT)
    assert of_pool(place).slots.wanted == 0


def test_a_job_that_is_not_planned_yet_wants_a_worker(place: Ledger) -> None:
    place.accept(pool="gpu")
    assert of_pool(place, "gpu").slots.wanted == 1
    with place.sessions.begin() as session:
        assert [each.pool for each in demand.of_all(session)] == ["cpu", "gpu"]


def test_jobs_that_no_planner_has_begun_count_each(place: Ledger) -> None:
    for _ in range(3):
        place.accept(pool="gpu")
    last = place.accept(pool="gpu")
    place.set(last, expires_at=datetime.now(UTC) + timedelta(seconds=5))
    found = of_pool(place, "gpu")
    assert (found.jobs, found.slots.chunks) == (4, 4)
    assert (found.slots.wanted, found.slots.for_deadlines) == (1, 1)


def test_a_pool_that_is_not_known_wants_nothing(place: Ledger) -> None:
    found = of_pool(place, "nowhere")
    assert (found.slots.wanted, found.slots_heard, found.hosts_wanted) == (0, 0, 0)


def test_a_claim_says_how_long_its_message_had_waited(place: Ledger) -> None:
    chunk_id = place.only_chunk(place.running(1))
    sent_at = sa.func.now() - timedelta(seconds=7)
    with place.sessions.begin() as session:
        session.execute(sa.update(Chunk).where(Chunk.id == chunk_id).values(dispatched_at=sent_at))
    assert place.claimed(chunk_id).waited_seconds == pytest.approx(7, abs=2)
    assert place.claimed(chunk_id).waited_seconds is None  # its message is used up


def test_reading_all_facts_scans_neither_all_chunks_nor_all_jobs(place: Ledger) -> None:
    place.end_thousands(ago=timedelta(days=1))
    place.running(1)
    asked: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, sql: str, values: Any, *_rest: object) -> None:
        asked.append((sql, values))

    sa.event.listen(place.engine, "before_cursor_execute", note)
    with place.sessions.begin() as session:
        ledger_metrics.read(session)
    sa.event.remove(place.engine, "before_cursor_execute", note)
    assert len(asked) > 15
    with place.engine.connect() as connection:
        for sql, values in asked:
            plan = "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {sql}", values))
            assert "Seq Scan on chunks" not in plan, plan
            assert "Seq Scan on jobs" not in plan, plan
