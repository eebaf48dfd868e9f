"""Promise P4: an exception of a batch is traced to its rows, within one lease."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from jobs.errors import LeaseLost, ModelFailure
from jobs.kinds import EmbedOptions, GenerateOptions, Options
from jobs.row_codes import RowCode
from jobs.settings import Settings
from tests.support import bad_models
from tests.workers.inference.builders import answers, no_beat, predictions
from workers.inference import engine, row_isolation
from workers.inference.batching.forward import RowError
from workers.inference.batching.token_budget import BatchWork, TokenBudget
from workers.inference.row_isolation import MIN_EQUAL_ERRORS, DeviceFailed, FaultTally
from workers.inference.tasks.classifier import Prediction

ONE = Settings(worker_threads=1)


def answers_of(folder: Path, options: Options, rows: Mapping[int, Any]) -> dict[int, Any]:
    return dict(engine.load(folder, options, settings=ONE).answer(rows, beat=no_beat))


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 400), max_size=60),
    st.sets(st.integers(0, 59), max_size=8),
    st.integers(50, 2_000),
)
def test_only_items_that_raise_alone_fail(lengths: list[int], bad: set[int], budget: int) -> None:
    done: set[int] = set()
    failed: dict[int, str] = {}

    def run(batch: list[int]) -> None:
        if bad & set(batch):
            raise ValueError("this item raises")
        done.update(batch)

    work: BatchWork[int] = BatchWork(
        length=lambda item: lengths[item],
        run=run,
        refuse=done.add,
        fail=failed.__setitem__,
        beat=no_beat,
        finish=no_beat,
    )
    TokenBudget(budget).run(range(len(lengths)), work)
    assert done == set(range(len(lengths))) - bad
    assert failed.keys() == bad & set(range(len(lengths)))
    assert all("ValueError: this item raises" in message for message in failed.values())


@pytest.mark.parametrize(
    "error",
    [LeaseLost("taken"), KeyboardInterrupt(), GeneratorExit(), SystemExit(-241)],
    ids=lambda error: type(error).__name__,
)
def test_what_is_no_rows_fault_is_raised_again(error: BaseException) -> None:
    with pytest.raises(type(error)):
        row_isolation.check(error)


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), RecursionError(), OSError("x")])
def test_whatever_else_a_library_raises_may_be_a_rows_fault(error: BaseException) -> None:
    row_isolation.check(error)


def test_an_error_of_the_device_ends_the_work() -> None:
    with pytest.raises(DeviceFailed, match="device-side assert"):
        row_isolation.check(RuntimeError("CUDA error: device-side assert triggered"))


def test_what_ends_the_work_ends_it_through_a_library_as_well() -> None:
    def stop() -> None:
        raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped") as caught:
        row_isolation.ends_work(stop)()
    with pytest.raises(ValueError, match="stopped"):
        row_isolation.check(caught.value)


@pytest.mark.parametrize(
    ("succeeded", "raised"),
    [
        (0, ["E: of 3"] * (MIN_EQUAL_ERRORS - 1)),
        (0, ["E: one", "E: other"] * (MIN_EQUAL_ERRORS - 1)),
        (1, ["E: of 3"] * MIN_EQUAL_ERRORS),
        (100, ["E: of 3"] * 1_000),
    ],
)
def test_the_faults_are_the_rows_where_few_raise_or_each_its_own(
    succeeded: int, raised: list[str]
) -> None:
    tally = FaultTally("the model")
    tally.succeeded(succeeded)
    messages = [tally.raised(why) for why in raised]
    assert [why in message for why, message in zip(raised, messages, strict=True)]


@pytest.mark.parametrize(
    ("succeeded", "raised"),
    [
        (0, [f"E: of {number}" for number in range(MIN_EQUAL_ERRORS)]),  # alike, but for numbers
        (1, ["E: of 3"] * 21),
    ],
)
def test_the_fault_is_the_models_where_nearly_all_rows_raise_alike(
    succeeded: int, raised: list[str]
) -> None:
    tally = FaultTally("the model")
    tally.succeeded(succeeded)
    for why in raised[:-1]:
        tally.raised(why)
    with pytest.raises(ModelFailure, match="E: of") as caught:
        tally.raised(raised[-1])
    assert caught.value.code == "model_raises"


def test_rows_that_raise_only_together_have_the_labels_that_each_has_alone(tmp_path: Path) -> None:
    folder = bad_models.bart_classifier(tmp_path / "model")
    texts = bad_models.texts(40)
    texts[3::10] = ["was <s> w1 </s> now w2", "</s> w3 </s>", "w1 </s>", "w4 </s> w5"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    alone = [int(model(**tokenizer(text, return_tensors="pt")).logits.argmax()) for text in texts]
    labels = [each.labels[0] for each in predictions(folder, texts)]
    assert labels == [f"LABEL_{label}" for label in alone]
    assert len(set(labels)) > 1


def test_a_row_on_which_the_tokenizer_panics_is_the_only_error_row(tmp_path: Path) -> None:
    folder = bad_models.panicking(tmp_path / "model")
    texts = bad_models.texts(30)
    texts[17] = f"w1 {bad_models.PANICS}"
    results = answers(folder, texts)
    errors = {row: each for row, each in enumerate(results) if isinstance(each, RowError)}
    assert errors.keys() == {17}
    assert errors[17].code is RowCode.ROW_FAILED
    assert "PanicException" in errors[17].message
    assert sum(isinstance(each, Prediction) for each in results) == 29


def test_a_prompt_on_which_the_tokenizer_panics_is_the_only_error_row(tmp_path: Path) -> None:
    folder = bad_models.panicking(tmp_path / "model", bad_models.llama)
    rows = dict(enumerate(bad_models.texts(10))) | {4: bad_models.PANICS}
    results = answers_of(folder, GenerateOptions(max_new_tokens=3), rows)
    errors = {row: each for row, each in results.items() if isinstance(each, RowError)}
    assert [(row, each.code) for row, each in errors.items()] == [(4, RowCode.ROW_FAILED)]


@pytest.mark.parametrize(
    ("body", "message"),
    [("1 / 0", "ZeroDivisionError"), ("messages[9].content.x.y", "")],
)
def test_a_template_that_raises_for_a_row_harms_that_row_alone(
    tmp_path: Path, body: str, message: str
) -> None:
    template = (
        "{% for message in messages %}{% if 'w39' in message['content'] %}{{ "
        + body
        + " }}{% endif %}{{ message['content'] }}{% endfor %}"
    )
    folder = bad_models.llama(tmp_path / "model", template=template)
    rows = {0: "w1 w2", 1: "w39", 2: "w3"}
    results = answers_of(folder, GenerateOptions(max_new_tokens=3), rows)
    errors = {row: each for row, each in results.items() if isinstance(each, RowError)}
    assert errors.keys() == {1}
    assert message in errors[1].message


def test_a_prompt_on_which_the_model_raises_is_the_only_error_row(tmp_path: Path) -> None:
    folder = bad_models.llama(tmp_path / "model")
    generator: Any = engine.load(folder, GenerateOptions(max_new_tokens=3), settings=ONE)
    model = generator._generator._decoder._model
    forward = model.model.embed_tokens.forward

    def raising(ids: Any) -> Any:
        if (ids == bad_models.VOCABULARY - 1).any():
            raise IndexError("index out of range in self")
        return forward(ids)

    model.model.embed_tokens.forward = raising
    clean = generator.answer(dict(enumerate(bad_models.texts(20))), beat=no_beat)
    bad = {row for row, text in enumerate(bad_models.texts(20)) if "w39" in text.split()}
    errors = {row for row, each in clean.items() if isinstance(each, RowError)}
    assert bad
    assert bad <= errors  # others may generate that token
    assert len(errors) < 20
    assert {clean[row].code for row in errors} == {RowCode.ROW_FAILED}


def test_a_model_that_raises_for_every_row_fails_its_job_after_a_few(tmp_path: Path) -> None:
    folder = bad_models.bert(tmp_path / "model")
    classifier: Any = engine.load(folder, EmbedOptions(), settings=ONE)
    calls = 0

    def raising(_: Any) -> Any:
        nonlocal calls
        calls += 1
        raise IndexError("index out of range in self")

    classifier._chunk_runner._runner.head.forward = raising
    with pytest.raises(ModelFailure, match="index out of range in self") as caught:
        classifier.answer(dict(enumerate(bad_models.texts(500, longest=40))), beat=no_beat)
    assert caught.value.code == "model_raises"
    assert calls < 4 * MIN_EQUAL_ERRORS


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        ConnectionResetError("cut"),
        sqlalchemy.exc.OperationalError("SELECT 1", None, Exception("away")),
    ],
)
def test_what_passes_is_no_fault_of_a_row(error: Exception) -> None:
    with pytest.raises(type(error)):
        row_isolation.check(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("out of memory"), ValueError("a token"), OSError(errno.ENOENT, "none")]
)
def test_what_a_row_alone_raises_may_be_its_fault(error: Exception) -> None:
    row_isolation.check(error)
