"""A group is accepted as a whole or not at all, and acted on as a whole."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from jobs.errors import BadSpec, Conflict, KeyReused, NotFound
from jobs.kinds.groups import GroupSpec
from jobs.ledger import controls, deletions, groups
from jobs.queries import groups as group_queries
from jobs.queries.groups import GroupView
from jobs.states import JobState
from jobs.tables import Base, Job, JobDependency, JobGroup
from tests.jobs.ledger.building import OTHER, PROJECT, Ledger
from tests.jobs.ledger.chains import Chains

SENDERS = 4
CORPUS = {"uri": "file:///corpus.jsonl"}
LABEL: dict[str, Any] = {"kind": "classify", "model": "/model", "corpus": CORPUS}
TRAIN: dict[str, Any] = {"kind": "finetune", "model": "news", "base": "/model", "corpus": CORPUS}
CHAIN = {
    "label": LABEL | {"model": "{train.model}"},
    "train": TRAIN,
    "clean": LABEL | {"depends_on": ["label:end"]},
}


@pytest.fixture
def chains(ledger: Ledger) -> Chains:
    return Chains(ledger)


def submit(ledger: Ledger, *, key: str | None = None, **fields: Any) -> tuple[str, bool]:
    spec = GroupSpec.model_validate(fields)
    with ledger.sessions.begin() as session:
        return groups.accept(session, project_id=PROJECT, spec=spec, idempotency_key=key)


def view(ledger: Ledger, group_id: str) -> GroupView:
    with ledger.sessions.begin() as session:
        return group_queries.get(session, group_id, project_id=PROJECT)


def members(ledger: Ledger, group_id: str) -> dict[str, Job]:
    return {each.job.member or "": each.job for each in view(ledger, group_id).members}


def test_members_name_one_another_and_are_shown_as_they_were_written(
    ledger: Ledger, chains: Chains
) -> None:
    group_id, new = submit(ledger, name="nightly", jobs=CHAIN)
    assert new
    found = members(ledger, group_id)
    assert list(found) == ["label", "train", "clean"]
    assert [job.held for job in found.values()] == [True, False, True]
    said = view(ledger, group_id).members[0].waiting_reason
    assert said == f"it needs train ({found['train'].id}) (queued) to succeed"
    version = chains.register(found["train"].id)
    chains.settle()
    assert members(ledger, group_id)["label"].model_pinned == version
    assert view(ledger, group_id).progress.state is JobState.RUNNING


@pytest.mark.parametrize(
    ("member", "error", "param"),
    [
        (LABEL | {"depends_on": ["job_none"]}, NotFound, "jobs.bad.depends_on.0.job"),
        (LABEL | {"corpus": {"file": "file-none"}}, NotFound, "jobs.bad.corpus.file"),
        (LABEL | {"model": "none@1"}, BadSpec, "jobs.bad.model"),
        (LABEL | {"model": "{label.model}"}, BadSpec, "jobs.bad.model"),
    ],
)
def test_one_bad_member_leaves_nothing_of_the_group(
    ledger: Ledger, member: dict[str, Any], error: type[NotFound], param: str
) -> None:
    def count() -> list[int | None]:
        with ledger.sessions.begin() as session:
            tables: tuple[type[Base], ...] = (Job, JobGroup, JobDependency)
            return [session.scalar(sa.select(sa.func.count()).select_from(t)) for t in tables]

    before = count()
    with pytest.raises(error) as refused:
        submit(ledger, jobs={**CHAIN, "bad": member})
    assert refused.value.param == param
    assert count() == before


def test_the_same_key_sent_many_times_at_once_is_one_group(ledger: Ledger) -> None:
    start = threading.Barrier(SENDERS)

    def send(_: int) -> tuple[str, bool]:
        start.wait()
        return submit(ledger, key="at once", jobs=CHAIN)

    with ThreadPoolExecutor(SENDERS) as pool:
        answers = list(pool.map(send, range(SENDERS)))
    assert len({group_id for group_id, _ in answers}) == 1
    assert sum(new for _, new in answers) == 1
    assert len(members(ledger, answers[0][0])) == len(CHAIN)
    with pytest.raises(KeyReused, match="'at once' was used for group_"):
        submit(ledger, key="at once", jobs={"other": LABEL})


def test_another_projects_group_looks_like_none(ledger: Ledger) -> None:
    group_id, _ = submit(ledger, jobs=CHAIN)
    with ledger.sessions.begin() as session:
        for action in (groups.cancel, groups.retry, group_queries.get):
            with pytest.raises(NotFound):
                action(session, group_id, project_id=OTHER)
        assert group_queries.page(session, project_id=OTHER, limit=9) == ([], False)


def test_one_cancel_ends_all_and_one_retry_begins_what_did_not_succeed(
    ledger: Ledger, chains: Chains
) -> None:
    group_id, _ = submit(ledger, jobs=CHAIN)
    ids = {name: job.id for name, job in members(ledger, group_id).items()}
    chains.register(ids["train"])
    chains.settle()
    with ledger.sessions.begin() as session:
        groups.cancel(session, group_id, project_id=PROJECT)
    for name in ("label", "clean"):
        ledger.finish(ids[name])
    assert view(ledger, group_id).progress.state is JobState.CANCELLED
    with ledger.sessions.begin() as session:
        groups.retry(session, group_id, project_id=PROJECT)
    states = {name: job.state for name, job in members(ledger, group_id).items()}
    assert states == {"train": "succeeded", "label": "planning", "clean": "queued"}
    with pytest.raises(Conflict) as refused, ledger.sessions.begin() as session:
        groups.retry(session, group_id, project_id=PROJECT)
    assert refused.value.code == "nothing_to_retry"


def test_a_job_that_needs_two_that_failed_is_retried_with_the_second(
    ledger: Ledger, chains: Chains
) -> None:
    both = LABEL | {"depends_on": ["one", "two"]}
    group_id, _ = submit(ledger, jobs={"one": LABEL, "two": LABEL, "both": both})
    ids = {name: job.id for name, job in members(ledger, group_id).items()}
    for name in ("one", "two"):
        chains.fail(ids[name])
    chains.settle()
    with ledger.sessions.begin() as session:
        groups.retry(session, group_id, project_id=PROJECT)
    assert {job.state for job in members(ledger, group_id).values()} == {JobState.QUEUED}


def test_a_sweep_is_a_group_whose_options_are_known(ledger: Ledger) -> None:
    grid: dict[str, list[float]] = {"learning_rate": [1e-5, 3e-5], "epochs": [1, 2]}
    group_id, _ = submit(ledger, sweep={"job": TRAIN, "grid": grid})
    rows = group_queries.sweep(view(ledger, group_id))
    assert [row.options for row in rows] == [
        {"train.learning_rate": rate, "train.epochs": epochs}
        for rate in grid["learning_rate"]
        for epochs in grid["epochs"]
    ]
    assert not any(row.is_best for row in rows)


def test_a_group_goes_with_the_last_of_its_jobs(ledger: Ledger) -> None:
    group_id, _ = submit(ledger, jobs={"one": LABEL, "two": LABEL | {"depends_on": ["one"]}})
    ids = [job.id for job in members(ledger, group_id).values()]
    with ledger.sessions.begin() as session:
        groups.cancel(session, group_id, project_id=PROJECT)
    for job_id in ids:
        ledger.finish(job_id)
        with ledger.sessions.begin() as session:
            deletions.delete_job(session, job_id, project_id=PROJECT)
            deletions.remove_rows(session, job_id)
            deletions.finish_job(session, job_id)
        with ledger.sessions.begin() as session:
            left = session.get(JobGroup, group_id)
        assert (left is None) == (job_id == ids[-1])
    with pytest.raises(NotFound):
        view(ledger, group_id)


def test_a_job_of_a_group_is_controlled_as_any_other(ledger: Ledger) -> None:
    group_id, _ = submit(ledger, jobs=CHAIN)
    train = members(ledger, group_id)["train"].id
    with ledger.sessions.begin() as session:
        controls.pause(session, train, project_id=PROJECT)
    assert members(ledger, group_id)["train"].state is JobState.PAUSED
