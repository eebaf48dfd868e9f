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
from tests.workers.control.conftest import LONG, WINDOW, Desk
from workers.app import PLAN_QUEUE
from workers.control import reconciler


def age_messages(desk: Desk, *, by: timedelta = SETTLING) -> None:
    """Let the marks of what was sent be older."""
    with desk.ledger.sessions.begin() as session:
        session.execute(
            sa.update(Chunk)
            .where(Chunk.dispatched_at.is_not(None))
            .values(dispatched_at=Chunk.dispatched_at - by)
        )


def test_the_queue_never_holds_more_than_its_window(desk: Desk) -> None:
    job_id = desk.ledger.running(*[1] * 3_000)
    for chunk in desk.ledger.live(job_id)[:60]:
        if len(desk.queued()) < WINDOW:
            desk.turn()
        assert len(desk.queued()) == WINDOW
        assert desk.take() == [chunk.id]  # in the order of the corpus
        desk.ledger.commit(desk.ledger.held(chunk.id))


def test_a_turn_sends_nothing_into_a_full_queue(desk: Desk) -> None:
    desk.ledger.running(*[1] * 50)
    assert desk.turn() == WINDOW
    age_messages(desk, by=timedelta(hours=1))
    assert desk.turn() == 0


def test_after_a_flush_everything_is_sent_again_within_the_settling_time(desk: Desk) -> None:
    desk.ledger.running(*[1] * 50)
    desk.turn()
    before = desk.queued()
    desk.redis.flushall()
    assert desk.turn() == WINDOW  # there is room for those that come next
    desk.redis.flushall()
    age_messages(desk)
    assert desk.turn() == WINDOW
    assert desk.queued() == before


def test_a_message_that_was_taken_and_lost_is_sent_again_once_it_is_old(desk: Desk) -> None:
    desk.ledger.running(*[1] * WINDOW)
    desk.turn()
    (lost,) = desk.take()
    age_messages(desk)
    assert desk.turn() == 0
    age_messages(desk, by=desk.settings.redispatch)
    assert desk.turn() == 1
    assert lost in desk.queued()


def test_two_projects_share_a_pool_by_their_weight(desk: Desk) -> None:
    with desk.ledger.sessions.begin() as session:
        session.execute(sa.update(Project).where(Project.id == OTHER).values(weight=3))
    ours = _ids(desk, desk.ledger.running(*[1] * 50))
    theirs = _ids(desk, desk.ledger.running(*[1] * 50, project=OTHER))
    desk.turn()
    queued = set(desk.queued())
    assert (len(queued & ours), len(queued & theirs)) == (2, 6)


def test_a_higher_priority_goes_first_though_it_came_later(desk: Desk) -> None:
    desk.ledger.running(*[1] * 50)
    urgent = _ids(desk, desk.ledger.running(*[1] * 3, project=OTHER, priority=5))
    desk.turn()
    assert set(desk.queued()[:3]) == urgent


def test_each_pool_has_a_queue_and_a_window_of_its_own(desk: Desk) -> None:
    desk.ledger.running(*[1] * 50)
    gpu = desk.ledger.running(*[1] * 50, pool="gpu")
    desk.turn()
    assert len(desk.queued()) == len(desk.queued("gpu")) == WINDOW
    assert set(desk.queued("gpu")) <= _ids(desk, gpu)


def test_nothing_of_a_paused_job_is_sent(desk: Desk) -> None:
    job_id = desk.ledger.running(*[1] * 50)
    _do(desk, controls.pause, job_id)
    assert desk.turn() == 0
    _do(desk, controls.resume, job_id)
    assert desk.turn() == WINDOW


def test_a_chunk_that_waits_after_a_failure_is_not_sent_before_its_time(desk: Desk) -> None:
    job_id = desk.ledger.running(1)
    with desk.ledger.sessions.begin() as session:
        late = sa.func.now() + timedelta(hours=1)
        session.execute(sa.update(Chunk).where(Chunk.job_id == job_id).values(not_before=late))
    assert desk.turn() == 0


