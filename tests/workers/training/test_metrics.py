"""Metrics of evaluations: what they count, what they leave out, and that sklearn agrees."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import accuracy_score, classification_report, f1_score

from jobs.kinds import Task
from workers.training import metrics

ABC = ("a", "b", "c")
few_examples = settings(max_examples=40)


def logits_for(*predicted: int, labels: int = 3) -> Any:
    """Logits whose highest one is that of the predicted label."""
    return np.eye(labels)[list(predicted)]


def report(truth: list[int], predicted: list[int], loss: float = 0.5) -> dict[str, Any]:
    return metrics.classification(
        ABC, truth=np.array(truth), logits=logits_for(*predicted), loss=loss
    )


def multi_hot(*rows: str) -> Any:
    """A row of booleans for each text of zeros and ones."""
    return np.array([[letter == "1" for letter in row] for row in rows])


def test_a_perfect_classifier_has_ones_everywhere() -> None:
    result = report([0, 1, 2, 2], [0, 1, 2, 2])
    assert result["accuracy"] == result["macro_f1"] == result["weighted_f1"] == 1
    assert result["confusion"] == [[1, 0, 0], [0, 1, 0], [0, 0, 2]]
    assert result["task"] == "classify"
    assert result["rows"] == 4


def test_rows_of_the_confusion_matrix_are_the_true_labels() -> None:
    assert report([0, 0, 1], [1, 1, 0])["confusion"] == [[0, 2, 0], [1, 0, 0], [0, 0, 0]]


def test_a_label_without_rows_has_recall_zero_and_is_not_in_the_macro_f1() -> None:
    result = report([0, 1], [0, 1])
    assert result["per_label"][2] == {
        "label": "c", "precision": 0.0, "recall": 0.0, "f1": 0.0, "rows": 0
    }  # fmt: skip
    assert result["macro_f1"] == 1


def test_a_label_that_is_only_predicted_counts_in_the_macro_f1() -> None:
    assert report([0, 1], [0, 2])["macro_f1"] == pytest.approx(1 / 3)


def test_precision_recall_and_weighted_f1_of_a_small_example() -> None:
    result = report([0, 0, 0, 1], [0, 0, 1, 1])
    first, second, _ = result["per_label"]
    assert (first["precision"], first["recall"], first["rows"]) == (1, pytest.approx(2 / 3), 3)
    assert (second["precision"], second["recall"], second["rows"]) == (0.5, 1, 1)
    assert result["weighted_f1"] == pytest.approx(0.75 * 0.8 + 0.25 * 2 / 3)


def test_multi_label_accuracy_is_the_exact_match_and_there_is_no_confusion_matrix() -> None:
    truth, logits = multi_hot("110", "001", "000"), np.array([[1, 1, -1], [1, -1, 1], [-1, -1, -1]])
    result = metrics.classification(ABC, truth=truth, logits=logits, loss=0.1)
    assert result["accuracy"] == pytest.approx(2 / 3)
    assert result["micro_f1"] == pytest.approx(6 / 7)
    assert result["confusion"] is None
    assert [each["rows"] for each in result["per_label"]] == [1, 1, 1]


def test_multi_label_rows_without_any_label_make_no_nan() -> None:
    result = metrics.classification(ABC, truth=multi_hot("000"), logits=-np.ones((1, 3)), loss=0.0)
    assert result["accuracy"] == 1, "no label was right, and none was predicted"
    assert result["macro_f1"] == 0
    assert result["micro_f1"] == 0


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_null(loss: float) -> None:
    assert report([0], [0], loss)["loss"] is None
    assert metrics.language(loss_sum=loss, tokens=1, rows=1, task=Task.GENERATE)["loss"] is None


@pytest.mark.slow
@few_examples
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40),
)
def test_single_label_reports_agree_with_sklearn(pairs: list[tuple[int, int]]) -> None:
    truth, predicted = [each[0] for each in pairs], [each[1] for each in pairs]
    result = report(truth, predicted)
    assert result["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    for average in ("macro", "weighted"):
        expected = f1_score(truth, predicted, average=average, zero_division=0)
        assert result[f"{average}_f1"] == pytest.approx(expected)
    assert sum(map(sum, result["confusion"])) == len(pairs)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@pytest.mark.slow
@few_examples
@given(arrays.arrays(bool, (6, 3)), arrays.arrays(np.float64, (6, 3), elements=st.floats(-9, 9)))
def test_multi_label_reports_agree_with_sklearn(truth: Any, logits: Any) -> None:
    result = metrics.classification(ABC, truth=truth, logits=logits, loss=1.0)
    expected = classification_report(
        truth, logits >= 0, target_names=list(ABC), output_dict=True, zero_division=0
    )
    assert result["micro_f1"] == pytest.approx(expected["micro avg"]["f1-score"])
    assert result["weighted_f1"] == pytest.approx(expected["weighted avg"]["f1-score"])
    for each in result["per_label"]:
        theirs = expected[each["label"]]
        assert each["recall"] == pytest.approx(theirs["recall"])
        assert each["rows"] == theirs["support"]
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@pytest.mark.parametrize(
    ("loss_sum", "tokens", "loss", "perplexity"),
    [
        (0.0, 10, 0.0, 1.0),
        (10 * math.log(50), 10, math.log(50), 50.0),
        (1e6, 10, 1e5, None),  # exp(1e5) is no float
        (0.0, 0, 0.0, 1.0),
    ],
)
def test_perplexity_is_the_exponential_of_the_mean_token_loss(
    loss_sum: float, tokens: int, loss: float, perplexity: float | None
) -> None:
    result = metrics.language(loss_sum=loss_sum, tokens=tokens, rows=3, task=Task.TEXT2TEXT)
    assert result["loss"] == pytest.approx(loss)
    assert result["perplexity"] == (perplexity and pytest.approx(perplexity))
    assert (result["task"], result["rows"], result["tokens"]) == ("text2text", 3, tokens)


def test_an_equal_text_scores_a_hundred_and_another_one_less() -> None:
    texts = ["the cat sat on the mat today", "it was raining all day long"]
    assert metrics.translation(texts, texts)["bleu"] == pytest.approx(100)
    assert metrics.translation(texts, texts)["chrf"] == pytest.approx(100)
    assert metrics.translation(texts[::-1], texts)["bleu"] < 20


def test_chinese_bleu_counts_characters_and_the_report_names_the_tokenizer() -> None:
    result = metrics.translation(["银行公布季度亏损后股价大跌"], ["银行公布季度亏损后股价下跌"])
    assert result["bleu_tokenizer"] == "zh"
    assert 50 < result["bleu"] < 100


@pytest.mark.parametrize(
    ("text", "expected"),
    [("银行 bank", False), ("银行公布 GDP", True), ("", False), ("?!", False), ("ひらがな", False)],
)
def test_mostly_han_is_more_than_half_of_the_letters(text: str, expected: bool) -> None:  # noqa: FBT001
    assert metrics.mostly_han([text]) is expected
