"""Promise P1 at its beginning: a submit that is repeated is one job."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pydantic
import pytest
import sqlalchemy as sa

from jobs.errors import Conflict, KeyReused, Unauthorized
from jobs.kinds import ClassifySpec, PairCorpus
from jobs.ledger import keys, projects, submission
from jobs.states import JobState
from jobs.tables import Job
from tests.jobs.ledger.building import OTHER, PROJECT, Ledger

SENDERS = 6


def test_the_same_key_and_spec_are_the_same_job(ledger: Ledger) -> None:
    assert ledger.accept(key="once") == ledger.accept(key="once")


def test_the_same_key_with_another_spec_is_refused(ledger: Ledger) -> None:
    ledger.accept(key="reused")
    with pytest.raises(KeyReused, match="Idempotency-Key 'reused' was used") as refused:
        ledger.accept(key="reused", priority=7)
    assert refused.value.code == "idempotency_key_reused"


def test_the_same_key_in_two_projects_is_two_jobs(ledger: Ledger) -> None:
    assert ledger.accept(key="both") != ledger.accept(key="both", project=OTHER)


def test_without_a_key_every_submit_is_a_job(ledger: Ledger) -> None:
    assert ledger.accept() != ledger.accept()


def test_the_same_key_sent_many_times_at_once_is_one_job(ledger: Ledger) -> None:
    start = threading.Barrier(SENDERS)

    def send(_: int) -> str:
        start.wait()
        return ledger.accept(key="at once")

    with ThreadPoolExecutor(SENDERS) as pool:
        assert len(set(pool.map(send, range(SENDERS)))) == 1
    with ledger.sessions.begin() as session:
        count = sa.select(sa.func.count()).where(Job.idempotency_key == "at once")
        assert session.scalar(count) == 1


def test_a_second_submit_waits_for_one_that_may_yet_be_rolled_back(ledger: Ledger) -> None:
    spec = ClassifySpec(corpus=PairCorpus(uri="file:///corpus.jsonl"), model="/model")
    with ThreadPoolExecutor(1) as pool, ledger.sessions() as session:
        lost, _ = submission.accept(session, project_id=PROJECT, spec=spec, idempotency_key="torn")
        second = pool.submit(ledger.accept, key="torn")
        session.rollback()
        assert second.result(10) != lost
    assert ledger.job(second.result()).state is JobState.QUEUED


def test_a_deadline_counts_from_the_database_clock(ledger: Ledger) -> None:
    job = ledger.job(ledger.accept(deadline_seconds=90))
    assert job.expires_at is not None
    assert (job.expires_at - job.created_at).total_seconds() == 90


@pytest.mark.parametrize(
    "fields",
    [
        {"deadline_seconds": 1e300},
        {"deadline_seconds": float("inf")},
        {"deadline_seconds": 0},
        {"name": "nul\0"},
        {"classify": {"labels": ["a\0", "b"]}},
    ],
)
def test_what_the_ledger_cannot_hold_is_refused_as_a_spec(
    ledger: Ledger, fields: dict[str, Any]
) -> None:
    with pytest.raises(pydantic.ValidationError):
        ledger.accept(**fields)


def test_a_key_stays_with_its_project(ledger: Ledger) -> None:
    with ledger.sessions.begin() as session:
        assert keys.authenticate(session, key="key of ours").project_id == PROJECT
        with pytest.raises(Conflict, match="acts for another project"):
            projects.ensure_key(session, project_id=OTHER, key="key of ours")
        assert keys.authenticate(session, key="key of ours").project_id == PROJECT
        with pytest.raises(Unauthorized):
            keys.authenticate(session, key="no such key")


def test_a_key_that_has_ended_is_not_made_valid_again(ledger: Ledger) -> None:
    with ledger.sessions.begin() as session:
        assert projects.ensure_key(session, project_id=PROJECT, key="a key that leaks")
        by = keys.authenticate(session, key="a key that leaks")
        keys.revoke(session, by.key_id, by=by)
        assert not projects.ensure_key(session, project_id=PROJECT, key="a key that leaks")
        with pytest.raises(Unauthorized):
            keys.authenticate(session, key="a key that leaks")