def test_a_job_goes_from_submit_to_its_end_by_turns(desk: Desk) -> None:
    job_id = desk.ledger.accept()
    desk.turn()
    assert len(desk.messages(PLAN_QUEUE)) == 1
    desk.ledger.plan(job_id, [1, 1])
    desk.turn()
    for chunk_id in desk.take(2):
        desk.ledger.commit(desk.ledger.held(chunk_id))
    desk.turn()
    assert desk.ledger.job(job_id).state is JobState.FINALIZING
    assert len(desk.messages(PLAN_QUEUE)) == 2
    desk.ledger.finish(job_id)
    assert desk.turn() == 0


def test_a_turn_ends_a_job_with_too_many_failed_rows_and_sends_nothing_more_of_it(
    desk: Desk,
) -> None:
    job_id = desk.ledger.running(*[5] * 50, max_failed=3)
    desk.turn()
    desk.ledger.commit(desk.ledger.held(desk.take()[0]), failed=4)
    control = desk.another_control()
    assert control.turn(led_for=LONG) == 1
    job = desk.ledger.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "too_many_failed_rows")
    assert control.turn(led_for=LONG) == 0


def test_while_nobody_trains_a_turn_asks_once_about_it(desk: Desk) -> None:
    desk.ledger.running(1)
    asked = []

    def hear(*arguments: Any) -> None:
        asked.append(arguments[2])

    sa.event.listen(desk.ledger.engine, "before_cursor_execute", hear)
    desk.turn()
    sa.event.remove(desk.ledger.engine, "before_cursor_execute", hear)
    assert sum(" runs" in statement for statement in asked) == 1


def test_a_broker_that_is_away_is_seen_while_the_rest_of_the_turn_goes_on(
    desk: Desk, valkey: Server
) -> None:
    waiting, dead = desk.ledger.running(1), desk.ledger.running(1)
    desk.ledger.held(desk.ledger.only_chunk(dead), lease=RUN_OUT)
    _be_a_worker(desk)
    valkey.kill()
    try:
        desk.turn()
    finally:
        valkey.start()
    assert desk.ledger.live(dead)[0].state is ChunkState.PENDING
    reason = _view(desk, waiting).waiting_reason or ""
    assert reason.startswith("the broker does not answer")
    desk.turn()
    assert len(desk.queued()) == 2
    assert _view(desk, waiting).waiting_reason == "its chunks are on their way to a worker"


