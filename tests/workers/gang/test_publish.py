"""Publication on a real ledger: the registered version and the alias after a fine-tune.

In place of the evaluation program a function returns values or raises its ending.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.corpora.schemas import TRAINING_SCHEMA
from jobs.decisions.run_verdict import RankOutcome
from jobs.errors import JobFailure, LeaseLost
from jobs.ledger import registry
from jobs.ledger.ranks import RankLease
from jobs.lookups import held_promotions
from jobs.lookups import registry as lookup
from jobs.models import bundles
from jobs.models.references import Registered
from jobs.queries import events
from jobs.queries import registry as queries
from jobs.states import JobState
from jobs.tables import Promotion
from tests.jobs.ledger.building import PROJECT, Ledger
from tests.workers.gang.gang_setup import GangSetup, finetune_spec
from workers.gang import publish
from workers.gang.comparison import Evaluate
from workers.gang.monitor import ProgramUnfinished, RankEnding
from workers.gang.rank_lease import HeldRank

REPORT = {"validation": {"macro_f1": 0.9, "rows": 2}}


@pytest.fixture
def setup(ledger: Ledger, tmp_path: Path) -> Iterator[GangSetup]:
    setup = GangSetup(ledger, tmp_path)
    yield setup
    setup.training.clear()


def incumbent(setup: GangSetup, *, alias: str = "champion", **facts: Any) -> int:
    """A version of ``news`` that the alias points to."""
    folder = setup.home / "incumbent"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    values: dict[str, Any] = {"task": "classify", "lineage": {}, "metrics": {}, **facts}
    prefix = f"models/{PROJECT}/news/incumbent"
    files = bundles.upload(setup.store, folder, prefix=prefix)
    with setup.ledger.sessions.begin() as session:
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


def candidate(setup: GangSetup, **fields: Any) -> RankLease:
    """Rank 0 of a fine-tune whose program has ended well, with its folder."""
    spec = {"base": None, "architecture": "textcnn", "model": "news", **fields}
    [lease] = setup.gang(**({"promote": {}} | spec))
    folder = setup.folder(lease)
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
    return lease


def finished(setup: GangSetup, lease: RankLease, evaluate: Evaluate) -> dict[str, Any]:
    """The job's output after its publication."""
    context = setup.context(artefact_cache=str(setup.home / "cache"))
    with HeldRank(lease, context=context) as held:
        publish.finish_training(
            setup.folder(lease), held, finetune_spec(lease), evaluate=evaluate, context=context
        )
    job = setup.ledger.job(lease.job_id)
    assert job.state is JobState.SUCCEEDED
    assert job.output is not None
    return dict(job.output)


def evaluates_to(**values: float | None) -> Evaluate:
    """An evaluation that returns these values of the metric, by model."""
    return lambda _, models: {name: {"macro_f1": values[name]} for name in models}


def fails_for_incumbent(ending: RankEnding) -> Evaluate:
    """An evaluation that ends like this if the incumbent is among the models."""

    def evaluate(_: str, models: dict[str, Path]) -> dict[str, dict[str, Any]]:
        if "incumbent" in models:
            raise ProgramUnfinished(ending)
        return {"candidate": {"macro_f1": 0.9}}

    return evaluate


