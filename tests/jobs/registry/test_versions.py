"""Versions and aliases of the registry, with concurrent writers where that matters."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from jobs import kinds
from jobs.errors import BadRequest, BadSpec, Conflict, JobFailure, NotFound
from jobs.ledger import registry, submission
from jobs.states import JobState
from tests.jobs.ledger.building import OTHER, PROJECT
from tests.jobs.registry.conftest import Registry
from tests.support.waiting import wait_until

CORPUS = {"uri": "file:///corpus.jsonl"}


def submit(made: Registry, *, key: str | None = None, **fields: Any) -> str:
    with made.ledger.sessions.begin() as session:
        job_id, _ = submission.accept(
            session,
            project_id=PROJECT,
            spec=kinds.parse({"corpus": CORPUS, **fields}),
            idempotency_key=key,
        )
    return job_id


def end(made: Registry, job_id: str) -> None:
    made.ledger.set(job_id, state=JobState.CANCELLED, finished_at=sa.func.now())


def refusal(made: Registry, name: str, version: int) -> Conflict:
    with pytest.raises(Conflict) as caught:
        made.delete(name, version)
    assert caught.value.code == "model_in_use"
    return caught.value


def test_versions_of_a_name_are_counted_from_one(made: Registry) -> None:
    assert [made.register("counted") for _ in range(3)] == [1, 2, 3]
    assert made.register("another") == 1


def test_each_project_counts_for_itself(made: Registry) -> None:
    made.register("own")
    assert made.register("own", project=OTHER) == 1


def test_eight_concurrent_registrations_get_eight_versions(made: Registry) -> None:
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda _: made.register("crowd"), range(8)))
    assert sorted(versions) == list(range(1, 9))


def test_a_job_registers_one_version_however_often_it_tries(made: Registry) -> None:
    job_id = made.ledger.accept()
    with ThreadPoolExecutor(4) as pool:
        versions = list(pool.map(lambda _: made.register("once", job_id=job_id), range(4)))
    assert versions == [1, 1, 1, 1]
    assert made.register("once") == 2
    assert [event.type for event in made.ledger.events(job_id)].count("registered") == 1


def test_a_version_knows_its_size_hash_and_origin(made: Registry, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    lineage = {"code_version": "1"}
    report = {"test": {"accuracy": 0.5, "loss": float("nan")}}
    made.register("whole", folder=tmp_path, metrics=report, lineage=lineage, base="hf:org/name")
    version = made.lookup("whole@1")
    assert (version.bytes, len(version.sha256), version.base) == (2, 64, "hf:org/name")
    assert version.lineage == lineage
    assert version.metrics == {"test": {"accuracy": 0.5, "loss": None}}


def test_a_reference_names_a_version_an_alias_or_the_newest(made: Registry) -> None:
    for _ in range(3):
        made.register("meant")
    made.point("meant", "champion", 2)
    assert [made.lookup(words).version for words in ("meant@1", "meant@champion", "meant")] == [
        1,
        2,
        3,
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("missing", "no model 'missing' in this project's registry"),
        ("missing@1", "no model 'missing' in this project's registry"),
        ("present@7", "the model 'present' has no version 7"),
        ("present@best", "the model 'present' has no alias 'best'; it has champion"),
    ],
)
def test_a_missing_version_is_not_found_with_a_reason(
    made: Registry, words: str, message: str
) -> None:
    made.point("present", "champion", made.register("present"))
    with pytest.raises(NotFound) as caught:
        made.lookup(words)
    assert caught.value.message == message


def test_another_projects_model_is_not_found(made: Registry) -> None:
    made.register("mine")
    with pytest.raises(NotFound):
        made.lookup("mine@1", project=OTHER)


def test_an_alias_moves_and_can_be_removed(made: Registry) -> None:
    made.register("moved")
    made.register("moved")
    made.point("moved", "champion", 1)
    made.point("moved", "champion", 2)
    assert made.lookup("moved@champion").version == 2
    with made.ledger.sessions.begin() as session:
        registry.remove_alias(session, project_id=PROJECT, name="moved", alias="champion")
    with pytest.raises(NotFound):
        made.lookup("moved@champion")


def test_an_alias_points_only_to_an_existing_version(made: Registry) -> None:
    made.register("aimed")
    made.delete("aimed", 1)
    for version in (1, 2):
        with pytest.raises(NotFound):
            made.point("aimed", "champion", version)


@pytest.mark.parametrize("alias", ["", "7", "Champion", "a b", "a" * 41])
def test_an_ambiguous_alias_is_refused(made: Registry, alias: str) -> None:
    made.register("misread")
    with pytest.raises(BadRequest):
        made.point("misread", alias, 1)


def test_a_deleted_version_is_a_tombstone_and_its_number_is_not_reused(
    made: Registry, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    made.register("gone", folder=tmp_path)
    files = made.delete("gone", 1)
    assert [file["path"] for file in files] == ["config.json"]
    assert made.delete("gone", 1) == files
    with pytest.raises(NotFound, match="gone@1 was deleted"):
        made.lookup("gone@1")
    with pytest.raises(NotFound, match="every version of the model 'gone' was deleted"):
        made.lookup("gone")
    assert made.register("gone") == 2


def test_deleting_a_version_that_never_existed_is_not_found(made: Registry) -> None:
    made.register("little")
    with pytest.raises(NotFound):
        made.delete("little", 2)
    with pytest.raises(NotFound):
        made.delete("little", 1, project=OTHER)


def test_a_version_that_an_alias_points_to_is_not_deleted(made: Registry) -> None:
    made.point("aliased", "champion", made.register("aliased"))
    assert "the alias champion points to it" in refusal(made, "aliased", 1).message


def test_a_version_that_a_job_uses_is_deleted_once_the_job_has_ended(made: Registry) -> None:
    made.register("used")
    job_id = submit(made, model="used@1")
    assert job_id in refusal(made, "used", 1).message
    end(made, job_id)
    made.delete("used", 1)


def test_the_base_of_an_adapter_is_deleted_after_the_adapter(made: Registry) -> None:
    made.register("ground")
    made.register("tuned", kind="adapter", base="ground@1")
    assert "tuned@1 is an adapter on it" in refusal(made, "ground", 1).message
    made.delete("tuned", 1)
    made.delete("ground", 1)


def test_the_base_of_full_weights_can_be_deleted(made: Registry) -> None:
    made.register("origin")
    made.register("heir", base="origin@1")
    made.delete("origin", 1)


def test_an_alias_is_pinned_to_its_version_when_the_job_is_accepted(made: Registry) -> None:
    made.point("pinned", "champion", made.register("pinned"))
    job_id = submit(made, model="pinned@champion")
    made.point("pinned", "champion", made.register("pinned"))
    assert made.ledger.job(job_id).model_pinned == "pinned@1"
    assert made.ledger.job(job_id).spec["model"] == "pinned@champion"


@pytest.fixture(scope="module")
def started(made: Registry) -> None:
    made.register("start")
    made.register("start")


@pytest.mark.parametrize(
    ("fields", "pinned"),
    [
        ({"model": "start"}, "start@2"),
        ({"kind": "evaluate", "model": "start@1"}, "start@1"),
        ({"kind": "finetune", "model": "start", "base": "start@1"}, "start@1"),
        ({"kind": "finetune", "model": "start", "base": "hf:org/name"}, None),
        ({"kind": "finetune", "model": "start", "architecture": "lstm"}, None),
        ({"model": "/models/start"}, None),
    ],
)
@pytest.mark.usefixtures("started")
def test_every_kind_pins_the_model_that_it_starts_from(
    made: Registry, fields: dict[str, Any], pinned: str | None
) -> None:
    assert made.ledger.job(submit(made, **fields)).model_pinned == pinned


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": "unheard-of"}, "model", "model_not_found"),
        ({"model": "un/heard"}, "model", "model_refused"),
        ({"kind": "evaluate", "model": "unheard-of@3"}, "model", "model_not_found"),
        ({"kind": "finetune", "model": "n", "base": "unheard-of@best"}, "base", "model_not_found"),
    ],
)
def test_an_unknown_name_is_a_bad_spec_with_its_field(
    made: Registry, fields: dict[str, Any], param: str, code: str
) -> None:
    with pytest.raises(BadSpec) as caught:
        submit(made, **fields)
    assert (caught.value.param, caught.value.code) == (param, code)


def test_a_repeated_submit_is_the_same_job_even_if_its_model_was_deleted(made: Registry) -> None:
    made.register("fleeting")
    job_id = submit(made, model="fleeting@1", key="again")
    end(made, job_id)
    made.delete("fleeting", 1)
    assert submit(made, model="fleeting@1", key="again") == job_id


def test_a_deletion_waits_for_a_job_that_is_being_accepted(made: Registry) -> None:
    made.register("contended")
    outcome: list[str] = []

    def delete() -> None:
        try:
            made.delete("contended", 1)
        except Conflict as conflict:
            outcome.append(conflict.code)

    thread = threading.Thread(target=delete)
    with made.ledger.sessions.begin() as session:
        submission.accept(
            session,
            project_id=PROJECT,
            spec=kinds.parse({"corpus": CORPUS, "model": "contended@1"}),
            idempotency_key=None,
        )
        thread.start()
        wait_until(lambda: _waiting(made) > 0, seconds=10)
    thread.join(20)
    assert outcome == ["model_in_use"]


def _waiting(made: Registry) -> int:
    query = sa.text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with made.ledger.sessions.begin() as session:
        return int(session.scalar(query) or 0)


def finetune(made: Registry, name: str, *, task: str) -> str:
    fields = {"kind": "finetune", "base": "/m", "model": name, "task": task}
    spec = kinds.parse({"corpus": {"uri": "file:///corpus.jsonl"}, **fields})
    with made.ledger.sessions.begin() as session:
        job_id, _ = submission.accept(session, project_id=PROJECT, spec=spec, idempotency_key=None)
    return job_id


def test_a_name_has_one_task(made: Registry) -> None:
    finetune(made, "single", task="generate")
    made.register("single", task="classify")
    finetune(made, "single", task="classify")
    with pytest.raises(Conflict, match="'single' has versions for classify") as refused:
        finetune(made, "single", task="generate")
    assert refused.value.code == "name_has_another_task"
    assert refused.value.param == "model"
    with pytest.raises(JobFailure, match="for text2text, under another name") as failed:
        made.register("single", task="text2text")
    assert failed.value.code == "name_has_another_task"
    assert made.register("single", task="classify") == 2


def test_a_name_whose_versions_are_deleted_is_free_for_another_task(made: Registry) -> None:
    made.delete("freed", made.register("freed", task="classify"))
    finetune(made, "freed", task="generate")
    assert made.register("freed", task="generate") == 2
