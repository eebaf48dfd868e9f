"""The end of a fine-tune on the real ledger: what is registered, and who has the alias afterwards.

The evaluate program is stood in for by its numbers, or by the way in which it ended.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.decisions.run_verdict import Outcome
from jobs.errors import JobFailure, LeaseLost
from jobs.ledger import registry
from jobs.ledger.ranks import RankLease
from jobs.lookups import registry as lookup
from jobs.models import bundles
from jobs.models.references import Registered
from jobs.results.schemas import TRAINING_SCHEMA
from jobs.states import JobState
from tests.jobs.ledger.building import PROJECT, Ledger
from tests.support.servers import Databases
from tests.workers.gang.standing import Standing
from workers.gang import publish
from workers.gang.monitor import Ending, Unfinished
from workers.gang.rank_lease import Attendance

REPORT = {"validation": {"macro_f1": 0.9, "rows": 2}}


@pytest.fixture(scope="module")
def ledger(fresh_database: Databases) -> Iterator[Ledger]:
    ledger = Ledger(fresh_database())
    yield ledger
    ledger.engine.dispose()


@pytest.fixture
def standing(ledger: Ledger, tmp_path: Path) -> Iterator[Standing]:
    standing = Standing(ledger, tmp_path)
    yield standing
    standing.training.clear()


def incumbent(standing: Standing, *, alias: str = "champion", **facts: Any) -> int:
    """A version of ``news`` that the alias points to."""
    folder = standing.home / "incumbent"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    values: dict[str, Any] = {"task": "classify", "lineage": {}, "metrics": {}, **facts}
    prefix = f"models/{PROJECT}/news/incumbent"
    files = bundles.upload(standing.store, folder, prefix=prefix)
    with standing.ledger.sessions.begin() as session:
        version = registry.register(
            session,
            project_id=PROJECT,
            name="news",
            kind="full",
            base=None,
            files=files,
            job_id=None,
            **values,
        )
        registry.set_alias(session, project_id=PROJECT, name="news", alias=alias, version=version)
    return version


def candidate(standing: Standing, **fields: Any) -> RankLease:
    """Rank 0 of a fine-tune whose program has ended well, with its folder."""
    spec = {"base": None, "architecture": "textcnn", "model": "news", **fields}
    [held] = standing.gang(**({"promote": {}} | spec))
    folder = standing.folder(held)
    (folder / "result").mkdir()
    (folder / "result" / "config.json").write_text("{}")
    (folder / "report.json").write_text(json.dumps(REPORT))
    (folder / "steps.json").write_text(json.dumps({"steps": 40, "best_step": 20}))
    (folder / "data" / "train").mkdir(parents=True)
    rows = [
        {"row": place, "line": place, "text": "t", "target": "ab"[place > 3]} for place in range(9)
    ]
    table = pa.Table.from_pylist(rows, TRAINING_SCHEMA)
    pq.write_table(table, folder / "data" / "train" / "000000.parquet")
    return held


def finished(standing: Standing, held: RankLease, evaluate: publish.Evaluate) -> dict[str, Any]:
    """The job's output."""
    context = standing.context(artefact_cache=str(standing.home / "cache"))
    with Attendance(held, context=context) as attendance:
        publish.finish_training(
            standing.folder(held), attendance, evaluate=evaluate, context=context
        )
    job = standing.ledger.job(held.job_id)
    assert job.state is JobState.SUCCEEDED
    assert job.output is not None
    return dict(job.output)


def numbers(**values: float | None) -> publish.Evaluate:
    """An evaluation that gives each model its number."""
    return lambda _, models: {name: {"macro_f1": values[name]} for name in models}


def ends(ending: Ending) -> publish.Evaluate:
    """An evaluation that ends so where an incumbent is among the models."""

    def evaluate(_: str, models: dict[str, Path]) -> dict[str, dict[str, Any]]:
        if "incumbent" in models:
            raise Unfinished(ending)
        return {"candidate": {"macro_f1": 0.9}}

    return evaluate


def holder(standing: Standing) -> int:
    with standing.ledger.sessions.begin() as session:
        return lookup.alias(session, "news", "champion", project_id=PROJECT).version


def test_the_output_has_the_steps_as_numbers(standing: Standing) -> None:
    output = finished(standing, candidate(standing, promote=None), numbers())
    assert (output["steps"], output["best_step"]) == (40, 20)
    assert output["promotion"] is None


