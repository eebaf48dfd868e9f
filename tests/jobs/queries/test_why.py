"""The snapshot that explains a job is read from the ledger, by indexes, and is true."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from jobs import ids
from jobs.decisions import time_spent
from jobs.decisions import why as decisions
from jobs.decisions.time_spent import Span, StateChange, TimePart
from jobs.decisions.why import Explanation, JobSnapshot, QueuePlace
from jobs.errors import NotFound
from jobs.ledger import controls, telemetry, transitions, workers
from jobs.queries import why
from jobs.states import JobState
from jobs.tables import ControlStatus
from tests.jobs.ledger.building import OTHER, PROJECT, Ledger
from tests.jobs.ledger.training import Training


def look(ledger: Ledger, job_id: str, *, project: str = PROJECT) -> JobSnapshot:
    with ledger.sessions.begin() as session:
        return why.look(session, job_id, project_id=project)


def explain(ledger: Ledger, job_id: str) -> Explanation:
    return decisions.explain(look(ledger, job_id))


def update(ledger: Ledger, statement: str, **values: Any) -> None:
    with ledger.sessions.begin() as session:
        session.execute(sa.text(statement), values)


def test_another_projects_job_looks_like_none(ledger: Ledger) -> None:
    with pytest.raises(NotFound):
        look(ledger, ledger.accept(project=OTHER))


def test_a_pause_is_told_with_the_key_that_asked_for_it(ledger: Ledger) -> None:
    job_id = ledger.running(1)
    with ledger.sessions.begin() as session:
        controls.pause(session, job_id, project_id=PROJECT, by=ids.of_key("3f2a91c0" * 8))
    found = look(ledger, job_id).pause
    assert found is not None
    assert found.by == "key_3f2a91c03f2a91c03f2a91c0"
    assert (datetime.now(UTC) - found.at).total_seconds() < 60


def test_a_pause_by_no_key_is_told_without_one(ledger: Ledger) -> None:
    job_id = ledger.running(1)
    with ledger.sessions.begin() as session:
        controls.pause(session, job_id, project_id=PROJECT)
    found = look(ledger, job_id).pause
    assert found is not None
    assert found.by is None


def test_a_job_behind_others_says_its_place_by_priority_and_age(ledger: Ledger) -> None:
    update(ledger, "TRUNCATE jobs, workers CASCADE")
    busy = ledger.running(1)
    with ledger.sessions.begin() as session:
        now = session.scalar(sa.select(sa.func.now()))
        session.merge(ControlStatus(id=1, leader="c", turned_at=now, broker_error=None))
        workers.beat(session, name="w", pool="cpu", slots=1, device="cpu")
    ledger.claimed(ledger.only_chunk(busy), owner="w:1")
    older, urgent = ledger.running(1), ledger.running(1, priority=3)
    ours = ledger.running(1)
    ledger.running(1)
    places = {job_id: look(ledger, job_id).place for job_id in (busy, urgent, older, ours)}
    assert places == {
        busy: None,
        urgent: QueuePlace(1, 4),
        older: QueuePlace(2, 4),
        ours: QueuePlace(3, 4),
    }


def test_a_worker_that_loads_its_model_is_told(ledger: Ledger) -> None:
    job_id = ledger.running(1, 1)
    for chunk in ledger.live(job_id):
        ledger.claimed(chunk.id)
    first = ledger.live(job_id)[0].id
    update(
        ledger,
        "UPDATE chunks SET begun_at = NULL, share = NULL, share_at = NULL WHERE id = :id",
        id=first,
    )
    assert look(ledger, job_id).loading == 1


def test_the_time_of_a_finished_job_is_told_by_what_its_chunks_record(ledger: Ledger) -> None:
    """Two chunks: one loads for 2 s, and computes 3 s, the other computes beside it."""
    job_id = ledger.running(1, 1)
    ledger.commit_all(job_id)
    with ledger.sessions.begin() as session:
        transitions.move(session, job_id, JobState.FINALIZING)
    ledger.finish(job_id)
    first, second = (chunk.id for chunk in ledger.live(job_id))
    now = datetime.now(UTC)

    def ago(seconds: float) -> datetime:
        return now - timedelta(seconds=seconds)

    update(
        ledger,
        "UPDATE jobs SET created_at = :created, finished_at = :finished WHERE id = :id",
        created=ago(20),
        finished=ago(2),
        id=job_id,
    )
    chunk = (
        "UPDATE chunks SET claimed_at = :claimed, begun_at = :begun, seconds = :seconds, "
        "done_at = :done WHERE id = :id"
    )
    update(ledger, chunk, id=first, claimed=ago(15), begun=ago(13), seconds=3, done=ago(9))
    update(ledger, chunk, id=second, claimed=ago(12), begun=ago(12), seconds=4, done=ago(8))
    for state, seconds in (("planning", 18), ("running", 16), ("finalizing", 8), ("succeeded", 2)):
        update(
            ledger,
            "UPDATE events SET at = :at WHERE job_id = :job_id "
            "AND type = 'state' AND data->>'state' = :state",
            job_id=job_id,
            state=state,
            at=ago(seconds),
        )
    found = look(ledger, job_id).time
    assert {part: round(seconds, 1) for part, seconds in found.items()} == {
        TimePart.PLANNER: 2,
        TimePart.PLANNING: 2,
        TimePart.WORKER: 1,
        TimePart.LOADING: 2,
        TimePart.COMPUTING: 5,
        TimePart.WRITING: 6,
    }


def test_without_a_record_of_its_chunks_the_time_of_a_job_is_told_undivided(ledger: Ledger) -> None:
    job_id = ledger.running(1)
    ledger.commit_all(job_id)
    update(
        ledger,
        "UPDATE chunks SET claimed_at = NULL, begun_at = NULL WHERE job_id = :id",
        id=job_id,
    )
    earlier = "now() - interval '9 s'"
    update(ledger, f"UPDATE jobs SET created_at = {earlier} WHERE id = :id", id=job_id)
    update(
        ledger,
        f"UPDATE events SET at = {earlier} WHERE job_id = :id AND type = 'state'",
        id=job_id,
    )
    found = look(ledger, job_id).time
    assert found[TimePart.RUNNING] >= 9
    assert TimePart.WORKER not in found


def test_a_training_job_tells_how_long_its_run_took_to_begin(ledger: Ledger) -> None:
    training = Training(ledger)
    job_id = training.job()
    run_id = training.formed(job_id)
    (lease,) = training.claimed(run_id)
    with ledger.sessions.begin() as session:
        telemetry.add_points(session, lease, [(1, {"loss": 1.0})])
    now = datetime.now(UTC)
    formed, step = now - timedelta(seconds=9), now - timedelta(seconds=5)
    update(ledger, "UPDATE runs SET created_at = :at WHERE id = :id", id=run_id, at=formed)
    update(ledger, "UPDATE points SET at = :at WHERE job_id = :id", id=job_id, at=step)
    update(ledger, "UPDATE jobs SET created_at = :at WHERE id = :id", id=job_id, at=formed)
    found = look(ledger, job_id).time
    assert found[TimePart.LOADING] == pytest.approx(4)
    assert found[TimePart.COMPUTING] >= 5


def test_the_time_adds_up_from_when_the_job_was_accepted(ledger: Ledger) -> None:
    job_id = ledger.running(1)
    ledger.claimed(ledger.only_chunk(job_id))
    update(ledger, "UPDATE jobs SET created_at = now() - interval '30 s' WHERE id = :id", id=job_id)
    explained = explain(ledger, job_id)
    assert sum(part.seconds for part in explained.time) >= 30


@pytest.mark.parametrize("seed", range(5))
def test_the_query_adds_up_what_the_decision_means(ledger: Ledger, seed: int) -> None:
    """Chunks done, leased and pending, at any times before, in and after the life of the job."""
    draw = random.Random(seed)
    job_id = ledger.running(*[1] * 12)
    began = datetime.now(UTC) - timedelta(seconds=50)
    update(ledger, "UPDATE jobs SET created_at = :at WHERE id = :id", at=began, id=job_id)
    changes = [StateChange(began, JobState.QUEUED)]
    for state in ("planning", "running"):
        changes.append(StateChange(_moment(draw), JobState(state)))
        update(
            ledger,
            "UPDATE events SET at = :at WHERE job_id = :id AND data->>'state' = :state "
            "AND type = 'state'",
            at=changes[-1].at,
            id=job_id,
            state=state,
        )
    spans: list[Span] = []
    for chunk in ledger.live(job_id)[:9]:
        lease = ledger.claimed(chunk.id)
        claimed, begun, done = sorted(_moment(draw) for _ in range(3))
        seconds = draw.random() * 2 * (done - begun).total_seconds()
        fields: dict[str, Any] = {"claimed_at": claimed, "begun_at": begun}
        if draw.random() < 0.7:
            ledger.commit(lease)
            fields |= {"seconds": seconds, "done_at": done}
            computed = min(done, begun + timedelta(seconds=seconds))
        else:
            fields |= {"lease_expires_at": done}
            computed = done
        sets = ", ".join(f"{name} = :{name}" for name in fields)
        update(ledger, f"UPDATE chunks SET {sets} WHERE id = :id", id=chunk.id, **fields)
        spans += [
            Span(TimePart.LOADING, claimed, begun),
            Span(TimePart.COMPUTING, begun, computed),
            Span(TimePart.WRITING, computed, done),
        ]
    found = look(ledger, job_id).time
    first = min(change.at for change in changes)
    end = first + timedelta(seconds=sum(found.values()))
    assert found == pytest.approx(time_spent.seconds(changes, spans, end=end), abs=1e-3)


def _moment(draw: random.Random) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=draw.uniform(1, 60))


@pytest.mark.parametrize("query", [why.CHUNK_TIME, why.RUN_SPANS])
def test_what_it_asks_finds_rows_by_indexes(ledger: Ledger, query: sa.TextClause) -> None:
    """Even a table of few rows would be scanned only where no index can answer."""
    values = {"job_id": "x", "parts": [], "begins": [], "ends": []}
    wanted = {name: value for name, value in values.items() if f":{name}" in query.text}
    with ledger.sessions.begin() as session:
        session.execute(sa.text("SET LOCAL enable_seqscan = off"))
        explained = session.execute(sa.text(f"EXPLAIN {query.text}"), wanted)
        plan = "\n".join(explained.scalars())
    assert "Seq Scan" not in plan
    assert "Index" in plan
