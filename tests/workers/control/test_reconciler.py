"""What one turn of control sends and moves, on a real queue that may lose everything."""

from __future__ import annotations

import ast
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import workers
from jobs.decisions.dispatch_window import SETTLING
from jobs.ledger import controls
from jobs.ledger import workers as beats
from jobs.queries import jobs as job_queries
from jobs.states import ChunkState, JobState
from jobs.tables import Chunk, ControlStatus, Project
from tests.jobs.ledger.building import OTHER, PROJECT, RUN_OUT
from tests.support.servers import Server
from tests.workers.control.plane import LONG, WINDOW, ControlPlane
from workers.app import PLAN_QUEUE
from workers.control import reconciler


def age_messages(plane: ControlPlane, *, by: timedelta = SETTLING) -> None:
    """Let the marks of what was sent be older."""
    with plane.ledger.sessions.begin() as session:
        session.execute(
            sa.update(Chunk)
            .where(Chunk.dispatched_at.is_not(None))
            .values(dispatched_at=Chunk.dispatched_at - by)
        )


def test_the_queue_never_holds_more_than_its_window(plane: ControlPlane) -> None:
    job_id = plane.ledger.running(*[1] * 3_000)
    for chunk in plane.ledger.live(job_id)[:60]:
        if len(plane.queued()) < WINDOW:
            plane.turn()
        assert len(plane.queued()) == WINDOW
        assert plane.take() == [chunk.id]  # in the order of the corpus
        plane.ledger.commit(plane.ledger.claimed(chunk.id))


def test_a_turn_sends_nothing_into_a_full_queue(plane: ControlPlane) -> None:
    plane.ledger.running(*[1] * 50)
    assert plane.turn() == WINDOW
    age_messages(plane, by=timedelta(hours=1))
    assert plane.turn() == 0


def test_after_a_flush_everything_is_sent_again_within_the_settling_time(
    plane: ControlPlane,
) -> None:
    plane.ledger.running(*[1] * 50)
    plane.turn()
    before = plane.queued()
    plane.redis.flushall()
    assert plane.turn() == WINDOW  # there is room for those that come next
    plane.redis.flushall()
    age_messages(plane)
    assert plane.turn() == WINDOW
    assert plane.queued() == before


def test_a_message_that_was_taken_and_lost_is_sent_again_once_it_is_old(
    plane: ControlPlane,
) -> None:
    plane.ledger.running(*[1] * WINDOW)
    plane.turn()
    (lost,) = plane.take()
    age_messages(plane)
    assert plane.turn() == 0
    age_messages(plane, by=plane.settings.redispatch)
    assert plane.turn() == 1
    assert lost in plane.queued()


def test_two_projects_share_a_pool_by_their_weight(plane: ControlPlane) -> None:
    with plane.ledger.sessions.begin() as session:
        session.execute(sa.update(Project).where(Project.id == OTHER).values(weight=3))
    ours = _ids(plane, plane.ledger.running(*[1] * 50))
    theirs = _ids(plane, plane.ledger.running(*[1] * 50, project=OTHER))
    plane.turn()
    queued = set(plane.queued())
    assert (len(queued & ours), len(queued & theirs)) == (2, 6)


def test_a_higher_priority_goes_first_though_it_came_later(plane: ControlPlane) -> None:
    plane.ledger.running(*[1] * 50)
    plane.turn()
    urgent = _ids(plane, plane.ledger.running(*[1] * 3, project=OTHER, priority=5))
    plane.turn()
    queued = plane.queued()
    assert set(queued[:3]) == urgent
    assert len(queued) == WINDOW


def test_a_small_job_goes_before_what_a_large_one_has_in_a_full_queue(plane: ControlPlane) -> None:
    large = _ids(plane, plane.ledger.running(*[1] * 50))
    plane.turn()
    plane.ledger.claimed(plane.take()[0])
    plane.turn()
    small = _ids(plane, plane.ledger.running(1))
    plane.turn()
    queued = plane.queued()
    assert set(queued[:1]) == small
    assert len(queued) == WINDOW
    assert set(queued[1:]) <= large
    assert plane.turn() == 0