@pytest.mark.parametrize(("theirs", "version"), [(0.8, 2), (0.95, 1), (None, 1)])
def test_the_alias_moves_to_what_is_better_than_a_number(
    standing: Standing, theirs: float | None, version: int
) -> None:
    incumbent(standing)
    evaluate = numbers(candidate=0.9, incumbent=theirs)
    promotion = finished(standing, candidate(standing), evaluate)["promotion"]
    assert promotion["promoted"] is (version == 2)
    assert promotion["incumbent"] == "news@1"
    assert promotion["incumbent_value"] == theirs
    assert holder(standing) == version


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (
            Ending(Outcome.FAULT, 65, code="unknown_label", error="it lacks the label 'poetry'"),
            "it lacks the label 'poetry'",
        ),
        (Ending(Outcome.CRASHED, 1, error="Traceback\nIndexError: 7\n"), "IndexError: 7"),
        (Ending(Outcome.CRASHED, -9), "exit code -9"),
        (Ending(Outcome.STALLED), "stood still"),
    ],
)
def test_an_incumbent_that_cannot_be_evaluated_keeps_the_alias(
    standing: Standing, ending: Ending, reason: str
) -> None:
    incumbent(standing)
    output = finished(standing, candidate(standing), ends(ending))
    assert output["model"] == "news@2"
    promotion = output["promotion"]
    assert not promotion["promoted"]
    assert promotion["incumbent"] == "news@1"
    assert (promotion["value"], promotion["incumbent_value"]) == (0.9, None)
    assert reason in promotion["reason"]
    assert holder(standing) == 1


def test_an_incumbent_whose_files_are_gone_keeps_the_alias(standing: Standing) -> None:
    incumbent(standing)
    for stored in list(standing.store.listing()):
        standing.store.delete(stored.key)
    promotion = finished(standing, candidate(standing), numbers(candidate=0.9))["promotion"]
    assert not promotion["promoted"]
    assert "news@1" in promotion["reason"]
    assert holder(standing) == 1


def test_an_incumbent_for_several_labels_is_not_compared_with_one_for_one(
    standing: Standing,
) -> None:
    incumbent(standing, lineage={"spec": {"multi_label": True}})
    promotion = finished(standing, candidate(standing), numbers(candidate=0.9))["promotion"]
    assert not promotion["promoted"]
    assert "any number of labels" in promotion["reason"]


@pytest.mark.parametrize("outcome", [Outcome.STOPPED, Outcome.ENDED])
def test_an_evaluation_that_was_ended_is_no_fault_of_the_incumbents(
    standing: Standing, outcome: Outcome
) -> None:
    incumbent(standing)
    with pytest.raises(Unfinished):
        finished(standing, candidate(standing), ends(Ending(outcome)))
    assert holder(standing) == 1


def test_a_candidate_that_cannot_be_evaluated_is_not_registered(standing: Standing) -> None:
    def evaluate(_: str, models: dict[str, Path]) -> dict[str, dict[str, Any]]:
        raise Unfinished(Ending(Outcome.CRASHED, 1, error=f"{len(models)} models"))

    incumbent(standing)
    with pytest.raises(Unfinished):
        finished(standing, candidate(standing), evaluate)
    with standing.ledger.sessions.begin() as session:
        newest = lookup.version(session, Registered("news"), project_id=PROJECT)
        assert newest.version == 1


def test_a_name_that_got_another_task_meanwhile_fails_the_job(standing: Standing) -> None:
    held = candidate(standing)
    incumbent(standing, task="generate")
    with pytest.raises(JobFailure, match="a name has one task") as raised:
        publish.check_name(held, context=standing.context())
    assert raised.value.code == "name_has_another_task"
    with pytest.raises(JobFailure, match="versions for generate"):
        finished(standing, held, numbers(candidate=0.9))


def test_a_large_table_is_an_object_and_the_row_points_to_it(standing: Standing) -> None:
    held = candidate(standing, promote=None)
    confusion = [[place % 7 for place in range(400)] for _ in range(400)]
    report = {"validation": {"rows": 9, "loss": 0.5, "labels": ["a", "b"], "confusion": confusion}}
    (standing.folder(held) / "report.json").write_text(json.dumps(report))
    output = finished(standing, held, numbers())
    assert output["report"] == {"validation": report["validation"] | {"confusion": None}}
    stored = standing.store.get(output["report_object"]["key"])
    assert json.loads(stored) == report
    assert output["report_object"]["bytes"] == len(stored)
    with standing.ledger.sessions.begin() as session:
        version = lookup.version(session, Registered("news"), project_id=PROJECT)
        assert version.metrics == output["report"]


def test_a_small_report_stays_in_its_row(standing: Standing) -> None:
    output = finished(standing, candidate(standing, promote=None), numbers())
    assert output["report"] == REPORT
    assert "report_object" not in output


def test_who_lost_the_run_registers_nothing(standing: Standing) -> None:
    held = candidate(standing)
    standing.training.lose(held)
    with pytest.raises(LeaseLost):
        finished(standing, held, numbers(candidate=0.9))
