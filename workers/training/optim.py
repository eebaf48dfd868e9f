"""Optimizer, learning-rate schedule, the plan of steps, and which metric value is better."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from jobs.decisions import promotion
from jobs.kinds import FinetuneSpec, TrainOptions

CPU_BUDGET = 2_048
ACCELERATOR_BUDGET = 16_384

CURVE_POINTS = 500
"""About how many points a metric's curve has."""

GENERATION_METRICS = ("bleu", "chrf")
"""Metrics for which the model must generate texts."""


def better(metric: str, new: float | None, *, than: float | None) -> bool:
    """Whether a value is better than the best so far; NaN and infinity never are."""
    if new is None or not math.isfinite(new):
        return False
    return than is None or promotion.is_better(metric, new=new, old=than)


@dataclass(frozen=True)
class StepPlan:
    """The number of steps, and after which of them to evaluate, save and report."""

    epoch_steps: int
    total: int
    evaluate_every: int
    checkpoint_every: int | None
    points_every: int

    @staticmethod
    def of(options: TrainOptions, *, rows: int) -> StepPlan:
        """The plan of a recipe over this many rows."""
        epoch_steps = -(-rows // options.batch_rows)
        total = epoch_steps * options.epochs
        if options.max_steps is not None:
            total = min(total, options.max_steps)
        return StepPlan(
            epoch_steps=epoch_steps,
            total=total,
            evaluate_every=options.evaluate_steps or epoch_steps,
            checkpoint_every=options.checkpoint_steps,
            points_every=max(1, total // CURVE_POINTS),
        )

    def evaluates(self, step: int) -> bool:
        """Whether the validation rows are evaluated after this step."""
        return step % self.evaluate_every == 0 or step == self.total

    def saves(self, step: int) -> bool:
        """Whether the recipe asks for a checkpoint after this step."""
        return self.checkpoint_every is not None and step % self.checkpoint_every == 0

    def reports(self, step: int) -> bool:
        """Whether metrics have a point at this step."""
        return step % self.points_every == 0 or step == self.total


def budget(options: TrainOptions, *, device: torch.device) -> int:
    """The token budget of a batch: the recipe's, or the device's default."""
    default = CPU_BUDGET if device.type == "cpu" else ACCELERATOR_BUDGET
    return options.batch_tokens or default


def optimizer(model: nn.Module, spec: FinetuneSpec, *, device: torch.device) -> AdamW:
    """AdamW (Loshchilov & Hutter 2019) without weight decay of vectors: biases and norms."""
    trained = [each for each in model.parameters() if each.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [each for each in trained if each.ndim > 1]},
        {"params": [each for each in trained if each.ndim <= 1], "weight_decay": 0.0},
    ]
    return AdamW(
        [group for group in groups if group["params"]],
        lr=spec.learning_rate,
        weight_decay=spec.train.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )


def scheduler(optimizer: AdamW, options: TrainOptions, *, total: int) -> LambdaLR:
    """Warm-up, then the recipe's schedule; factors of its learning rate."""
    warm = math.ceil(options.warmup * total)

    def share(step: int) -> float:
        if step < warm:
            return step / warm
        rest = (step - warm) / max(1, total - warm)
        match options.schedule:
            case "linear":
                return max(0.0, 1.0 - rest)
            case "cosine":
                return 0.5 * (1.0 + math.cos(math.pi * min(1.0, rest)))
            case "constant":
                return 1.0

    return LambdaLR(optimizer, share)
