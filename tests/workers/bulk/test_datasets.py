"""Planning of training jobs: the shards of every split and the facts of the data."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import BadRequest
from jobs.kinds import DatasetSplit
from jobs.kinds.datasets import Dataset, RejectedRow, SplitFacts
from jobs.ledger import controls, registry
from jobs.models import bundles, inspection
from jobs.settings import Settings
from jobs.states import JobState
from tests.jobs.ledger.building import PROJECT
from tests.workers.bulk.conftest import Workshop
from tests.workers.bulk.training import (
    GOOD,
    MODEL_FOLDER,
    InterruptedStore,
    Rows,
    corpus,
    facts,
    model,
    planned,
    rows_of,
    shards,
)
from workers.bulk import finalizer, planner, shard_writer
from workers.context import Context


def test_a_planned_job_runs_and_every_usable_row_is_in_a_shard(
    workshop: Workshop, context: Context
) -> None:
    job = planned(workshop, context, corpus=GOOD)
    assert (job.state, job.rows_planned, job.rows_total) == (JobState.RUNNING, 30, 30)
    assert (job.step_owner, job.model_digest) == (None, None)
    assert rows_of(workshop, job.id, "train") == [
        {"row": n, "line": n + 1, "text": row["text"], "target": row["label"]}
        for n, row in enumerate(GOOD)
    ]
    assert [shard.rows for shard in shards(workshop, job.id)] == [8, 8, 8, 6]
    assert workshop.ledger.live(job.id) == []


def test_every_split_has_shards_of_its_own_and_one_numbering(
    workshop: Workshop, context: Context
) -> None:
    job = planned(
        workshop,
        context,
        corpus=GOOD,
        validation=GOOD[:9],
        test=GOOD[:3],
        promote={"corpus": corpus(workshop, GOOD[:4])},
    )
    found = shards(workshop, job.id)
    assert [shard.index for shard in found] == list(range(8))
    splits = ["train"] * 4 + ["validation"] * 2 + ["test", "promotion"]
    assert [shard.split for shard in found] == splits
    assert found[5].object_key == f"jobs/{job.id}/data/validation-000005-1.parquet"
    assert [row["row"] for row in rows_of(workshop, job.id, "validation")] == list(range(9))
    assert job.rows_total == 30 + 9 + 3 + 4


def test_the_facts_count_rows_labels_and_rejected_rows(
    workshop: Workshop, context: Context
) -> None:
    bad: Rows = [{"text": "no label"}, {"text": "", "label": "x"}]
    job = planned(workshop, context, corpus=[*GOOD[:3], *bad, *GOOD[3:]], test=GOOD[:2])
    found = facts(job)
    assert found.labels == ("sports", "world", "体育")
    train = found.splits[DatasetSplit.TRAIN]
    assert (train.rows, train.rejected, train.shards) == (30, 2, 4)
    assert train.labels == {"sports": 10, "world": 10, "体育": 10}
    assert train.examples == (
        RejectedRow(4, "missing_target", "the row has no 'label'"),
        RejectedRow(5, "empty_text", "the text is empty or only white space"),
    )
    assert found.splits[DatasetSplit.TEST].labels == {"sports": 1, "体育": 1}
    assert job.corpus_fingerprint == found.fingerprint
    assert found.fingerprint.startswith(f"train={train.fingerprint} test=files/")


def test_a_shard_begins_at_its_first_usable_row(workshop: Workshop, context: Context) -> None:
    job = planned(workshop, context, corpus=[{"text": "bad"}, *GOOD])
    assert shards(workshop, job.id)[0].first_row == 1


def test_the_first_twenty_rejected_rows_are_kept_and_the_others_counted(
    workshop: Workshop, context: Context
) -> None:
    bad: Rows = [{"text": f"no label {n}"} for n in range(9_000)]
    train = facts(planned(workshop, context, corpus=[*GOOD, *bad])).splits[DatasetSplit.TRAIN]
    assert train.rejected == 9_000
    assert [example.line for example in train.examples] == list(range(31, 51))


def test_each_of_several_labels_is_counted(workshop: Workshop, context: Context) -> None:
    rows: Rows = [{"text": "a", "labels": labels} for labels in (["x", "y"], ["y"], [], "x|z")]
    job = planned(workshop, context, corpus=rows, multi_label=True)
    train = facts(job).splits[DatasetSplit.TRAIN]
    assert train.labels == {"x": 2, "y": 2, "z": 1}
    targets = [row["target"] for row in rows_of(workshop, job.id, "train")]
    assert targets == ['["x", "y"]', '["y"]', "[]", '["x", "z"]']


def test_texts_have_no_labels(workshop: Workshop, context: Context) -> None:
    rows: Rows = [{"text": f"text {n}", "summary": f"{n}"} for n in range(5)]
    base = model(context, labels=("a", "b"))
    job = planned(workshop, context, corpus=rows, task="text2text", base=base)
    found = facts(job)
    assert (found.labels, found.splits[DatasetSplit.TRAIN].labels) == (None, None)
    assert rows_of(workshop, job.id, "train")[3]["target"] == "3"


def test_a_language_model_takes_plain_text(workshop: Workshop, context: Context) -> None:
    job = planned(
        workshop, context, corpus=[{"text": f"text {n}"} for n in range(5)], task="generate"
    )
    assert {row["target"] for row in rows_of(workshop, job.id, "train")} == {None}


def test_the_corpus_of_an_evaluation_is_its_test_split(
    workshop: Workshop, context: Context
) -> None:
    folder = model(context, labels=("sports", "体育", "world", "more"))
    job = planned(workshop, context, "evaluate", corpus=GOOD, model=folder)
    assert job.state is JobState.RUNNING
    assert list(facts(job).splits) == [DatasetSplit.TEST]
    assert {shard.split for shard in shards(workshop, job.id)} == {"test"}
    assert len(job.model_digest or "") == 64


def test_a_base_in_the_registry_is_the_version_that_was_pinned(
    workshop: Workshop, context: Context
) -> None:
    register(workshop, model(context, labels=("a", "b")))
    job_id = workshop.training(corpus=corpus(workshop, GOOD), base="ours")
    register(workshop, model(context, labels=("a", "c")))
    planner.plan(job_id, context=context)
    job = workshop.ledger.job(job_id)
    assert (job.state, job.model_pinned) == (JobState.RUNNING, "ours@1")
    folder = Path(context.settings.artefact_cache).parent / MODEL_FOLDER.format("a-b")
    assert job.model_digest == inspection.inspect(folder).digest


def register(workshop: Workshop, folder: str) -> None:
    files = bundles.upload(workshop.store, Path(folder), prefix=f"models/{Path(folder).name}")
    with workshop.ledger.sessions.begin() as session:
        registry.register(
            session,
            project_id=PROJECT,
            name="ours",
            task="classify",
            kind="full",
            base=None,
            files=files,
            metrics={},
            lineage={},
            job_id=None,
        )


def test_a_planner_that_dies_half_way_is_replaced_and_leaves_nothing_in_the_ledger(
    workshop: Workshop, context: Context
) -> None:
    job_id = workshop.training(corpus=corpus(workshop, GOOD))
    dying = Context(context.settings, context.sessions, InterruptedStore(workshop, then=_die))
    with pytest.raises(SystemExit):
        planner.plan(job_id, context=dying)
    job = workshop.ledger.job(job_id)
    assert (job.state, job.rows_planned, job.dataset) == (JobState.PLANNING, 0, None)
    assert shards(workshop, job_id) == []
    assert planner.plan(job_id, context=context).done
    assert len(rows_of(workshop, job_id, "train")) == 30
    assert {shard.object_key.rpartition("-")[2] for shard in shards(workshop, job_id)} == {
        "2.parquet"
    }


def _die() -> None:
    raise SystemExit("killed")


def test_a_planner_that_was_replaced_writes_nothing_into_the_ledger(
    workshop: Workshop, context: Context
) -> None:
    job_id = workshop.training(corpus=corpus(workshop, GOOD))

    def replace() -> None:
        job = workshop.ledger.job(job_id)
        workshop.ledger.set(job_id, step_fence=job.step_fence + 1)

    late = Context(context.settings, context.sessions, InterruptedStore(workshop, then=replace))
    assert not planner.plan(job_id, context=late).done
    job = workshop.ledger.job(job_id)
    assert (job.state, job.dataset, shards(workshop, job_id)) == (JobState.PLANNING, None, [])


def test_a_job_that_was_paused_while_it_was_planned_is_planned_again(
    workshop: Workshop, context: Context
) -> None:
    job_id = workshop.training(corpus=corpus(workshop, GOOD))

    def pause() -> None:
        with workshop.ledger.sessions.begin() as session:
            controls.pause(session, job_id, project_id=PROJECT)

    late = Context(context.settings, context.sessions, InterruptedStore(workshop, then=pause))
    assert not planner.plan(job_id, context=late).done
    with workshop.ledger.sessions.begin() as session:
        controls.resume(session, job_id, project_id=PROJECT)
    assert planner.plan(job_id, context=context).done
    assert len(rows_of(workshop, job_id, "train")) == 30


def test_a_training_job_is_not_verified_as_bulk_jobs_are(
    workshop: Workshop, context: Context
) -> None:
    job = planned(workshop, context, corpus=GOOD)
    with pytest.raises(BadRequest, match="recounts the rows of bulk jobs") as caught:
        workshop.verify(job.id)
    assert caught.value.code == "not_bulk"


def test_a_training_job_is_not_finalized_as_bulk_jobs_are(
    workshop: Workshop, context: Context
) -> None:
    job = planned(workshop, context, corpus=GOOD)
    workshop.ledger.set(job.id, state=JobState.CANCELLING)
    assert not finalizer.finalize(job.id, context=context).done
    assert workshop.ledger.job(job.id).state is JobState.CANCELLING


split_facts = st.builds(
    SplitFacts,
    rows=st.integers(1, 99),
    rejected=st.integers(0, 9),
    examples=st.lists(
        st.builds(RejectedRow, line=st.integers(1, 9), code=st.text(), message=st.text())
    ).map(tuple),
    labels=st.none() | st.dictionaries(st.text(), st.integers(1, 9)),
    fingerprint=st.text(),
    shards=st.integers(1, 9),
)


@given(
    st.none() | st.lists(st.text()).map(tuple),
    st.dictionaries(st.sampled_from(DatasetSplit), split_facts),
)
def test_the_facts_of_a_data_set_survive_json(
    names: tuple[str, ...] | None, splits: dict[DatasetSplit, SplitFacts]
) -> None:
    dataset = Dataset(labels=names, splits=splits)
    assert Dataset.from_json(json.loads(json.dumps(dataset.as_json()))) == dataset


@given(st.lists(st.integers(0, 12), max_size=12), st.integers(1, 25), st.integers(1, 3_000))
def test_shards_are_as_large_as_they_may_be_and_never_empty(
    sizes: list[int], shard_rows: int, shard_bytes: int
) -> None:
    limits = Settings(shard_rows=shard_rows, shard_bytes=shard_bytes)
    tables = [pa.table({"row": pa.array(range(size), pa.int64())}) for size in sizes]
    made = list(shard_writer.joined_to_shards(tables, settings=limits))
    assert [row for shard in made for row in shard["row"].to_pylist()] == [
        row for size in sizes for row in range(size)
    ]
    assert all(0 < shard.num_rows <= shard_rows for shard in made)
