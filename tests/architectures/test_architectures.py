from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from jobs.kinds import Architecture, Task
from tests.architectures.small_models import (
    LABELS,
    WORDS,
    batch,
    loaded,
    some_rows,
    trained,
    untrained,
)
from tests.workers.inference.builders import loaded as opened
from tests.workers.inference.builders import no_beat, predictions
from workers.architectures import (
    LSTMConfig,
    LSTMForCausalLM,
    LSTMForSequenceClassification,
    TextCNNConfig,
    TextCNNForSequenceClassification,
)
from workers.inference.tasks.classifier import Prediction

ARCHITECTURES = tuple(Architecture)
CLASSIFIERS = ("textcnn", "lstm")


def seeded(build: Any, config: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return build(config).eval()


def classifier(name: str) -> Any:
    shape: dict[str, Any] = {"vocab_size": 40, "hidden_size": 16, "num_labels": 3}
    if name == "textcnn":
        return seeded(TextCNNForSequenceClassification, TextCNNConfig(filters=8, **shape))
    return seeded(LSTMForSequenceClassification, LSTMConfig(num_hidden_layers=2, **shape))


def language_model() -> Any:
    config = LSTMConfig(vocab_size=40, hidden_size=16, num_hidden_layers=2, eos_token_id=2)
    return seeded(LSTMForCausalLM, config)


def padded(rows: list[list[int]], *, left: bool = False) -> dict[str, torch.Tensor]:
    longest = max(len(row) for row in rows)
    fill = [[0] * (longest - len(row)) for row in rows]
    ones = [[1] * len(row) for row in rows]
    pairs = zip(rows, fill, strict=True), zip(ones, fill, strict=True)
    ids, mask = ([f + r if left else r + f for r, f in pair] for pair in pairs)
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Architecture, Path]:
    home = tmp_path_factory.mktemp("models")
    return {each: trained(each, home / each) for each in ARCHITECTURES}


ROWS = [[5, 6, 7], [8], list(range(3, 30)), [9, 9, 9, 9, 4]]


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_rows_logits_do_not_depend_on_its_batchs_padding(name: str, left: bool) -> None:  # noqa: FBT001
    model = classifier(name)
    with torch.inference_mode():
        together = model(**padded(ROWS, left=left)).logits
        alone = torch.cat([model(input_ids=torch.tensor([row])).logits for row in ROWS])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-6)
    assert together.std(dim=0).min() > 1e-3


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_order_of_tokens_matters(name: str) -> None:
    model = classifier(name)
    with torch.inference_mode():
        found = model(input_ids=torch.tensor([[5, 6, 7, 8], [8, 7, 6, 5]])).logits
    assert (found[0] - found[1]).abs().max() > 1e-4


@pytest.mark.parametrize("left", [False, True])
def test_a_texts_next_tokens_do_not_depend_on_its_batchs_padding(left: bool) -> None:  # noqa: FBT001
    model = language_model()
    inputs = padded(ROWS, left=left)
    with torch.inference_mode():
        together = model(**inputs).logits
        for row, ids in enumerate(ROWS):
            alone = model(input_ids=torch.tensor([ids])).logits[0]
            inside = inputs["attention_mask"][row].bool()
            torch.testing.assert_close(together[row][inside], alone, atol=1e-6, rtol=1e-6)


def test_a_language_model_does_not_see_later_tokens() -> None:
    model = language_model()
    with torch.inference_mode():
        first = model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits[:, :2]
        second = model(input_ids=torch.tensor([[5, 6, 30, 31]])).logits[:, :2]
    torch.testing.assert_close(first, second)


def test_generation_is_the_best_next_token_again_and_again() -> None:
    model = language_model()
    ids = [5, 6, 7]
    with torch.inference_mode():
        for _ in range(6):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        found = model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=6, min_new_tokens=6)
    assert found[0].tolist() == ids


def test_prompts_of_different_lengths_are_continued_as_they_are_alone() -> None:
    model = language_model()
    options = {"max_new_tokens": 5, "do_sample": False}
    together = model.generate(**padded(ROWS, left=True), **options)[:, -5:]
    for row, ids in enumerate(ROWS):
        alone = model.generate(input_ids=torch.tensor([ids]), **options)[0, len(ids) :]
        assert together[row][: len(alone)].tolist() == alone.tolist()