def test_jobs_of_one_project_take_turns_in_the_queue(plane: ControlPlane) -> None:
    jobs = [_ids(plane, plane.ledger.running(*[1] * 50)) for _ in range(2)]
    plane.turn()
    turns = [
        next(n for n, chunks in enumerate(jobs) if chunk in chunks) for chunk in plane.queued()
    ]
    assert turns == [0, 1] * (WINDOW // 2)


def test_of_more_jobs_than_the_queue_has_places_each_gets_its_turn(plane: ControlPlane) -> None:
    jobs = [plane.ledger.running(*[1] * 50) for _ in range(2 * WINDOW)]
    for _ in jobs:
        plane.turn()
        plane.ledger.commit(plane.ledger.claimed(plane.take()[0]))
    assert [_done_chunks(plane, job_id) for job_id in jobs] == [1] * len(jobs)


def test_a_stream_of_small_jobs_does_not_keep_a_large_one_from_its_turn(
    plane: ControlPlane,
) -> None:
    large = plane.ledger.running(*[1] * 50)
    for _ in range(20):
        plane.ledger.running(1)
        plane.turn()
        plane.ledger.commit(plane.ledger.claimed(plane.take()[0]))
    assert _done_chunks(plane, large) >= 5  # more and more jobs take turns


def test_each_pool_has_a_queue_and_a_window_of_its_own(plane: ControlPlane) -> None:
    plane.ledger.running(*[1] * 50)
    gpu = plane.ledger.running(*[1] * 50, pool="gpu")
    plane.turn()
    assert len(plane.queued()) == len(plane.queued("gpu")) == WINDOW
    assert set(plane.queued("gpu")) <= _ids(plane, gpu)


def test_nothing_of_a_paused_job_is_sent(plane: ControlPlane) -> None:
    job_id = plane.ledger.running(*[1] * 50)
    _do(plane, controls.pause, job_id)
    assert plane.turn() == 0
    _do(plane, controls.resume, job_id)
    assert plane.turn() == WINDOW


def test_a_chunk_that_waits_after_a_failure_is_not_sent_before_its_time(
    plane: ControlPlane,
) -> None:
    job_id = plane.ledger.running(1)
    with plane.ledger.sessions.begin() as session:
        late = sa.func.now() + timedelta(hours=1)
        session.execute(sa.update(Chunk).where(Chunk.job_id == job_id).values(not_before=late))
    assert plane.turn() == 0


def test_a_job_goes_from_submit_to_its_end_by_turns(plane: ControlPlane) -> None:
    job_id = plane.ledger.accept()
    plane.turn()
    assert len(plane.messages(PLAN_QUEUE)) == 1
    plane.ledger.plan(job_id, [1, 1])
    plane.turn()
    for chunk_id in plane.take(2):
        plane.ledger.commit(plane.ledger.claimed(chunk_id))
    plane.turn()
    assert plane.ledger.job(job_id).state is JobState.FINALIZING
    assert len(plane.messages(PLAN_QUEUE)) == 2
    plane.ledger.finish(job_id)
    assert plane.turn() == 0


def test_a_turn_ends_a_job_with_too_many_failed_rows_and_sends_nothing_more_of_it(
    plane: ControlPlane,
) -> None:
    job_id = plane.ledger.running(*[5] * 50, max_failed=3)
    plane.turn()
    plane.ledger.commit(plane.ledger.claimed(plane.take()[0]), failed=4)
    turns = plane.fresh_turns()
    assert turns.turn(led_for=LONG) == 1
    job = plane.ledger.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "too_many_failed_rows")
    assert turns.turn(led_for=LONG) == 0


def test_while_nobody_trains_a_turn_asks_once_about_it(plane: ControlPlane) -> None:
    plane.ledger.running(1)
    asked = []

    def hear(*arguments: Any) -> None:
        asked.append(arguments[2])

    engine = plane.leadership.sessions.kw["bind"]
    sa.event.listen(engine, "before_cursor_execute", hear)
    plane.turn()
    sa.event.remove(engine, "before_cursor_execute", hear)
    assert sum(" runs" in statement for statement in asked) == 1


