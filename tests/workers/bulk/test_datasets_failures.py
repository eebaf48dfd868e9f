"""Data and models that cannot be trained on fail the job before any run, and leave no shards."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.states import JobState
from tests.workers.bulk.conftest import Workshop, jsonl
from tests.workers.bulk.training import (
    GOOD,
    InterruptedStore,
    corpus,
    failure,
    labels,
    model,
    planned,
)
from workers.bulk import planner
from workers.context import Context

FAILURES: list[tuple[dict[str, Any], str]] = [
    ({"corpus": labels("x", "x")}, "one_label: .*at least 2 different labels, and all 2 have 'x'"),
    (
        {"corpus": [{"text": "a", "labels": []}] * 2, "multi_label": True},
        "one_label: .*at least 1 different label, and they have none",
    ),
    ({"corpus": labels("x", "y")}, "split_empty: validation_share 0.1 of 2 rows leaves the split"),
    ({"corpus": [{"text": "a"}], "task": "generate"}, "split_empty: .*of 1 rows.*validation empty"),
    (
        {"corpus": GOOD, "test": [{"text": "", "label": "x"}] * 3},
        "split_empty: the test corpus .*all 3 are rejected, the first, on line 1, because: the",
    ),
    ({"corpus": GOOD, "test": b"[\n" + b"nope\n" * 3}, "corpus_unreadable: .*not JSONL"),
    ({"corpus": GOOD, "test": b"nope\n" * 3}, "split_empty: .*line 1: Expecting value"),
    ({"corpus": GOOD, "test": b"\n"}, "corpus_empty: a.jsonl holds no rows"),
    (
        {"corpus": GOOD, "validation": [*GOOD, *labels("wrold")]},
        "unknown_label: line 31 of the validation corpus has the label 'wrold', .*'sports', 'wor",
    ),
    ({"corpus": GOOD, "test": labels("x")}, "unknown_label: line 1 of the test corpus"),
    (
        {"corpus": [{"text": f"a {n}", "label": f"{n}"} for n in range(10_001)]},
        "too_many_labels: .*looks like free text: it has more than 10,000 different labels",
    ),
    ({"corpus": [{"text": "a", "x": "1", "y": "2"}]}, "column_missing: .*pass target_column"),
    ({"corpus": GOOD, "base": "/nowhere"}, "model_missing: there is no model folder /nowhere"),
]


@pytest.mark.parametrize(("fields", "pattern"), FAILURES)
def test_data_that_cannot_be_trained_on_fails_with_a_reason(
    workshop: Workshop, context: Context, fields: dict[str, Any], pattern: str
) -> None:
    message = failure(workshop, context, **fields)
    assert_matches(message, pattern)


def test_a_label_that_only_the_promotion_corpus_has_is_named(
    workshop: Workshop, context: Context
) -> None:
    named = corpus(workshop, labels("sports", "x"))
    message = failure(workshop, context, corpus=GOOD, promote={"corpus": named})
    assert_matches(message, "unknown_label: line 2 of the promotion corpus has the label 'x'")


def test_a_label_that_an_evaluated_model_lacks_is_named(
    workshop: Workshop, context: Context
) -> None:
    folder = model(context, labels=("sports", "world"))
    message = failure(workshop, context, "evaluate", corpus=GOOD, model=folder)
    assert_matches(
        message, "unknown_label: line 2 of the test corpus has the label '体育', which the model"
    )


def test_a_model_without_names_for_its_labels_has_those_of_transformers(
    workshop: Workshop, context: Context
) -> None:
    folder = model(context, labels=None)
    rows = labels("LABEL_0", "LABEL_1")
    assert planned(workshop, context, "evaluate", corpus=rows, model=folder).state == "running"


def test_booleans_match_the_labels_of_a_model_in_any_spelling(
    workshop: Workshop, context: Context
) -> None:
    folder = model(context, labels=("FALSE", "TRUE"))
    rows = [{"text": "a", "label": True}, {"text": "b", "label": "False"}]
    assert planned(workshop, context, "evaluate", corpus=rows, model=folder).state == "running"


def test_a_model_without_a_head_is_not_evaluated_as_a_classifier(
    workshop: Workshop, context: Context
) -> None:
    folder = model(context, labels=None, architecture="BertModel")
    message = failure(workshop, context, "evaluate", corpus=GOOD, model=folder)
    assert_matches(message, "model_has_no_head")


def test_a_base_needs_no_head(workshop: Workshop, context: Context) -> None:
    folder = model(context, labels=None, architecture="BertModel")
    job = planned(workshop, context, corpus=GOOD, base=folder)
    assert job.state is JobState.RUNNING
    assert len(job.model_digest or "") == 64


def _without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _as_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _cut_short(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (_without_tokenizer, "model_no_tokenizer"),
        (_as_pickle, "model_not_safetensors"),
        (_cut_short, "model_unreadable"),
    ],
)
def test_a_base_that_cannot_be_used_fails_before_any_run(
    workshop: Workshop, context: Context, damage: Callable[[Path], None], code: str
) -> None:
    folder = model(context, labels=("a", "b"))
    damage(Path(folder))
    assert_matches(failure(workshop, context, corpus=GOOD, base=folder), code)


def test_a_corpus_that_changes_while_it_is_read_fails(
    workshop: Workshop, context: Context, tmp_path: Path
) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(jsonl(GOOD))
    settings = context.settings.model_copy(update={"allowed_inputs": [tmp_path.as_uri()]})
    store = InterruptedStore(workshop, then=lambda: path.write_bytes(jsonl(GOOD[:3])))
    job_id = workshop.training(corpus={"uri": path.as_uri()})
    planner.plan(job_id, context=Context(settings, workshop.ledger.sessions, store))
    job = workshop.ledger.job(job_id)
    assert_matches(
        f"{job.error_code}: {job.error_message}",
        "corpus_changed: .*has changed since this job listed it",
    )


def assert_matches(message: str, pattern: str) -> None:
    assert re.search(pattern, message, re.DOTALL), message
