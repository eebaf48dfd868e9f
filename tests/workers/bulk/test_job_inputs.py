"""What a job reads: several objects, written down once, and what is new since the last fire."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import objects
from jobs.corpora.corpus_reader import CorpusReader
from jobs.inputs import Input
from jobs.ledger import controls, deletions
from jobs.queries import dispatch, inputs
from jobs.results import parts
from jobs.results.schemas import result_schema
from jobs.schedules.states import FireState
from jobs.states import JobState
from jobs.tables import Job, Model, ModelAlias, ModelVersion, Promotion
from tests.jobs.ledger.building import PROJECT, Ledger
from tests.jobs.ledger.scheduling import Clockwork, at
from tests.support.seaweed import BUCKET, S3
from tests.support.servers import Databases
from tests.support.tiny_models import tiny_classifier
from tests.workers.bulk import training
from tests.workers.bulk.conftest import Workshop, jsonl
from tests.workers.bulk.nights import Nights, planned, rows
from workers.bulk import finalizer, job_inputs, planner, result_table
from workers.context import Context


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_classifier(tmp_path_factory.mktemp("model") / "model"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "in"
    made.mkdir()
    return made


@pytest.fixture
def open_context(context: Context, folder: Path) -> Context:
    settings = context.settings.model_copy(update={"allowed_inputs": [folder.as_uri(), "s3://"]})
    return replace(context, settings=settings)


def write(folder: Path, name: str, *texts: str, broken: int = 0) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jsonl({"text": text} for text in texts) + b"no json\n" * broken)


def plan(workshop: Workshop, context: Context, **fields: Any) -> Job:
    job_id = workshop.ledger.accept(**fields)
    return planned(workshop, context, job_id)


def taken(workshop: Workshop, job: Job, split: str = "rows") -> list[Input]:
    with workshop.ledger.sessions.begin() as session:
        found = inputs.of_job(session, job.id)
    assert found is not None
    return list(found.get(split, ()))


def names(workshop: Workshop, job: Job) -> list[str]:
    return [each.name.rpartition("/")[2] for each in taken(workshop, job)]


def error(job: Job) -> str:
    return f"{job.error_code}: {job.error_message}"


def test_each_row_keeps_its_object_and_its_line_there(
    workshop: Workshop, open_context: Context, folder: Path, model: str
) -> None:
    write(folder, "day=1/b.jsonl", "b1", "b2")
    write(folder, "day=1/a.jsonl", "a1", broken=1)
    (folder / "day=1/empty.jsonl").touch()
    (folder / "day=1/blank.csv").write_text("text\n")
    (folder / "day=1/c.csv").write_text("id,text\n7,c1\n")
    pq.write_table(pa.table({"text": ["p1", "p2"]}), folder / "day=1/p.parquet")
    upload = workshop.upload(jsonl([{"text": "u1"}]), name="u.jsonl")
    uri = folder.as_uri()
    job = plan(
        workshop,
        open_context,
        corpus={"sources": [upload, f"{uri}/day=1/*", f"{uri}/day=1/a.jsonl"]},
        model=model,
    )
    assert (job.state, job.rows_total) == (JobState.RUNNING, 8)
    found = rows(workshop, job)
    assert [(row["source"].rpartition("/")[2], row["line"], row["text"]) for row in found] == [
        (upload, 1, "u1"),
        ("a.jsonl", 1, "a1"),
        ("a.jsonl", 2, None),
        ("b.jsonl", 1, "b1"),
        ("b.jsonl", 2, "b2"),
        ("c.csv", 2, "c1"),
        ("p.parquet", 1, "p1"),
        ("p.parquet", 2, "p2"),
    ]
    assert [row["row"] for row in found] == list(range(8))
    listed = taken(workshop, job)
    assert [each.rows for each in listed] == [1, 2, 2, 0, 1, 0, 2]
    for each in listed[1:]:
        data = (folder / "day=1" / each.name.rpartition("/")[2]).read_bytes()
        assert (each.bytes, each.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    [event] = [each for each in workshop.ledger.events(job.id) if each.type == "inputs"]
    assert event.data["corpora"]["rows"]["objects"] == 7


def test_results_and_their_errors_name_the_object(
    workshop: Workshop, open_context: Context, folder: Path, model: str
) -> None:
    write(folder, "a.jsonl", "a1")
    write(folder, "b.jsonl", broken=1)
    job = plan(workshop, open_context, corpus={"uri": f"{folder.as_uri()}/"}, model=model)
    chunk = workshop.ledger.claimed(workshop.ledger.live(job.id)[0].id)
    shard = parts.read_rows(workshop.store, chunk.shard_key, offset=0, rows=2)
    schema = result_schema(chunk.spec.result_columns, width=None, with_source=True)
    part = result_table.table(shard, {}, schema=schema, earlier={}, keep_text=False)
    assert part.column_names[:4] == ["row", "line", "source", "id"]
    assert part["source"].to_pylist() == [f"{folder.as_uri()}/{name}.jsonl" for name in "ab"]
    found = result_table.errors(part)["bad_json"]
    assert (found["source"], found["line"]) == (f"{folder.as_uri()}/b.jsonl", 1)


def test_a_corpus_of_one_object_has_no_source_and_is_written_down_too(
    workshop: Workshop, open_context: Context, folder: Path, model: str
) -> None:
    write(folder, "a.jsonl", "a1")
    job = plan(workshop, open_context, corpus={"uri": f"{folder.as_uri()}/a.jsonl"}, model=model)
    assert "source" not in rows(workshop, job)[0]
    [each] = taken(workshop, job)
    assert job.corpus_fingerprint == each.version
    assert (each.rows, each.sha256 is None) == (1, False)
    assert job.spec["corpus"].keys().isdisjoint({"sources", "tag", "since", "if_empty", "min_rows"})


def test_objects_in_a_bucket_are_read_with_their_hashes(
    workshop: Workshop,
    open_context: Context,
    model: str,
    s3: S3,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    store = objects.connect(f"s3://{BUCKET}")
    for day in (1, 2):
        store.put(f"nights/day={day}/a.jsonl", jsonl([{"text": f"night {day}"}]))
    uri = f"s3://{BUCKET}/nights/day=*/*.jsonl"
    job = plan(workshop, open_context, corpus={"uri": uri}, model=model)
    assert [row["text"] for row in rows(workshop, job)] == ["night 1", "night 2"]
    digest = hashlib.sha256(store.get("nights/day=2/a.jsonl")).hexdigest()
    assert taken(workshop, job)[1].sha256 == digest


def test_a_planner_that_takes_over_reads_what_is_written_down_and_no_more(
    workshop: Workshop,
    open_context: Context,
    folder: Path,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(folder, "a.jsonl", *(f"a{n}" for n in range(20)))
    write(folder, "b.jsonl", "b1")
    job_id = workshop.ledger.accept(corpus={"uri": f"{folder.as_uri()}/*"}, model=model)
    whole = CorpusReader.batches

    def cut(reader: CorpusReader) -> Iterator[pa.RecordBatch]:
        yield from [next(whole(reader))]
        raise MemoryError("as if the kernel had ended it")

    with monkeypatch.context() as patched:
        patched.setattr(CorpusReader, "batches", cut)
        planner.plan(job_id, context=open_context)
    assert workshop.ledger.job(job_id).state is JobState.PLANNING
    write(folder, "c.jsonl", "later")
    workshop.ledger.set(job_id, step_not_before=None)
    job = planned(workshop, open_context, job_id)
    assert (job.state, job.rows_total) == (JobState.RUNNING, 21)
    assert names(workshop, job) == ["a.jsonl", "b.jsonl"]


def test_a_retry_reads_the_same_and_an_object_that_has_changed_is_an_error(
    workshop: Workshop, open_context: Context, folder: Path, model: str
) -> None:
    write(folder, "a.jsonl", "a1")
    missing = f"{model}-missing"
    job = plan(workshop, open_context, corpus={"uri": f"{folder.as_uri()}/*"}, model=missing)
    assert job.state is JobState.FAILED
    write(folder, "b.jsonl", "later")
    write(folder, "a.jsonl", "a1", "changed")
    with workshop.ledger.sessions.begin() as session:
        controls.retry(session, job.id, project_id=PROJECT)
    Path(missing).symlink_to(model)
    job = planned(workshop, open_context, job.id)
    assert error(job).startswith("corpus_changed: ")
    assert "a.jsonl has changed since this job listed it" in error(job)
    assert names(workshop, job) == ["a.jsonl"]


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ({"uri": "{folder}/*"}, "corpus_empty: {folder}/*: there are no objects"),
        ({"uri": "{folder}/none/"}, "corpus_empty: {folder}/none/: there are no objects"),
        ({"tag": "none"}, "corpus_empty: the files with the tag none: there are no objects"),
        ({"sources": ["{folder}/none.csv"]}, "corpus_unreadable: {folder}/none.csv cannot be read"),
    ],
)
def test_a_corpus_without_objects_fails_the_job(
    workshop: Workshop,
    open_context: Context,
    folder: Path,
    model: str,
    corpus: dict[str, Any],
    message: str,
) -> None:
    def named(value: Any) -> Any:
        if isinstance(value, list):
            return [named(each) for each in value]
        return value.replace("{folder}", folder.as_uri())

    filled = {name: named(value) for name, value in corpus.items()}
    job = plan(workshop, open_context, corpus=filled, model=model)
    assert job.state is JobState.FAILED
    assert error(job).startswith(message.replace("{folder}", folder.as_uri()))


def test_too_many_objects_fail_the_job(
    workshop: Workshop,
    open_context: Context,
    folder: Path,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(job_inputs, "MOST_OBJECTS", 2)
    for name in "abc":
        write(folder, f"{name}.jsonl", name)
    job = plan(workshop, open_context, corpus={"uri": f"{folder.as_uri()}/*"}, model=model)
    assert error(job).startswith("too_many_objects: a corpus has at most 2 objects")


def test_an_empty_night_is_skipped_without_a_failure(
    workshop: Workshop, open_context: Context, folder: Path, model: str
) -> None:
    write(folder, "a.jsonl", "a1", "a2")
    corpus = {"uri": f"{folder.as_uri()}/*", "if_empty": "skip", "min_rows": 3}
    job = plan(workshop, open_context, corpus=corpus, model=model)
    assert (job.state, job.error_code, job.rows_planned) == (JobState.CANCELLED, None, 0)
    assert workshop.ledger.live(job.id) == []
    assert [each.rows for each in taken(workshop, job)] == [2]
    [event] = [each for each in workshop.ledger.events(job.id) if each.type == "no_rows"]
    assert event.data["reason"].endswith("/*: 2 rows, and min_rows is 3")
    write(folder, "b.jsonl", "b1")
    job = plan(workshop, open_context, corpus=corpus, model=model)
    assert (job.state, job.rows_total) == (JobState.RUNNING, 3)


def test_a_job_that_runs_without_rows_succeeds_with_an_empty_file(
    workshop: Workshop, open_context: Context, folder: Path, model: str
) -> None:
    corpus = {"uri": f"{folder.as_uri()}/*", "if_empty": "run"}
    job = plan(workshop, open_context, corpus=corpus, model=model, output={"format": "csv"})
    assert (job.state, job.rows_total) == (JobState.RUNNING, 0)
    with workshop.ledger.sessions.begin() as session:
        assert job.id in dispatch.computed(session, limit=1_000)
    workshop.ledger.set(job.id, state=JobState.FINALIZING)
    assert finalizer.finalize(job.id, context=open_context).done
    assert workshop.ledger.job(job.id).state is JobState.SUCCEEDED
    header = workshop.store.get(workshop.file_key(job.id)).decode()
    assert header.startswith("row,line,source,id,label")


def test_no_chunk_can_be_claimed_before_there_are_enough_rows(
    workshop: Workshop, open_context: Context, folder: Path, model: str
) -> None:
    write(folder, "a.jsonl", *(f"a{n}" for n in range(30)))
    corpus = {"uri": f"{folder.as_uri()}/*", "min_rows": 31}
    job = plan(workshop, open_context, corpus=corpus, model=model)
    assert error(job).endswith("30 rows, and min_rows is 31")
    assert (job.rows_planned, training.shards(workshop, job.id)) == (0, [])


def test_a_training_job_reads_several_objects_and_names_them(
    workshop: Workshop, open_context: Context, folder: Path
) -> None:
    for name, labels in (("a", "xy"), ("b", "xyxyxy")):
        lines = [{"text": f"{name}{n}", "label": label} for n, label in enumerate(labels)]
        (folder / f"{name}.jsonl").write_bytes(jsonl([*lines, {"text": "no label"}]))
    job_id = workshop.training(corpus={"uri": f"{folder.as_uri()}/*"}, validation_share=0.4)
    job = planned(workshop, open_context, job_id)
    assert job.state is JobState.RUNNING, error(job)
    [train] = training.facts(job).splits.values()
    assert (train.rows, train.rejected) == (8, 2)
    assert [(each.source, each.line) for each in train.examples] == [
        (f"{folder.as_uri()}/a.jsonl", 3),
        (f"{folder.as_uri()}/b.jsonl", 7),
    ]
    assert [each.rows for each in taken(workshop, job, "train")] == [3, 7]


def test_a_training_job_without_enough_good_rows_is_skipped(
    workshop: Workshop, open_context: Context, folder: Path
) -> None:
    (folder / "a.jsonl").write_bytes(jsonl([{"text": "a", "label": "x"}, {"text": "b"}]))
    corpus = {"uri": f"{folder.as_uri()}/*", "if_empty": "skip", "min_rows": 2}
    job = planned(workshop, open_context, workshop.training(corpus=corpus))
    assert (job.state, job.dataset) == (JobState.CANCELLED, None)
    (folder / "a.jsonl").unlink()
    job = planned(workshop, open_context, workshop.training(corpus=corpus))
    assert (job.state, job.error_code) == (JobState.CANCELLED, None)


# Since the last success.


@pytest.fixture
def nights(
    workshop: Workshop, clockwork: Clockwork, open_context: Context, folder: Path, model: str
) -> Nights:
    corpus = {"uri": f"{folder.as_uri()}/**/*.jsonl", "since": "last_success", "if_empty": "skip"}
    return Nights(workshop, clockwork, open_context, {"corpus": corpus, "model": model})


def test_a_night_takes_what_came_since_and_a_late_object_is_taken_the_next(
    workshop: Workshop, nights: Nights, folder: Path
) -> None:
    write(folder, "day=1/a.jsonl", "a1")
    first = nights.fire()
    assert names(workshop, first) == ["a.jsonl"]
    nights.succeed(first)
    write(folder, "day=2/b.jsonl", "b1")
    write(folder, "day=1/late.jsonl", "l1")
    os.utime(folder / "day=1/late.jsonl", (1_000_000_000, 1_000_000_000))
    second = nights.fire()
    assert names(workshop, second) == ["late.jsonl", "b.jsonl"]
    nights.succeed(second)
    third = nights.fire()
    assert (third.state, names(workshop, third)) == (JobState.CANCELLED, [])
    fire = nights.clockwork.fires(nights.schedule)[-1]
    assert (fire.state, fire.to_follow) == (FireState.SKIPPED, True)
    assert "there are no new objects" in (fire.reason or "")
    nights.clockwork.turn()
    assert nights.states() == [FireState.SUCCEEDED, FireState.SUCCEEDED, FireState.SKIPPED]
    write(folder, "day=1/a.jsonl", "written again")
    assert names(workshop, nights.fire()) == ["a.jsonl"]


def test_what_a_failed_night_took_is_taken_by_the_next(
    workshop: Workshop, nights: Nights, folder: Path
) -> None:
    write(folder, "a.jsonl", "a1")
    first = nights.fire()
    nights.clockwork.end(first, failed=True)
    write(folder, "b.jsonl", "b1")
    second = nights.fire()
    assert names(workshop, second) == ["a.jsonl", "b.jsonl"]
    with workshop.ledger.sessions.begin() as session:
        controls.retry(session, first.id, project_id=PROJECT)
    assert names(workshop, workshop.ledger.job(first.id)) == ["a.jsonl"]


def test_what_a_job_under_way_has_taken_is_not_taken_twice(
    workshop: Workshop, nights: Nights, folder: Path
) -> None:
    write(folder, "a.jsonl", "a1")
    nights.fire()
    write(folder, "b.jsonl", "b1")
    assert names(workshop, nights.fire()) == ["b.jsonl"]


def test_a_deleted_job_still_has_taken_its_objects(
    workshop: Workshop, nights: Nights, folder: Path
) -> None:
    write(folder, "a.jsonl", "a1")
    first = nights.fire()
    nights.succeed(first)
    with workshop.ledger.sessions.begin() as session:
        deletions.delete_job(session, first.id, project_id=PROJECT)
    with workshop.ledger.sessions.begin() as session:
        while deletions.remove_rows(session, first.id):
            pass
        deletions.finish_job(session, first.id)
    assert names(workshop, nights.fire()) == []


def test_a_backfill_does_not_repeat_a_night_that_found_nothing(
    nights: Nights, folder: Path
) -> None:
    assert nights.fire().state is JobState.CANCELLED
    write(folder, "a.jsonl", "a1")
    since, until = at("2026-12-01 00:00"), at("2026-12-01 02:00")
    made = nights.clockwork.backfill(nights.schedule, since, until)
    assert (made.fires, made.left_out) == (0, 1)


def test_uploaded_files_are_taken_by_their_tag_once(
    workshop: Workshop, clockwork: Clockwork, open_context: Context, model: str
) -> None:
    corpus = {"tag": "nightly", "since": "last_success", "if_empty": "skip"}
    nights = Nights(workshop, clockwork, open_context, {"corpus": corpus, "model": model})
    first = workshop.upload(jsonl([{"text": "a"}]), tag="nightly")
    workshop.upload(jsonl([{"text": "other"}]), tag="weekly")
    workshop.upload(jsonl([{"text": "none"}]))
    job = nights.fire()
    assert names(workshop, job) == [first]
    nights.succeed(job)
    second = workshop.upload(jsonl([{"text": "b"}]), tag="nightly")
    job = nights.fire()
    assert names(workshop, job) == [second]
    assert [row["source"] for row in rows(workshop, job)] == [second]


# Since the last promotion.


class Registry:
    """Versions of the model that the nights train, and which of them were promoted."""

    def __init__(self, nights: Nights) -> None:
        self.nights = nights
        self.versions = 0

    def judge(self, job: Job, *, promoted: bool) -> None:
        """The job's version was registered, and compared with the champion."""
        self.versions += 1
        self.nights.clockwork.end(job)
        of_model = {"project_id": PROJECT, "name": "m"}
        with self.nights.workshop.ledger.sessions.begin() as session:
            session.merge(Model(**of_model, last_version=self.versions))
            session.flush()
            session.add(_version(self.versions, job.id))
            session.flush()
            session.add(
                Promotion(
                    **of_model,
                    alias="champion",
                    job_id=job.id,
                    version=self.versions,
                    value=0.5,
                    metric="macro_f1",
                    margin=0.0,
                    promoted=promoted,
                    reason="",
                )
            )
        if promoted:
            self.point(self.versions)

    def point(self, version: int) -> None:
        """Let the alias point there."""
        with self.nights.workshop.ledger.sessions.begin() as session:
            session.merge(
                ModelAlias(project_id=PROJECT, name="m", alias="champion", version=version)
            )


