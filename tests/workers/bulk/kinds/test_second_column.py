"""A corpus whose second column is the other text of a pair, or the settings of its row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from jobs.kinds import ClassifyOptions, GenerateOptions, ScoreOptions
from jobs.row_codes import RowCode
from jobs.settings import Settings
from tests.support.installation import Installation
from tests.support.tiny_models import tiny_classifier
from tests.workers.bulk.kinds.bulk_kind import TEXTS, BulkKind, Record, assert_same, ended
from tests.workers.inference.builders import no_beat
from workers.inference import engine
from workers.inference.batching.tokenization import PairedText
from workers.inference.engine import RowError
from workers.inference.tasks.classifier import Prediction

CLAIMS = ["the team won", "a phone", None, "the team won", " ", "a phone"]
PASSAGES = ["the team won", None, "a phone", " ", "the team won"]
SETTINGS: list[Any] = [
    {"max_new_tokens": 2},
    {"temperature": 0.9, "seed": 3},
    None,
    "{",
    {"a": 1},
]


def corpus(column: str, values: Sequence[Any]) -> bytes:
    rows = [{"text": text, column: value} for text, value in zip(TEXTS, values, strict=False)]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_classifier(tmp_path_factory.mktemp("pairs"), labels=("follows", "does not"))


@pytest.fixture(scope="module")
def pairs_job(installation: Installation, classifier: Path) -> str:
    job_id = installation.submit(
        corpus("claim", CLAIMS),
        model=str(classifier),
        kind="classify",
        corpus_fields={"pair_column": "claim"},
        chunk_rows=2,
    )
    ended(installation, job_id)
    return job_id


@pytest.fixture(scope="module")
def pairs(installation: Installation, pairs_job: str) -> list[Record]:
    return installation.results(pairs_job)


def test_a_pair_without_a_second_text_is_a_row_error(pairs: list[Record]) -> None:
    errors = [record["error_code"] for record in pairs]
    assert errors == [None, None, RowCode.MISSING_TEXT, None, RowCode.EMPTY_TEXT, None]


@pytest.mark.parametrize("row", [0, 1, 3, 5])
def test_a_pair_has_the_label_that_it_gets_alone(
    pairs: list[Record], classifier: Path, row: int
) -> None:
    model = engine.load(classifier, ClassifyOptions(), settings=Settings(worker_threads=1))
    [expected] = model.classify([PairedText(TEXTS[row], str(CLAIMS[row]))], beat=no_beat)
    assert isinstance(expected, Prediction)
    assert (pairs[row]["label"], pairs[row]["tokens"]) == (expected.labels[0], expected.tokens)


def test_verification_finds_every_pair(installation: Installation, pairs_job: str) -> None:
    report = installation.verify(pairs_job)
    assert (report.problems, report.rows_output, report.missing) == ((), len(CLAIMS), 0)


@pytest.fixture(scope="module")
def scored(installation: Installation, kinds: dict[str, BulkKind]) -> list[Record]:
    job_id = installation.submit(
        corpus("passage", PASSAGES),
        **kinds["score"].fields(chunk_rows=2, corpus_fields={"pair_column": "passage"}),
    )
    records = ended(installation, job_id)
    assert installation.verify(job_id).problems == ()
    return records


def test_a_score_without_a_second_text_is_a_row_error(scored: list[Record]) -> None:
    errors = [record["error_code"] for record in scored]
    assert errors == [None, RowCode.MISSING_TEXT, None, RowCode.EMPTY_TEXT, None]


@pytest.mark.parametrize("row", [0, 2, 4])
def test_a_pair_has_the_score_that_it_gets_alone(
    scored: list[Record], kinds: dict[str, BulkKind], row: int
) -> None:
    kind = kinds["score"]
    options = ScoreOptions(**kind.options)
    model = engine.load(kind.folder, options, settings=Settings(worker_threads=1))
    pair = PairedText(TEXTS[row], str(PASSAGES[row]))
    answer = model.answer({row: pair}, beat=no_beat)[row]
    assert not isinstance(answer, RowError)
    assert_same(scored[row], answer.columns())


@pytest.fixture(scope="module")
def settings_job(installation: Installation, kinds: dict[str, BulkKind]) -> str:
    """Texts of which each is generated with settings of its own."""
    job_id = installation.submit(
        corpus("how", SETTINGS),
        **kinds["generate"].fields(chunk_rows=2, corpus_fields={"settings_column": "how"}),
    )
    ended(installation, job_id)
    return job_id


@pytest.fixture(scope="module")
def generated(installation: Installation, settings_job: str) -> list[Record]:
    return installation.results(settings_job)


def test_settings_that_cannot_be_read_are_a_row_error(generated: list[Record]) -> None:
    errors = [record["error_code"] for record in generated]
    assert errors == [None, None, None, RowCode.BAD_SETTINGS, RowCode.BAD_SETTINGS]


@pytest.mark.parametrize("row", [0, 1, 2])
def test_a_row_is_generated_with_its_own_settings(
    generated: list[Record], kinds: dict[str, BulkKind], row: int
) -> None:
    kind = kinds["generate"]
    options = GenerateOptions(**kind.options).of_row(json.dumps(SETTINGS[row] or {}))
    model = engine.load(kind.folder, options, settings=Settings(worker_threads=1))
    answer = model.answer({row: TEXTS[row]}, beat=no_beat)[row]
    assert not isinstance(answer, RowError)
    assert_same(generated[row], answer.columns())


def test_a_row_generates_no_more_tokens_than_its_settings_allow(generated: list[Record]) -> None:
    assert generated[0]["output_tokens"] <= 2


def test_verification_finds_every_generated_row(
    installation: Installation, settings_job: str
) -> None:
    assert installation.verify(settings_job).problems == ()
