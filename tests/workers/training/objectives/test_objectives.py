"""Token ids, tensors and losses of each objective; the step's loss is the same for all ranks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.errors import CorpusFailure
from jobs.kinds import Task
from jobs.models.signatures import Signature
from tests.support.tiny_models import LABELS, tiny_encoder
from tests.workers.training.models import tiny_causal_lm, tiny_seq2seq, without_dropout
from tests.workers.training.work_folder import Row, labelled
from workers.inference import model_loader
from workers.training.dataloader import StepLoader
from workers.training.model_init import AUTO
from workers.training.objectives.objective import Objective, objective_for
from workers.training.ragged_array import RaggedWriter
from workers.training.tokenized_dataset import TokenizedSplit


class Case:
    """An objective with its model and tokenized rows."""

    def __init__(
        self, folder: Path, base: Path, task: Task, rows: Sequence[Row], **options: Any
    ) -> None:
        config: dict[str, Any] = {"num_labels": len(LABELS)} if task is Task.CLASSIFY else {}
        torch.manual_seed(0)
        self.tokenizer: Any = model_loader.tokenizer(base)
        self.model = AUTO[task].from_pretrained(base, **config).eval()
        defaults: dict[str, Any] = {"labels": LABELS, "max_tokens": 64}
        given = {name: options.pop(name) for name in ("multi_label",) if name in options}
        self.objective: Objective = objective_for(
            Signature(task=task, **given),
            tokenizer=self.tokenizer,
            model=self.model,
            **defaults | options,
        )
        texts, targets = [text for text, _ in rows], [target for _, target in rows]
        encoded = [row for row in self.objective.encode(texts, targets) if isinstance(row, tuple)]
        with RaggedWriter(folder / "inputs") as input_ids:
            input_ids.append([ids for ids, _ in encoded])
        with RaggedWriter(folder / "targets") as target_ids:
            target_ids.append([ids for _, ids in encoded])
        with RaggedWriter(folder / "texts", dtype="uint8") as target_texts:
            target_texts.append([(target or "").encode() for target in targets])
        self.split = TokenizedSplit(folder)

    def text(self, row: int) -> str:
        return str(self.tokenizer.decode(self.split.inputs[row].tolist()))

    def losses(self, rows: Sequence[int], *, weighted: bool = True) -> torch.Tensor:
        batch = self.objective.batch(self.split, rows)
        with torch.no_grad():
            logits = self.model(**batch.inputs).logits
        return self.objective.losses(logits, batch, weighted=weighted)

    def step_loss(self, *, ranks: int, budget: int) -> float:
        """The loss of the first step, summed over the ranks."""
        total = 0.0
        for rank in range(ranks):
            feed = StepLoader(
                self.objective,
                self.split,
                seed=0,
                batch_rows=12,
                budget=budget,
                rank=rank,
                ranks=ranks,
                pin=False,
            )
            step = next(feed.steps(epoch=0, place=0))
            for batch in step.batches if step.counts else ():
                total += float(self.losses(batch.rows).sum()) / step.weight
        return total


PAIRS: list[Row] = [(f"say {number}:", "a b c"[: number % 6]) for number in range(20)]
TEXTS: list[Row] = [(text, None) for text, _ in labelled(20)]


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return build(request.param, tmp_path)


def build(name: str, folder: Path) -> Case:
    (folder / "tokens").mkdir()
    if name == "classify":
        base = without_dropout(tiny_encoder(folder / "base"))
        case = Case(folder / "tokens", base, Task.CLASSIFY, labelled(20))
        case.objective.balance(case.split)
        return case
    if name == "text2text":
        rows: list[Row] = [(text, f"{target}!") for text, target in PAIRS]
        return Case(folder / "tokens", tiny_seq2seq(folder / "base"), Task.TEXT2TEXT, rows)
    rows = list(PAIRS if name == "completions" else TEXTS)
    return Case(folder / "tokens", tiny_causal_lm(folder / "base"), Task.GENERATE, rows)


@pytest.mark.parametrize("case", ["classify", "completions", "texts", "text2text"], indirect=True)
def test_the_loss_of_a_step_is_the_same_for_any_number_of_ranks_and_batches(case: Case) -> None:
    alone = case.step_loss(ranks=1, budget=100_000)
    for ranks, budget in ((1, 64), (2, 100_000), (3, 64), (13, 64)):
        assert case.step_loss(ranks=ranks, budget=budget) == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("case", ["texts"], indirect=True)
def test_a_language_models_loss_equals_transformers_mean_token_loss(case: Case) -> None:
    ids = torch.from_numpy(case.split.inputs[3].astype("int64"))[None]
    expected = case.model(input_ids=ids, labels=ids).loss.detach()
    ours = case.losses([3]).sum() / case.objective.weights(case.split)[3]
    assert float(ours) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("case", ["text2text"], indirect=True)
def test_a_seq2seq_models_loss_equals_transformers_mean_token_loss(case: Case) -> None:
    source, target = (
        torch.from_numpy(each[4].astype("int64"))[None]
        for each in (case.split.inputs, case.split.targets)
    )
    expected = case.model(input_ids=source, labels=target).loss.detach()
    ours = case.losses([4]).sum() / case.objective.weights(case.split)[4]
    assert float(ours) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("case", ["completions"], indirect=True)
def test_only_the_completion_and_its_end_token_are_targets(case: Case) -> None:
    row = 5
    batch = case.objective.batch(case.split, [row])
    target = case.tokenizer.decode(batch.targets.tolist())
    assert target == f"{PAIRS[row][1]}</s>"
    assert case.text(row) == f"{PAIRS[row][0]}{PAIRS[row][1]}</s>"


def test_a_pair_beyond_the_window_loses_the_start_of_its_prompt(tmp_path: Path) -> None:
    base = tiny_causal_lm(tmp_path / "base")
    case = Case(tmp_path, base, Task.GENERATE, [("0123456789", "abc")], max_tokens=8)
    assert case.text(0) == "6789abc</s>"


def test_a_truncated_text_has_no_end_token(tmp_path: Path) -> None:
    base = tiny_causal_lm(tmp_path / "base")
    case = Case(tmp_path, base, Task.GENERATE, [("0123456789", None)], max_tokens=8)
    assert case.text(0) == "01234567"


def test_balanced_labels_have_weights_inverse_to_their_counts(tmp_path: Path) -> None:
    rows = [("text", LABELS[0])] * 6 + [("text", LABELS[1])] * 2
    labels = LABELS[:2]
    case = Case(tmp_path, tiny_encoder(tmp_path / "base"), Task.CLASSIFY, rows, labels=labels)
    case.objective.balance(case.split)
    assert case.objective.weights(case.split)[[0, 7]] == pytest.approx([8 / 12, 8 / 4])
    assert case.objective.weights(case.split).sum() == pytest.approx(8)


def test_multi_label_targets_are_multi_hot(tmp_path: Path) -> None:
    rows: list[Row] = [("text", json.dumps([LABELS[2], LABELS[0]])), ("text", "[]")]
    base = tiny_encoder(tmp_path / "base")
    case = Case(tmp_path, base, Task.CLASSIFY, rows, multi_label=True)
    batch = case.objective.batch(case.split, [0, 1])
    assert batch.targets.tolist() == [[True, False, True, False], [False] * 4]
    assert case.losses([0, 1]).shape == (2,)


def test_a_label_that_training_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusFailure, match="'poetry'") as refused:
        Case(tmp_path, tiny_encoder(tmp_path / "base"), Task.CLASSIFY, [("text", "poetry")])
    assert refused.value.code == "unknown_label"


def test_padding_does_not_change_a_rows_loss(tmp_path: Path) -> None:
    case = build("completions", tmp_path)
    together = case.losses([3, 4, 5])
    alone = torch.cat([case.losses([row]) for row in (3, 4, 5)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