def report_on(value: float, *, rows: int = 100, **recall: float) -> dict[str, Any]:
    """A report with these recalls of labels."""
    labels = [
        {"label": label, "rows": rows // 2, "precision": 0.9, "recall": recalled, "f1": 0.9}
        for label, recalled in recall.items()
    ]
    return {"macro_f1": value, "rows": rows, "per_label": labels, "confusion": None}


def reports(**by_model: dict[str, Any]) -> Evaluate:
    """An evaluation that gives these reports, by model."""
    return lambda _, models: {name: by_model[name] for name in models}


def decisions(setup: GangSetup) -> list[Promotion]:
    with setup.ledger.sessions.begin() as session:
        return queries.promotions(session, "news", project_id=PROJECT, limit=10)[0]


def holder(setup: GangSetup) -> int:
    with setup.ledger.sessions.begin() as session:
        return lookup.alias(session, "news", "champion", project_id=PROJECT).version


def test_the_output_has_the_steps_as_integers(setup: GangSetup) -> None:
    output = finished(setup, candidate(setup, promote=None), evaluates_to())
    assert (output["steps"], output["best_step"]) == (40, 20)
    assert output["promotion"] is None


@pytest.mark.parametrize(("incumbent_value", "version"), [(0.8, 2), (0.95, 1), (None, 1)])
def test_the_alias_moves_only_to_a_candidate_with_a_better_value(
    setup: GangSetup, incumbent_value: float | None, version: int
) -> None:
    incumbent(setup)
    evaluate = evaluates_to(candidate=0.9, incumbent=incumbent_value)
    promotion = finished(setup, candidate(setup), evaluate)["promotion"]
    assert promotion["promoted"] is (version == 2)
    assert promotion["incumbent"] == "news@1"
    assert promotion["incumbent_value"] == incumbent_value
    assert holder(setup) == version


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (
            RankEnding(
                RankOutcome.FAULT, 65, code="unknown_label", error="it lacks the label 'poetry'"
            ),
            "it lacks the label 'poetry'",
        ),
        (RankEnding(RankOutcome.CRASHED, 1, error="Traceback\nIndexError: 7\n"), "IndexError: 7"),
        (RankEnding(RankOutcome.CRASHED, -9), "exit code -9"),
        (RankEnding(RankOutcome.STALLED), "stood still"),
    ],
)
def test_an_incumbent_that_cannot_be_evaluated_keeps_the_alias(
    setup: GangSetup, ending: RankEnding, reason: str
) -> None:
    incumbent(setup)
    output = finished(setup, candidate(setup), fails_for_incumbent(ending))
    assert output["model"] == "news@2"
    promotion = output["promotion"]
    assert not promotion["promoted"]
    assert promotion["incumbent"] == "news@1"
    assert (promotion["value"], promotion["incumbent_value"]) == (0.9, None)
    assert reason in promotion["reason"]
    assert holder(setup) == 1


def test_an_incumbent_whose_files_are_gone_keeps_the_alias(setup: GangSetup) -> None:
    incumbent(setup)
    for stored in list(setup.store.listing()):
        setup.store.delete(stored.key)
    promotion = finished(setup, candidate(setup), evaluates_to(candidate=0.9))["promotion"]
    assert not promotion["promoted"]
    assert "news@1" in promotion["reason"]
    assert holder(setup) == 1


def test_an_incumbent_for_several_labels_is_not_compared_with_one_for_one(
    setup: GangSetup,
) -> None:
    incumbent(setup, lineage={"spec": {"multi_label": True}})
    promotion = finished(setup, candidate(setup), evaluates_to(candidate=0.9))["promotion"]
    assert not promotion["promoted"]
    assert "any number of labels" in promotion["reason"]


@pytest.mark.parametrize("outcome", [RankOutcome.STOPPED, RankOutcome.ABORTED])
def test_an_evaluation_that_was_stopped_is_no_fault_of_the_incumbent(
    setup: GangSetup, outcome: RankOutcome
) -> None:
    incumbent(setup)
    with pytest.raises(ProgramUnfinished):
        finished(setup, candidate(setup), fails_for_incumbent(RankEnding(outcome)))
    assert holder(setup) == 1


def test_a_candidate_that_cannot_be_evaluated_is_not_registered(setup: GangSetup) -> None:
    def evaluate(_: str, models: dict[str, Path]) -> dict[str, dict[str, Any]]:
        raise ProgramUnfinished(RankEnding(RankOutcome.CRASHED, 1, error=f"{len(models)} models"))

    incumbent(setup)
    with pytest.raises(ProgramUnfinished):
        finished(setup, candidate(setup), evaluate)
    with setup.ledger.sessions.begin() as session:
        newest = lookup.version(session, Registered("news"), project_id=PROJECT)
        assert newest.version == 1


def test_a_name_that_has_another_task_by_now_fails_the_job(setup: GangSetup) -> None:
    lease = candidate(setup)
    incumbent(setup, task="generate")
    with pytest.raises(JobFailure, match="a name has one task") as raised:
        publish.check_name(lease, finetune_spec(lease), context=setup.context())
    assert raised.value.code == "name_has_another_task"
    with pytest.raises(JobFailure, match="versions for generate"):
        finished(setup, lease, evaluates_to(candidate=0.9))