def test_a_language_model_goes_through_a_file_with_its_weights_tied(tmp_path: Path) -> None:
    model = language_model()
    model.save_pretrained(tmp_path)
    auto: Any = AutoModelForCausalLM
    again, report = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert type(again) is LSTMForCausalLM
    assert not report["missing_keys"]
    assert again.lm_head.weight is again.embedding.weight
    ids = torch.tensor([[5, 6, 7]])
    again.train(mode=False)
    assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)


@pytest.mark.parametrize("task", [Task.GENERATE])
@pytest.mark.parametrize("architecture", [Architecture.LSTM, Architecture.TRANSFORMER])
def test_a_language_model_from_scratch_learns(
    architecture: Architecture, task: Task, tmp_path: Path
) -> None:
    folder = untrained(architecture, tmp_path / "model", task=task)
    tokenizer, model = loaded(folder, AutoModelForCausalLM)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for step in range(12):
        texts = [text for text, _ in some_rows(16, seed=step)]
        inputs = tokenizer(texts, padding=True, return_tensors="pt")
        targets = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
        loss = model(**inputs, labels=targets).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_trained_model_is_saved_and_the_engine_classifies_with_it(
    architecture: Architecture, folders: dict[Architecture, Path]
) -> None:
    rows = some_rows(120, seed=42)
    found = predictions(folders[architecture], [text for text, _ in rows])
    right = [answer.labels[0] == label for answer, (_, label) in zip(found, rows, strict=True)]
    assert sum(right) / len(rows) > 0.9


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_word_of_the_label_explains_it(
    architecture: Architecture, folders: dict[Architecture, Path]
) -> None:
    """Every text has one such word among about seven; its tokens outweigh the others on average."""
    rows = [row for row in some_rows(60, seed=44) if len(row[0].split()) > 1]
    engine = opened(folders[architecture], explain={"every": 1})
    found = engine.answer(dict(enumerate(text for text, _ in rows)), beat=no_beat)
    right = 0
    for answer, (text, label) in zip(found.values(), rows, strict=True):
        assert isinstance(answer, Prediction)
        assert answer.explanation is not None
        word = next(each for each in WORDS[label] if each in text.split())
        telling: list[float] = []
        others: list[float] = []
        for each in answer.explanation:
            token = each.token.strip()
            (telling if token and token in word else others).append(each.weight)
        right += mean(telling) > mean(others)
    assert right / len(rows) > 0.9


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_answers_do_not_depend_on_how_a_corpus_is_cut_into_chunks(
    architecture: Architecture, folders: dict[Architecture, Path]
) -> None:
    texts = [text for text, _ in some_rows(60, seed=43, longest=40)]
    engine = opened(folders[architecture])
    whole = engine.classify(texts, beat=no_beat)
    for size in (1, 7):
        chunks = (texts[start : start + size] for start in range(0, len(texts), size))
        again = [each for chunk in chunks for each in engine.classify(chunk, beat=no_beat)]
        for one, other in zip(whole, again, strict=True):
            assert isinstance(one, Prediction)
            assert isinstance(other, Prediction)
            assert one.labels == other.labels
            assert one.scores == pytest.approx(other.scores, abs=1e-5)


@pytest.mark.parametrize("architecture", [Architecture.TEXTCNN, Architecture.LSTM])
def test_a_multi_label_model_has_a_loss_per_label(
    architecture: Architecture, tmp_path: Path
) -> None:
    folder = trained(architecture, tmp_path / "model", multi_label=True)
    tokenizer, model = loaded(folder, AutoModelForSequenceClassification)
    inputs = batch(tokenizer, some_rows(64, seed=9), multi_label=True)
    found = model(**inputs)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(found.logits, inputs["labels"])
    torch.testing.assert_close(found.loss, expected)
    assert ((found.logits > 0) == inputs["labels"].bool()).float().mean() > 0.8
    assert len(LABELS) == found.logits.shape[1]