def test_a_broker_that_is_away_is_seen_while_the_rest_of_the_turn_goes_on(
    plane: ControlPlane, valkey: Server
) -> None:
    waiting, dead = plane.ledger.running(1), plane.ledger.running(1)
    plane.ledger.claimed(plane.ledger.only_chunk(dead), duration=RUN_OUT)
    _be_a_worker(plane)
    valkey.kill()
    try:
        plane.turn()
    finally:
        valkey.start()
    assert plane.ledger.live(dead)[0].state is ChunkState.PENDING
    reason = _view(plane, waiting).waiting_reason or ""
    assert reason.startswith("the broker does not answer")
    plane.turn()
    assert len(plane.queued()) == 2
    assert _view(plane, waiting).waiting_reason == "its chunks are on their way to a worker"


def test_a_broker_that_goes_away_between_two_messages_is_seen(
    plane: ControlPlane, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was marked and not sent goes out again: no message is needed for the truth."""
    plane.ledger.running(*[1] * WINDOW)
    length = plane.publisher.queued_chunks

    def and_then_dies(pool: str) -> int:
        queued = length(pool)
        valkey.kill()
        return queued

    monkeypatch.setattr(plane.publisher, "queued_chunks", and_then_dies)
    try:
        plane.turn()
    finally:
        valkey.start()
    assert _status(plane).broker_error is not None
    monkeypatch.undo()
    age_messages(plane)
    plane.turn()
    assert _status(plane).broker_error is None
    assert len(plane.queued()) == WINDOW


def test_a_part_that_fails_does_not_keep_the_others_from_their_work(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = plane.ledger.running(1, 1)
    plane.ledger.claimed(plane.ledger.live(job_id)[0].id, duration=RUN_OUT)

    def poisoned(session: Session) -> int:
        session.execute(sa.text("SELECT 1 / 0"))
        return 0

    monkeypatch.setattr(controls, "expire", poisoned)
    plane.turn()
    assert len(plane.queued()) == 2
    assert _status(plane).turned_at is not None


def test_a_lock_that_is_not_to_be_had_is_no_reason_to_stop_leading(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = plane.ledger.running(1)
    with plane.ledger.sessions() as holder:
        holder.execute(sa.select(Chunk).where(Chunk.job_id == job_id).with_for_update())

        def wanting_it(session: Session) -> int:
            session.execute(sa.text("SET LOCAL lock_timeout = '10ms'"))
            session.execute(sa.update(Chunk).values(crashes=0))
            return 0

        monkeypatch.setattr(controls, "expire", wanting_it)
        plane.turn()
    assert _status(plane).turned_at is not None


def _queued(plane: ControlPlane) -> None:
    plane.ledger.accept()


def _being_planned(plane: ControlPlane) -> None:
    plane.ledger.claim_step(plane.ledger.accept())


def _late(plane: ControlPlane) -> None:
    job_id = plane.ledger.accept()
    plane.ledger.set(job_id, expires_at=sa.func.now() - timedelta(seconds=1))


def _running(plane: ControlPlane) -> None:
    plane.ledger.running(1)


def _of_a_silent_worker(plane: ControlPlane) -> None:
    plane.ledger.claimed(plane.ledger.only_chunk(plane.ledger.running(1)), duration=RUN_OUT)


def _done(plane: ControlPlane) -> str:
    job_id = plane.ledger.running(1)
    plane.ledger.commit_all(job_id)
    return job_id


def _to_be_finalized(plane: ControlPlane) -> str:
    job_id = _done(plane)
    reconciler.begin_finalizing(plane.ledger.sessions)
    return job_id


def _ended(plane: ControlPlane) -> None:
    plane.ledger.finish(_to_be_finalized(plane))


@pytest.mark.parametrize(
    ("there_is", "found"),
    [
        (lambda _: None, set()),
        (_queued, {"steps"}),
        (_being_planned, {"chunks"}),  # of the shards that are there
        (_late, {"expire", "steps"}),
        (_running, {"chunks"}),
        (_of_a_silent_worker, {"rescue", "chunks"}),
        (_done, {"finalize", "chunks"}),
        (_to_be_finalized, {"steps"}),
        (_ended, set()),
    ],
)
def test_a_turn_looks_for_what_there_is_to_do(
    plane: ControlPlane, there_is: Callable[[ControlPlane], object], found: set[str]
) -> None:
    there_is(plane)
    wanted = reconciler.look(plane.ledger.sessions)
    assert {name for name, is_so in vars(wanted).items() if is_so} == found


def test_the_turn_that_finds_all_chunks_done_sends_for_the_outputs(plane: ControlPlane) -> None:
    _done(plane)
    assert plane.turn() == 2  # the job has moved, and its message is out
    assert plane.publisher.queued_steps() == 1
    assert plane.turn() == 0


def test_a_fresh_leader_leaves_silent_workers_half_a_lease_to_renew(plane: ControlPlane) -> None:
    job_id = plane.ledger.running(1)
    plane.ledger.claimed(plane.ledger.only_chunk(job_id), duration=RUN_OUT)
    plane.turns.turn(led_for=plane.settings.lease_seconds / 2)
    assert plane.ledger.live(job_id)[0].state is ChunkState.LEASED
    plane.turn()
    assert plane.ledger.live(job_id)[0].state is ChunkState.PENDING


def test_a_job_whose_chunks_are_done_says_that_control_is_missing(plane: ControlPlane) -> None:
    job_id = plane.ledger.running(1)
    plane.ledger.commit_all(job_id)
    assert "no control process has ever run" in (_view(plane, job_id).waiting_reason or "")


def test_a_job_whose_workers_died_says_that_control_is_missing(plane: ControlPlane) -> None:
    job_id = plane.ledger.running(1)
    plane.ledger.claimed(plane.ledger.only_chunk(job_id), duration=RUN_OUT)
    assert "no control process has ever run" in (_view(plane, job_id).waiting_reason or "")


def test_a_publish_after_a_flush_still_arrives(plane: ControlPlane) -> None:
    """By exchange and routing key it would not: those bindings lived in what was flushed."""
    plane.ledger.running(*[1] * 50)
    plane.turn()
    plane.redis.flushall()
    plane.publisher.send_chunks("cpu", [])
    plane.turn()
    assert _status(plane).broker_error is None
    assert len(plane.queued()) == WINDOW


def test_nothing_in_the_source_publishes_by_exchange_or_routing_key() -> None:
    forbidden = {"exchange", "routing_key"}
    for path in Path(workers.__file__).parent.rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        assert not forbidden & {node.arg for node in nodes if isinstance(node, ast.keyword)}, path


def test_workers_that_are_silent_for_minutes_are_forgotten(plane: ControlPlane) -> None:
    _be_a_worker(plane)
    assert reconciler.forget_workers(plane.ledger.sessions) == 0
    with plane.ledger.sessions.begin() as session:
        session.execute(sa.text("UPDATE workers SET beat_at = now() - interval '1 hour'"))
    assert reconciler.forget_workers(plane.ledger.sessions) == 1


def _be_a_worker(plane: ControlPlane) -> None:
    with plane.ledger.sessions.begin() as session:
        beats.beat(session, name="w", pool="cpu", slots=2, device="cpu")


def _ids(plane: ControlPlane, job_id: str) -> set[int]:
    return {chunk.id for chunk in plane.ledger.live(job_id)}


def _done_chunks(plane: ControlPlane, job_id: str) -> int:
    return sum(chunk.state is ChunkState.DONE for chunk in plane.ledger.live(job_id))


def _do(plane: ControlPlane, operation: Any, job_id: str) -> None:
    with plane.ledger.sessions.begin() as session:
        operation(session, job_id, project_id=PROJECT)


def _view(plane: ControlPlane, job_id: str) -> job_queries.JobView:
    with plane.ledger.sessions.begin() as session:
        return job_queries.get(session, job_id, project_id=PROJECT)


def _status(plane: ControlPlane) -> ControlStatus:
    with plane.ledger.sessions.begin() as session:
        return session.get_one(ControlStatus, 1)