def _version(number: int, job_id: str) -> ModelVersion:
    return ModelVersion(
        project_id=PROJECT,
        name="m",
        version=number,
        task="classify",
        kind="full",
        files=[],
        bytes=1,
        sha256="0",
        metrics={},
        lineage={},
        job_id=job_id,
    )


def test_a_training_goes_back_to_what_the_champion_was_trained_on(
    fresh_database: Databases,
    tmp_path: Path,
    open_context: Context,
    folder: Path,
) -> None:
    workshop = Workshop(Ledger(fresh_database()), tmp_path / "objects")
    context = replace(open_context, sessions=workshop.ledger.sessions, store=workshop.store)
    spec = {
        "kind": "finetune",
        "model": "m",
        "architecture": "lstm",
        "promote": {"alias": "champion"},
        "corpus": {"uri": f"{folder.as_uri()}/*", "since": "last_promoted", "if_empty": "skip"},
        "validation_share": 0.5,
    }
    nights = Nights(workshop, Clockwork(workshop.ledger, at("2026-12-01 00:00")), context, spec)
    registry = Registry(nights)

    def night(name: str) -> list[str]:
        lines = [{"text": f"{name}{n}", "label": "xy"[n % 2]} for n in range(8)]
        (folder / f"{name}.jsonl").write_bytes(jsonl(lines))
        job = nights.fire()
        assert job.state is JobState.RUNNING, error(job)
        found = [each.name.rpartition("/")[2][0] for each in taken(workshop, job, "train")]
        jobs.append(job)
        return found

    jobs: list[Job] = []
    assert night("a") == ["a"]
    registry.judge(jobs[-1], promoted=True)
    assert night("b") == ["b"]
    registry.judge(jobs[-1], promoted=False)
    assert night("c") == ["b", "c"], "the rows of a rejected night are not lost"
    registry.judge(jobs[-1], promoted=True)
    assert night("d") == ["d"], "a is in the champion's past"
    registry.judge(jobs[-1], promoted=True)
    registry.point(1)
    assert night("e") == ["b", "c", "d", "e"], "what a version trained on that is not champion now"
    workshop.ledger.engine.dispose()
