"""Check that the exported files, loaded again, repeat the evaluation (promise P13).

The files are loaded as a bulk job loads them, an adapter on its base. The tokenizer encodes a
sample of the rows again and the model computes the loss of each row. Weights that were lost on
export, or drawn at random on loading, change these losses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from jobs.errors import JobFailure
from jobs.kinds import Task
from jobs.models import inspection, signatures
from jobs.progress import Beat
from workers.inference import model_loader
from workers.inference.batching import memory
from workers.inference.batching.forward import RowError
from workers.inference.batching.memory import is_out_of_memory
from workers.inference.kernels import lora
from workers.training import evaluation, tokenized_dataset
from workers.training.model_init import AUTO
from workers.training.objectives.objective import Objective, objective_for
from workers.training.run_config import RunConfig
from workers.training.tokenized_dataset import InMemorySplit, Row, TokenizedSplit

Losses = npt.NDArray[np.float64]

LOSS_TOLERANCE = {"no": 1e-3, "bf16": 5e-2, "fp16": 1e-2}
"""Allowed distance of a row's two losses, by mixed precision; see ``distances``."""

NONDETERMINISM_FACTOR = 3.0
"""A model that is not deterministic (random hashing) may differ by this multiple of its noise."""


@dataclass(frozen=True)
class ReloadSample:
    """The rows that are evaluated twice: the first of a split."""

    split: str
    rows: TokenizedSplit  # as tokenized for the training
    texts: list[str]
    targets: list[str | None]

    @staticmethod
    def of(run: RunConfig) -> ReloadSample:
        """The first test rows, else the first validation rows."""
        for split in (tokenized_dataset.TEST, tokenized_dataset.VALIDATION):
            rows = tokenized_dataset.read(run.tokens, split)
            if rows is not None and len(rows):
                sample = tokenized_dataset.sample(run.tokens, split)
                texts, targets = [row[0] for row in sample], [row[1] for row in sample]
                return ReloadSample(split, rows, texts, targets)
        raise RuntimeError("a training has validation rows")


@dataclass(frozen=True)
class EvaluationSettings:
    """How the first evaluation was computed, so that the second repeats it."""

    device: torch.device
    autocast: Callable[[], AbstractContextManager[Any]]
    budget: int
    max_tokens: int
    beat: Beat


def check(
    run: RunConfig, sample: ReloadSample, *, losses: Losses, settings: EvaluationSettings
) -> None:
    """Raise ``JobFailure`` unless the files of ``result`` give these losses again."""
    with _with_base_linked(run):
        inspection.inspect(run.result)
        try:
            again, noise = _losses(run, sample, losses, settings=settings, device=settings.device)
        except Exception as error:
            if not is_out_of_memory(error) or settings.device.type == "cpu":
                raise
            memory.empty_cache()  # the trained model is still on its device
            cpu = torch.device("cpu")
            again, noise = _losses(run, sample, losses, settings=settings, device=cpu)
    allowed = LOSS_TOLERANCE[run.spec.train.mixed_precision] + NONDETERMINISM_FACTOR * noise
    differences = distances(losses, again)
    if not (differences <= allowed).all():
        worst = int(np.argmax(np.where(np.isnan(differences), np.inf, differences)))
        raise _failure(
            f"over the first {len(losses)} {sample.split} rows the loss was {losses.mean():.6g} "
            f"when it was evaluated, and is {again.mean():.6g} loaded again "
            f"(of row {worst}: {losses[worst]:.6g}, and {again[worst]:.6g})"
        )


def distances(first: Losses, second: Losses) -> Losses:
    """``|first - second| / (1 + |first|)`` of each pair; two NaN are equal."""
    with np.errstate(invalid="ignore"):
        relative: Losses = np.abs(first - second) / (1 + np.abs(first))
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    return np.where(same, 0.0, relative)


def _losses(
    run: RunConfig,
    sample: ReloadSample,
    first: Losses,
    *,
    settings: EvaluationSettings,
    device: torch.device,
) -> tuple[Losses, float]:
    """The losses of the loaded files, and the noise: the distance of a second computation.

    The noise is 0 and not computed if the losses repeat the first ones.
    """
    model, objective = _loaded(run, settings=settings, device=device)
    rows = _encode_again(sample, objective=objective, split=sample.split)

    def compute() -> Losses:
        with settings.autocast():
            return evaluation.losses(
                model,
                objective,
                rows,
                rows=range(len(rows)),
                budget=settings.budget,
                beat=settings.beat,
            )

    losses = compute()
    if (distances(first, losses) <= LOSS_TOLERANCE[run.spec.train.mixed_precision]).all():
        return losses, 0.0
    return losses, float(distances(losses, compute()).max())


def _loaded(
    run: RunConfig, *, settings: EvaluationSettings, device: torch.device
) -> tuple[Any, Objective]:
    task = run.spec.task
    tokenizer = model_loader.tokenizer(run.result)
    model = model_loader.module(run.result, auto=AUTO[task], dtype=torch.float32, device=device)
    labels = _labels(model) if task is Task.CLASSIFY else ()
    if labels != run.labels:
        raise _failure(
            f"it was trained for the {len(run.labels)} labels {', '.join(run.labels[:5])} …, "
            f"and its files have the {len(labels)} labels {', '.join(labels[:5])} …"
        )
    signature = signatures.read(run.result)
    assert signature is not None, "it was written just now"
    objective = objective_for(
        signature, tokenizer=tokenizer, model=model, labels=labels, max_tokens=settings.max_tokens
    )
    return model, objective


def _labels(model: Any) -> tuple[str, ...]:
    names = model.config.id2label
    return tuple(names[label_id] for label_id in range(len(names)))


def _encode_again(sample: ReloadSample, *, objective: Objective, split: str) -> TokenizedSplit:
    """Encode the rows with the saved tokenizer; they must be equal to those of the training."""
    rows: list[Row] = []
    for row, encoded in enumerate(objective.encode(sample.texts, sample.targets)):
        if isinstance(encoded, RowError):
            raise _failure(f"row {row} of the {split} rows cannot be read again: {encoded.message}")
        inputs, targets = encoded
        rows.append(encoded)
        for then, now in ((sample.rows.inputs[row], inputs), (sample.rows.targets[row], targets)):
            if then.tolist() != list(now):
                raise _failure(
                    f"its tokenizer made {len(then)} tokens ({_first_ids(then)}) of row {row} of "
                    f"the {split} rows in training, and makes {len(now)} ({_first_ids(now)}) "
                    "loaded again"
                )
    return InMemorySplit(rows, targets=sample.targets)


def _first_ids(ids: Iterable[int]) -> str:
    return " ".join(str(token) for token in islice(ids, 8))


@contextmanager
def _with_base_linked(run: RunConfig) -> Iterator[None]:
    """Link an adapter's base into its folder, where a worker's cache will have it."""
    link: Path = run.result / "base"
    if not lora.is_adapter(run.result):
        yield
        return
    link.symlink_to(run.origin.resolve(), target_is_directory=True)
    try:
        yield
    finally:
        link.unlink()


def _failure(reason: str) -> JobFailure:
    return JobFailure(
        f"the trained model is not registered, because its files do not repeat its evaluation: "
        f"{reason}",
        code="version_not_reproducible",
    )
