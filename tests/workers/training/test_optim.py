"""Optimizer, learning rates, the plan of steps and the best metric of a recipe."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from jobs.kinds import FinetuneSpec, TrainOptions
from workers.training import optim
from workers.training.optim import StepPlan


def spec(**changes: object) -> FinetuneSpec:
    fields = {"corpus": {"file": "file-1"}, "base": "tiny@1", "model": "it"}
    return FinetuneSpec.model_validate(fields | changes)


def rates(options: TrainOptions, *, total: int) -> list[float]:
    whole = spec(train=options)
    optimizer = optim.optimizer(nn.Linear(2, 2), whole, device=torch.device("cpu"))
    scheduler = optim.scheduler(optimizer, options, total=total)
    rates_by_step = []
    for _ in range(total):
        rates_by_step.append(float(scheduler.get_last_lr()[0]))
        optimizer.step()
        scheduler.step()
    return rates_by_step


@pytest.mark.parametrize(
    ("schedule", "theirs"),
    [("linear", get_linear_schedule_with_warmup), ("cosine", get_cosine_schedule_with_warmup)],
)
def test_the_schedules_are_those_of_transformers(schedule: str, theirs: object) -> None:
    assert callable(theirs)
    options = TrainOptions.model_validate({"schedule": schedule, "warmup": 0.25})
    optimizer = torch.optim.AdamW(nn.Linear(2, 2).parameters(), lr=spec().learning_rate)
    reference = theirs(optimizer, num_warmup_steps=5, num_training_steps=20)
    expected = []
    for _ in range(20):
        expected.append(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()
    assert rates(options, total=20) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, 5e-5),
        ({"lora": {}}, 2e-4),
        ({"base": None, "architecture": "lstm"}, 1e-3),
        ({"lora": {}, "train": {"learning_rate": 0.1}}, 0.1),
    ],
    ids=str,
)
def test_the_default_rate_depends_on_the_base(fields: dict[str, object], expected: float) -> None:
    assert spec(**fields).learning_rate == expected


def test_a_constant_rate_stays_after_its_warm_up() -> None:
    options = TrainOptions(schedule="constant", warmup=0.2, learning_rate=1.0)
    assert rates(options, total=5) == pytest.approx([0, 1, 1, 1, 1])


def test_biases_and_norms_do_not_decay() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    decaying = spec(train={"weight_decay": 0.5})
    optimizer = optim.optimizer(model, decaying, device=torch.device("cpu"))
    decays = {
        each: group["weight_decay"] for group in optimizer.param_groups for each in group["params"]
    }
    assert decays[model[0].weight] == 0.5
    assert [decays[each] for each in (model[0].bias, model[1].weight, model[1].bias)] == [0, 0, 0]


def test_the_steps_are_those_of_all_epochs_unless_max_steps_is_less() -> None:
    options = TrainOptions(epochs=3, batch_rows=8)
    assert StepPlan.of(options, rows=20).total == 9
    assert StepPlan.of(options.model_copy(update={"max_steps": 4}), rows=20).total == 4


def test_the_last_step_is_always_evaluated() -> None:
    plan = StepPlan.of(TrainOptions(epochs=1, batch_rows=1, evaluate_steps=4), rows=10)
    assert [step for step in range(1, 11) if plan.evaluates(step)] == [4, 8, 10]


@pytest.mark.parametrize(
    ("metric", "new", "old", "expected"),
    [
        ("macro_f1", 0.5, None, True),
        ("macro_f1", 0.5, 0.5, False),
        ("macro_f1", 0.6, 0.5, True),
        ("loss", 0.4, 0.5, True),
        ("loss", 0.6, 0.5, False),
        ("loss", math.nan, None, False),
        ("perplexity", None, None, False),
    ],
)
def test_better_depends_on_the_metric(
    metric: str, new: float | None, old: float | None, *, expected: bool
) -> None:
    assert optim.better(metric, new, than=old) is expected


def test_the_default_metric_is_that_of_the_task() -> None:
    assert spec().metric == "macro_f1"
    assert spec(task="generate").metric == "loss"


@pytest.mark.parametrize(
    "fields", [{"train": {"metric": "bleu"}}, {"promote": {"metric": "bleu"}}], ids=str
)
def test_a_metric_of_another_task_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="must be one of loss, perplexity, not 'bleu'"):
        spec(task="generate", **fields)
