"""Bulk jobs of every kind but classify, in a whole installation: every row in, one result out."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from jobs import kinds as specs
from jobs.kinds import ClassifyOptions, GenerateOptions, ScoreOptions
from jobs.ledger import controls
from jobs.queries import chunks
from jobs.results import parts
from jobs.results.schemas import RowCode
from jobs.settings import Settings
from jobs.states import JobState
from jobs.tables import ResultRow
from tests.support.installation import PROJECT, Installation, jsonl, sentences
from tests.support.result_schemas import schema_of
from tests.support.servers import Databases, Server
from tests.support.tiny_models import sentence_files, tiny_classifier, tiny_encoder
from tests.support.tiny_pipelines import entity_finder
from tests.support.tiny_writers import tiny_generator, tiny_translator
from tests.support.waiting import wait_until
from tests.workers.inference.builders import no_beat
from workers.inference import engine
from workers.inference.batching.tokenization import PairedText
from workers.inference.engine import RowError
from workers.inference.tasks.classifier import Prediction

WIDTH = 12
NEAR = 1e-5
OF_A_VECTOR = ("embedding", "tokens", "truncated")
OF_A_PIPELINE = ("output", "tokens", "truncated")
OF_A_SCORE = ("score", "tokens", "truncated")
OF_A_TEXT = ("output", "finish_reason", "tokens", "output_tokens", "truncated")

LONG = "the team " * 100
TEXTS = [*sentences(11), LONG, "good film", "good film", "科学家测量了遥远星系的光。"]
BAD = {
    2: ('{"text": "good', RowCode.BAD_JSON),
    5: ('{"text": "  "}', RowCode.EMPTY_TEXT),
    6: ('{"title": "good"}', RowCode.MISSING_TEXT),
    17: ("[1]", RowCode.NOT_AN_OBJECT),
}
"""By row: a line of the corpus that cannot be done, and what comes of it."""

Record = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A kind of bulk job with a model that can do it."""

    name: str
    folder: Path
    columns: tuple[str, ...]  # of a row's answer
    options: Record

    def fields(self, **more: Any) -> Record:
        """Of a spec."""
        return {"kind": self.name, "model": str(self.folder), self.name: self.options, **more}

    def schema(self) -> pa.Schema:
        return schema_of(self.name, width=WIDTH)

    def answers(self, texts: Mapping[int, str]) -> dict[int, Record]:
        """What the engine says of each row alone."""
        spec = specs.bulk(self.fields(corpus={"file": "file-1"}))
        model = engine.load(self.folder, spec.options, settings=Settings(worker_threads=1))
        found: dict[int, Record] = {}
        for row, text in texts.items():
            answer = model.answer({row: text}, beat=no_beat)[row]
            if isinstance(answer, RowError):
                found[row] = {"error_code": answer.code, "error_message": answer.message}
            else:
                found[row] = answer.columns() | {"error_code": None}
        return found


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kind]:
    home = tmp_path_factory.mktemp("models")
    encoder = sentence_files(
        tiny_encoder(home / "encoder"), modules=("Transformer", "Pooling", "Normalize")
    )
    reranker = tiny_classifier(home / "reranker", labels=("LABEL_0",))
    writing = {"max_new_tokens": 6}
    every = [
        Kind("embed", encoder, OF_A_VECTOR, {"dimensions": WIDTH, "prompt": "find: "}),
        Kind("generate", tiny_generator(home / "generator"), OF_A_TEXT, writing),
        Kind("text2text", tiny_translator(home / "translator"), OF_A_TEXT, writing),
        Kind("pipeline", entity_finder(home / "entities"), OF_A_PIPELINE, {"batch_rows": 1}),
        Kind("score", reranker, OF_A_SCORE, {"activation": "sigmoid"}),
    ]
    return {kind.name: kind for kind in every}