def test_a_broker_that_goes_away_between_two_messages_is_seen(
    desk: Desk, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was marked and not sent goes out again: no message is needed for the truth."""
    desk.ledger.running(*[1] * WINDOW)
    length = desk.publisher.queued_chunks

    def and_then_dies(pool: str) -> int:
        queued = length(pool)
        valkey.kill()
        return queued

    monkeypatch.setattr(desk.publisher, "queued_chunks", and_then_dies)
    try:
        desk.turn()
    finally:
        valkey.start()
    assert _status(desk).broker_error is not None
    monkeypatch.undo()
    age_messages(desk)
    desk.turn()
    assert _status(desk).broker_error is None
    assert len(desk.queued()) == WINDOW


def test_a_part_that_fails_does_not_keep_the_others_from_their_work(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = desk.ledger.running(1, 1)
    desk.ledger.held(desk.ledger.live(job_id)[0].id, lease=RUN_OUT)

    def poisoned(session: Session) -> int:
        session.execute(sa.text("SELECT 1 / 0"))
        return 0

    monkeypatch.setattr(controls, "expire", poisoned)
    desk.turn()
    assert len(desk.queued()) == 2
    assert _status(desk).turned_at is not None


def test_a_lock_that_is_not_to_be_had_is_no_reason_to_stop_leading(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = desk.ledger.running(1)
    with desk.ledger.sessions() as holder:
        holder.execute(sa.select(Chunk).where(Chunk.job_id == job_id).with_for_update())

        def wanting_it(session: Session) -> int:
            session.execute(sa.text("SET LOCAL lock_timeout = '10ms'"))
            session.execute(sa.update(Chunk).values(crashes=0))
            return 0

        monkeypatch.setattr(controls, "expire", wanting_it)
        desk.turn()
    assert _status(desk).turned_at is not None


def _queued(desk: Desk) -> None:
    desk.ledger.accept()


def _being_planned(desk: Desk) -> None:
    desk.ledger.claim_step(desk.ledger.accept())


def _late(desk: Desk) -> None:
    job_id = desk.ledger.accept()
    desk.ledger.set(job_id, expires_at=sa.func.now() - timedelta(seconds=1))


def _running(desk: Desk) -> None:
    desk.ledger.running(1)


def _of_a_silent_worker(desk: Desk) -> None:
    desk.ledger.held(desk.ledger.only_chunk(desk.ledger.running(1)), lease=RUN_OUT)


def _done(desk: Desk) -> str:
    job_id = desk.ledger.running(1)
    desk.ledger.commit_all(job_id)
    return job_id


def _to_be_finalized(desk: Desk) -> str:
    job_id = _done(desk)
    reconciler.begin_finalizing(desk.ledger.sessions)
    return job_id


def _ended(desk: Desk) -> None:
    desk.ledger.finish(_to_be_finalized(desk))


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
    desk: Desk, there_is: Callable[[Desk], object], found: set[str]
) -> None:
    there_is(desk)
    wanted = reconciler.look(desk.ledger.sessions)
    assert {name for name, is_so in vars(wanted).items() if is_so} == found


def test_the_turn_that_finds_all_chunks_done_sends_for_the_outputs(desk: Desk) -> None:
    _done(desk)
    assert desk.turn() == 2  # the job has moved, and its message is out
    assert desk.publisher.queued_steps() == 1
    assert desk.turn() == 0


def test_a_fresh_leader_leaves_silent_workers_half_a_lease_to_renew(desk: Desk) -> None:
    job_id = desk.ledger.running(1)
    desk.ledger.held(desk.ledger.only_chunk(job_id), lease=RUN_OUT)
    desk.control.turn(led_for=desk.settings.lease_seconds / 2)
    assert desk.ledger.live(job_id)[0].state is ChunkState.LEASED
    desk.turn()
    assert desk.ledger.live(job_id)[0].state is ChunkState.PENDING


def test_a_job_whose_chunks_are_done_says_that_control_is_missing(desk: Desk) -> None:
    job_id = desk.ledger.running(1)
    desk.ledger.commit_all(job_id)
    assert "no control process has ever run" in (_view(desk, job_id).waiting_reason or "")


def test_a_job_whose_workers_died_says_that_control_is_missing(desk: Desk) -> None:
    job_id = desk.ledger.running(1)
    desk.ledger.held(desk.ledger.only_chunk(job_id), lease=RUN_OUT)
    assert "no control process has ever run" in (_view(desk, job_id).waiting_reason or "")


def test_a_publish_after_a_flush_still_arrives(desk: Desk) -> None:
    """By exchange and routing key it would not: those bindings lived in what was flushed."""
    desk.ledger.running(*[1] * 50)
    desk.turn()
    desk.redis.flushall()
    desk.publisher.send_chunks("cpu", [])
    desk.turn()
    assert _status(desk).broker_error is None
    assert len(desk.queued()) == WINDOW


def test_nothing_in_the_source_publishes_by_exchange_or_routing_key() -> None:
    forbidden = {"exchange", "routing_key"}
    for path in Path(workers.__file__).parent.rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        assert not forbidden & {node.arg for node in nodes if isinstance(node, ast.keyword)}, path


def test_workers_that_are_silent_for_minutes_are_forgotten(desk: Desk) -> None:
    _be_a_worker(desk)
    assert reconciler.forget_workers(desk.ledger.sessions) == 0
    with desk.ledger.sessions.begin() as session:
        session.execute(sa.text("UPDATE workers SET beat_at = now() - interval '1 hour'"))
    assert reconciler.forget_workers(desk.ledger.sessions) == 1


def _be_a_worker(desk: Desk) -> None:
    with desk.ledger.sessions.begin() as session:
        beats.beat(session, name="w", pool="cpu", slots=2, device="cpu")


def _ids(desk: Desk, job_id: str) -> set[int]:
    return {chunk.id for chunk in desk.ledger.live(job_id)}


def _do(desk: Desk, operation: Any, job_id: str) -> None:
    with desk.ledger.sessions.begin() as session:
        operation(session, job_id, project_id=PROJECT)


def _view(desk: Desk, job_id: str) -> job_queries.JobView:
    with desk.ledger.sessions.begin() as session:
        return job_queries.get(session, job_id, project_id=PROJECT)


def _status(desk: Desk) -> ControlStatus:
    with desk.ledger.sessions.begin() as session:
        return session.get_one(ControlStatus, 1)
