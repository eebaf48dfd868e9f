"""Kinds of bulk job with tiny models, and a corpus of good rows and bad ones for all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs import kinds
from jobs.row_codes import RowCode
from jobs.settings import Settings
from jobs.states import JobState
from tests.support.installation import Installation, sentences
from tests.support.result_schemas import schema_of
from tests.support.tiny_models import sentence_files, tiny_classifier, tiny_encoder
from tests.support.tiny_pipelines import entity_finder
from tests.support.tiny_writers import tiny_generator, tiny_translator
from tests.workers.inference.builders import no_beat
from workers.inference import engine
from workers.inference.engine import RowError

NAMES = ("embed", "generate", "text2text", "pipeline", "score")
CHUNK_ROWS = 4
WIDTH = 12
NEAR = 1e-5

LONG = "the team " * 100
TEXTS = [*sentences(11), LONG, "good film", "good film", "科学家测量了遥远星系的光。"]
BAD = {
    2: ('{"text": "good', RowCode.BAD_JSON),
    5: ('{"text": "  "}', RowCode.EMPTY_TEXT),
    6: ('{"title": "good"}', RowCode.MISSING_TEXT),
    17: ("[1]", RowCode.NOT_AN_OBJECT),
}
"""By row: a bad line of the corpus, and its error code."""
BLANK_BEFORE = 10
"""A blank line stands before this row; it is no row itself."""
ROWS = len(TEXTS) + len(BAD)
GOOD = dict(zip((row for row in range(ROWS) if row not in BAD), TEXTS, strict=True))
"""Texts by row."""

Record = dict[str, Any]


@dataclass(frozen=True)
class BulkKind:
    """A kind of bulk job with a model that can do it."""

    name: str
    folder: Path
    columns: tuple[str, ...]  # of an answer
    options: Record

    def fields(self, **more: Any) -> Record:
        """The fields of a spec."""
        return {"kind": self.name, "model": str(self.folder), self.name: self.options, **more}

    def schema(self) -> pa.Schema:
        return schema_of(self.name, width=WIDTH)

    def answers(self, texts: Mapping[int, str]) -> dict[int, Record]:
        """What the engine answers for each row when it is alone in a batch."""
        spec = kinds.bulk(self.fields(corpus={"file": "file-1"}))
        model = engine.load(self.folder, spec.options, settings=Settings(worker_threads=1))
        records: dict[int, Record] = {}
        for row, text in texts.items():
            answer = model.answer({row: text}, beat=no_beat)[row]
            if isinstance(answer, RowError):
                records[row] = {"error_code": answer.code, "error_message": answer.message}
            else:
                records[row] = answer.columns() | {"error_code": None}
        return records


def with_tiny_models(home: Path) -> dict[str, BulkKind]:
    """Every kind of bulk job but classify."""
    encoder = sentence_files(
        tiny_encoder(home / "encoder"), modules=("Transformer", "Pooling", "Normalize")
    )
    reranker = tiny_classifier(home / "reranker", labels=("LABEL_0",))
    vector = ("embedding", "tokens", "truncated")
    text = ("output", "finish_reason", "tokens", "output_tokens", "truncated")
    output = ("output", "tokens", "truncated")
    score = ("score", "tokens", "truncated")
    short = {"max_new_tokens": 6}
    made = [
        BulkKind("embed", encoder, vector, {"dimensions": WIDTH, "prompt": "find: "}),
        BulkKind("generate", tiny_generator(home / "generator"), text, short),
        BulkKind("text2text", tiny_translator(home / "translator"), text, short),
        BulkKind("pipeline", entity_finder(home / "entities"), output, {"batch_rows": 1}),
        BulkKind("score", reranker, score, {"activation": "sigmoid"}),
    ]
    return {kind.name: kind for kind in made}


def corpus() -> bytes:
    """Good rows and bad ones, as JSONL."""
    return "".join(f"{line}\n" for line in _lines()).encode()


def _lines() -> Iterator[str]:
    for row in range(ROWS):
        if row == BLANK_BEFORE:
            yield ""
        yield BAD[row][0] if row in BAD else json.dumps({"text": GOOD[row]})


def ended(
    installation: Installation, job_id: str, state: JobState = JobState.SUCCEEDED
) -> list[Record]:
    """The results of the job when it has ended in this state."""
    view = installation.wait(job_id, seconds=240)
    assert view.job.state is state, f"{view.job.error_message} {installation.logs()}"
    return installation.results(job_id)


def succeeded(installation: Installation, kind: BulkKind, **output: Any) -> str:
    """A job over the corpus that has succeeded; ``output`` is the spec's."""
    fields = kind.fields(chunk_rows=CHUNK_ROWS, output={"keep_text": True, **output})
    job_id = installation.submit(corpus(), **fields)
    ended(installation, job_id)
    return job_id


def output_file(installation: Installation, job_id: str) -> bytes:
    output = installation.job(job_id).job.output
    assert output is not None
    return installation.store.get(output["file"])


def assert_same(record: Record, expected: Record) -> None:
    """Equal in every column of ``expected``; vectors and scores may differ by rounding."""
    for name, value in expected.items():
        if name in {"embedding", "score"} and value is not None:
            assert np.abs(np.asarray(record[name]) - np.asarray(value)).max() < NEAR
        else:
            assert record[name] == value


def assert_answers(records: Sequence[Record], kind: BulkKind, texts: Mapping[int, str]) -> None:
    """Each record is what the engine answers for its text alone."""
    own = {record["row"]: texts[record["row"]] for record in records if record["row"] in texts}
    expected = kind.answers(own)
    for record in records:
        if record["row"] in expected:
            assert_same(record, expected[record["row"]])