def test_a_large_table_is_an_object_and_the_row_points_to_it(setup: GangSetup) -> None:
    lease = candidate(setup, promote=None)
    confusion = [[place % 7 for place in range(400)] for _ in range(400)]
    report = {"validation": {"rows": 9, "loss": 0.5, "labels": ["a", "b"], "confusion": confusion}}
    (setup.folder(lease) / "report.json").write_text(json.dumps(report))
    output = finished(setup, lease, evaluates_to())
    assert output["report"] == {"validation": report["validation"] | {"confusion": None}}
    stored = setup.store.get(output["report_object"]["key"])
    assert json.loads(stored) == report
    assert output["report_object"]["bytes"] == len(stored)
    with setup.ledger.sessions.begin() as session:
        version = lookup.version(session, Registered("news"), project_id=PROJECT)
        assert version.metrics == output["report"]


def test_a_small_report_stays_in_its_row(setup: GangSetup) -> None:
    output = finished(setup, candidate(setup, promote=None), evaluates_to())
    assert output["report"] == REPORT
    assert "report_object" not in output


def test_a_rank_that_lost_its_run_registers_nothing(setup: GangSetup) -> None:
    lease = candidate(setup)
    setup.training.lose(lease)
    with pytest.raises(LeaseLost):
        finished(setup, lease, evaluates_to(candidate=0.9))


@pytest.mark.parametrize(("recall", "version"), [(0.88, 2), (0.8, 1)])
def test_no_label_may_lose_more_recall_than_the_floors_allow(
    setup: GangSetup, recall: float, version: int
) -> None:
    incumbent(setup)
    promote = {"floors": {"recall_drop": 0.02}}
    evaluate = reports(
        candidate=report_on(0.95, a=0.99, b=recall), incumbent=report_on(0.9, a=0.8, b=0.9)
    )
    promotion = finished(setup, candidate(setup, promote=promote), evaluate)["promotion"]
    assert holder(setup) == version
    assert promotion["promoted"] is (version == 2)
    assert (promotion["floors"]["checked"], promotion["floors"]["broken"]) == (2, 2 - version)
    assert (promotion["rows"], promotion["split"]) == (100, "validation")
    assert ("recall of 'b' falls" in promotion["reason"]) is (version == 1)


def test_too_few_rows_do_not_decide(setup: GangSetup) -> None:
    incumbent(setup)
    evaluate = reports(candidate=report_on(0.95), incumbent=report_on(0.9))
    lease = candidate(setup, promote={"min_rows": 101})
    promotion = finished(setup, lease, evaluate)["promotion"]
    assert not promotion["promoted"]
    assert "only 100 rows decide, and min_rows asks for 101" in promotion["reason"]
    assert holder(setup) == 1


def test_the_decision_is_kept_with_both_reports_and_is_an_event(setup: GangSetup) -> None:
    incumbent(setup)
    both = {"candidate": report_on(0.95, a=1.0), "incumbent": report_on(0.9, a=0.9)}
    lease = candidate(setup)
    finished(setup, lease, reports(**both))
    (kept,) = decisions(setup)
    assert (kept.reports, kept.rows, kept.split, kept.floors) == (both, 100, "validation", None)
    with setup.ledger.sessions.begin() as session:
        history = events.since(session, lease.job_id)
    (told,) = [event.data for event in history if event.type == "promotion"]
    assert (told["reports"], told["reason"]) == (both, kept.reason)


def test_versions_that_lost_are_deleted_but_for_the_newest(setup: GangSetup) -> None:
    incumbent(setup)
    evaluate = reports(candidate=report_on(0.8), incumbent=report_on(0.9))
    for _ in range(3):
        finished(setup, candidate(setup, promote={"keep_rejected": 2}), evaluate)
    with setup.ledger.sessions.begin() as session:
        found = queries.models(session, project_id=PROJECT)
        versions = [view.version.version for view in found if view.version.name == "news"]
    assert versions == [4, 3, 1]


def test_a_schedule_that_has_drifted_holds_the_promotion_back(
    setup: GangSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    incumbent(setup)
    monkeypatch.setattr(held_promotions, "reason", lambda *_, **__: "the fire of nightly drifted")
    evaluate = reports(candidate=report_on(0.95), incumbent=report_on(0.9))
    promotion = finished(setup, candidate(setup), evaluate)["promotion"]
    assert not promotion["promoted"]
    assert promotion["reason"].startswith("promotion is held back: the fire of nightly drifted; ")
    assert holder(setup) == 1