@pytest.fixture(scope="module", params=["embed", "generate", "text2text", "pipeline", "score"])
def kind(request: pytest.FixtureRequest, kinds: dict[str, Kind]) -> Kind:
    return kinds[request.param]


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory,
    fresh_database: Databases,
    valkey: Server,
    kinds: dict[str, Kind],
) -> Iterator[Installation]:
    installation = Installation(
        database_url=fresh_database(),
        redis_url=valkey.url,
        home=tmp_path_factory.mktemp("installation"),
        model=kinds["embed"].folder,
        worker_threads=1,
    )
    with installation.running("control", "planner", "pool"):
        yield installation


def lines() -> Iterator[str]:
    """A corpus of good rows and bad ones; a blank line is no row."""
    good = iter(TEXTS)
    for row in range(len(TEXTS) + len(BAD)):
        if row == 10:
            yield ""
        bad = BAD.get(row)
        yield bad[0] if bad else json.dumps({"text": next(good)})


CORPUS = "".join(f"{line}\n" for line in lines()).encode()
ROWS = len(TEXTS) + len(BAD)
GOOD = dict(zip((row for row in range(ROWS) if row not in BAD), TEXTS, strict=True))


def ended(installation: Installation, job_id: str, state: JobState = JobState.SUCCEEDED) -> None:
    view = installation.wait(job_id, seconds=240)
    assert view.job.state is state, f"{view.job.error_message} {installation.logs()}"


def finished(installation: Installation, kind: Kind, **output: Any) -> str:
    """A job over the corpus of good rows and bad ones that has succeeded."""
    fields = kind.fields(chunk_rows=4, output={"keep_text": True, **output})
    job_id = installation.submit(CORPUS, **fields)
    ended(installation, job_id)
    return job_id


@pytest.fixture(scope="module")
def job_id(installation: Installation, kind: Kind) -> str:
    """Such a job, with a single file and with rows in Postgres."""
    return finished(installation, kind, format="parquet", postgres=True)


def file_of(installation: Installation, job_id: str) -> bytes:
    output = installation.job(job_id).job.output
    assert output is not None
    return installation.store.get(output["file"])


def assert_same(found: Record, expected: Record) -> None:
    """Texts and counts are equal, vectors and scores but for rounding."""
    for name, value in expected.items():
        if name in {"embedding", "score"} and value is not None:
            assert np.abs(np.asarray(found[name]) - np.asarray(value)).max() < NEAR
        else:
            assert found[name] == value


def assert_answers(found: list[Record], kind: Kind, texts: Mapping[int, str]) -> None:
    expected = kind.answers(texts)
    for record in found:
        if record["row"] in expected:
            assert_same(record, expected[record["row"]])


def test_every_row_has_one_result_and_a_bad_one_says_what_it_is(
    installation: Installation, kind: Kind, job_id: str
) -> None:
    found = installation.results(job_id)
    assert [record["row"] for record in found] == list(range(ROWS))
    assert [record["line"] for record in found] == [
        row + (1 if row < 10 else 2) for row in range(ROWS)
    ]
    for row, (_, code) in BAD.items():
        assert found[row]["error_code"] == code
        assert found[row]["error_message"]
        assert {found[row][name] for name in kind.columns} == {None}
    assert {record["row"]: record["text"] for record in found if record["text"]} == GOOD
    assert_answers(found, kind, GOOD)
    report = installation.verify(job_id)
    assert (report.problems, report.rows_output, report.missing) == ((), ROWS, 0)
    assert report.rows_failed == sum(record["error_code"] is not None for record in found)


def test_the_schema_of_every_part_is_that_of_the_kind(
    installation: Installation, kind: Kind, job_id: str
) -> None:
    with installation.sessions.begin() as session:
        done = list(chunks.done_parts(session, job_id))
    assert len(done) == -(-ROWS // 4)
    for part in done:
        assert parts.read(installation.store, part).schema.equals(kind.schema())


def assert_file(installation: Installation, job_id: str, found: list[Record]) -> None:
    assert found == installation.results(job_id)
    assert installation.verify(job_id).problems == ()


def test_the_single_file_holds_every_row_of_the_parts(
    installation: Installation, kind: Kind, job_id: str
) -> None:
    table = pq.read_table(io.BytesIO(file_of(installation, job_id)))
    assert table.schema.equals(kind.schema())
    assert_file(installation, job_id, table.to_pylist())


def test_so_it_does_as_jsonl(installation: Installation, kind: Kind) -> None:
    job_id = finished(installation, kind, format="jsonl")
    content = file_of(installation, job_id).decode()
    assert_file(installation, job_id, [json.loads(line) for line in content.splitlines()])


def test_so_it_does_as_csv(installation: Installation, kind: Kind) -> None:
    job_id = finished(installation, kind, format="csv")
    content = io.StringIO(file_of(installation, job_id).decode(), newline="")
    expected = [as_in_csv(record) for record in installation.results(job_id)]
    assert list(csv.DictReader(content)) == expected
    assert installation.verify(job_id).problems == ()


def as_in_csv(record: Record) -> Record:
    """Vectors are JSON; null and the empty text are the same there."""
    return {
        name: json.dumps(value)
        if isinstance(value, list)
        else ("" if value is None else str(value))
        for name, value in record.items()
    }


def test_embeddings_are_a_matrix_for_who_reads_the_file(
    installation: Installation, kinds: dict[str, Kind]
) -> None:
    job_id = finished(installation, kinds["embed"], format="parquet")
    table = pq.read_table(io.BytesIO(file_of(installation, job_id)))
    column = table["embedding"].combine_chunks().drop_null()
    matrix = column.flatten().to_numpy().reshape(len(column), -1)
    assert matrix.shape == (len(GOOD), WIDTH)
    assert np.abs(np.linalg.norm(matrix, axis=1) - 1).max() < NEAR


def test_result_rows_arrive_in_postgres(
    installation: Installation, kind: Kind, job_id: str
) -> None:
    wanted = sa.select(ResultRow.__table__).where(ResultRow.job_id == job_id).order_by("row")
    with installation.sessions.begin() as session:
        found = [dict(record) for record in session.execute(wanted).mappings()]
    expected = installation.results(job_id)
    assert len(found) == len(expected) == ROWS
    names = ("row", "id", "error_code", "error_message", *kind.columns)
    for record, part in zip(found, expected, strict=True):
        assert_same(record, {name: part[name] for name in names})


def test_a_retry_keeps_the_answers_that_are_there(installation: Installation, kind: Kind) -> None:
    job_id = finished(installation, kind)
    before = installation.results(job_id)
    with installation.sessions.begin() as session:
        assert controls.retry(session, job_id, project_id=PROJECT) >= len({row // 4 for row in BAD})
    ended(installation, job_id)
    assert installation.results(job_id) == before
    assert installation.verify(job_id).problems == ()


MANY = list(sentences(150))


def running(installation: Installation, kind: Kind) -> str:
    """A job of 50 chunks of which some are done."""
    job_id = installation.submit(jsonl(MANY), **kind.fields(chunk_rows=3))
    installation.wait_for_chunks(job_id, 5)
    return job_id


def test_a_job_that_is_cancelled_keeps_whole_parts(installation: Installation, kind: Kind) -> None:
    job_id = running(installation, kind)
    with installation.sessions.begin() as session:
        controls.cancel(session, job_id, project_id=PROJECT)
    ended(installation, job_id, JobState.CANCELLED)
    report = installation.verify(job_id)
    assert report.problems == ()
    assert 15 <= report.rows_output < len(MANY)
    assert report.rows_output + report.missing == len(MANY)
    with installation.sessions.begin() as session:
        sizes = {part.rows for part in chunks.done_parts(session, job_id)}
    assert sizes == {3}
    texts = dict(enumerate(MANY))
    found = installation.results(job_id)
    assert_answers(found, kind, {record["row"]: texts[record["row"]] for record in found[:9]})


def test_a_job_that_is_paused_and_resumed_has_the_same_answers(
    installation: Installation, kind: Kind
) -> None:
    job_id = running(installation, kind)
    with installation.sessions.begin() as session:
        controls.pause(session, job_id, project_id=PROJECT)
    wait_until(lambda: not installation.leased(job_id), seconds=30)
    view = installation.job(job_id)
    assert view.job.state is JobState.PAUSED
    assert view.counts.done < len(MANY) // 3
    with installation.sessions.begin() as session:
        controls.resume(session, job_id, project_id=PROJECT)
    ended(installation, job_id)
    found = installation.results(job_id)
    assert [record["row"] for record in found] == list(range(len(MANY)))
    assert_answers(found, kind, dict(enumerate(MANY)))
    assert installation.verify(job_id).problems == ()


def with_beside(column: str, values: list[Any]) -> bytes:
    texts = [*TEXTS[: len(values) - 1], "good film"]
    found = zip(texts, values, strict=True)
    return "".join(
        json.dumps({"text": text, column: value}) + "\n" for text, value in found
    ).encode()


def test_pairs_of_texts_are_classified(installation: Installation, tmp_path: Path) -> None:
    folder = tiny_classifier(tmp_path / "model", labels=("follows", "does not"))
    claims = ["the team won", "a phone", None, "the team won", " ", "a phone"]
    job_id = installation.submit(
        with_beside("claim", claims),
        model=str(folder),
        kind="classify",
        corpus_fields={"pair_column": "claim"},
        chunk_rows=2,
    )
    ended(installation, job_id)
    found = installation.results(job_id)
    errors = [record["error_code"] for record in found]
    assert errors == [None, None, RowCode.MISSING_TEXT, None, RowCode.EMPTY_TEXT, None]
    model = engine.load(folder, ClassifyOptions(), settings=Settings(worker_threads=1))
    for row in (0, 1, 3, 5):
        text = "good film" if row == len(claims) - 1 else TEXTS[row]
        [expected] = model.classify([PairedText(text, str(claims[row]))], beat=no_beat)
        assert isinstance(expected, Prediction)
        assert found[row]["label"] == expected.labels[0]
        assert found[row]["tokens"] == expected.tokens
    report = installation.verify(job_id)
    assert (report.problems, report.rows_output, report.missing) == ((), len(claims), 0)


def test_pairs_of_texts_are_scored(installation: Installation, kinds: dict[str, Kind]) -> None:
    kind = kinds["score"]
    passages = ["the team won", None, "a phone", " ", "the team won"]
    job_id = installation.submit(
        with_beside("passage", passages),
        **kind.fields(chunk_rows=2, corpus_fields={"pair_column": "passage"}),
    )
    ended(installation, job_id)
    found = installation.results(job_id)
    errors = [record["error_code"] for record in found]
    assert errors == [None, RowCode.MISSING_TEXT, None, RowCode.EMPTY_TEXT, None]
    model = engine.load(
        kind.folder, ScoreOptions(**kind.options), settings=Settings(worker_threads=1)
    )
    for row in (0, 2, 4):
        text = "good film" if row == len(passages) - 1 else TEXTS[row]
        answer = model.answer({row: PairedText(text, str(passages[row]))}, beat=no_beat)[row]
        assert not isinstance(answer, RowError)
        assert_same(found[row], answer.columns())
    assert installation.verify(job_id).problems == ()


def test_rows_generate_with_settings_of_their_own(
    installation: Installation, kinds: dict[str, Kind]
) -> None:
    kind = kinds["generate"]
    asked: list[Any] = [{"max_new_tokens": 2}, {"temperature": 0.9, "seed": 3}, None, "{", {"a": 1}]
    job_id = installation.submit(
        with_beside("how", asked),
        **kind.fields(chunk_rows=2, corpus_fields={"settings_column": "how"}),
    )
    ended(installation, job_id)
    found = installation.results(job_id)
    bad = RowCode.BAD_SETTINGS
    assert [record["error_code"] for record in found] == [None, None, None, bad, bad]
    options = GenerateOptions(**kind.options)
    for row, own in enumerate(asked[:3]):
        settled = options.of_row(json.dumps(own or {}))
        alone = engine.load(kind.folder, settled, settings=Settings(worker_threads=1))
        answer = alone.answer({row: TEXTS[row]}, beat=no_beat)[row]
        assert not isinstance(answer, RowError)
        assert_same(found[row], answer.columns())
    assert found[0]["output_tokens"] <= 2
    assert installation.verify(job_id).problems == ()
