"""Whether a result, loaded again from its files, answers as the model did that was evaluated.

Promise P13. The files are read as a bulk job reads them: the tokenizer reads a sample of the rows
anew, and the model, an adapter on its base, has a loss of each. What was lost on the way to the
files, or drawn at random on the way back, shows in these.
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
from workers.training import evaluation, tasks, tokenized_dataset
from workers.training.model_init import AUTO
from workers.training.run_config import Order
from workers.training.tasks import Family
from workers.training.tokenized_dataset import InMemory, Row, Tokens

Losses = npt.NDArray[np.float64]

NOISE = {"no": 1e-3, "bf16": 5e-2, "fp16": 1e-2}
"""How far a row's loss may be from its first one, by the numbers that both were computed in: of its
size plus one."""

REPEATED = 3.0
"""A model that does not even repeat itself (hashing at random) may be off by so much of that."""


@dataclass(frozen=True)
class Sample:
    """Rows that are measured twice: the first of a split, some hundred at most."""

    split: str
    rows: Tokens  # as the training read them
    texts: list[str]
    targets: list[str | None]

    @staticmethod
    def of(order: Order) -> Sample:
        """Of the test rows, else of the validation rows."""
        for split in (tokenized_dataset.TEST, tokenized_dataset.VALIDATION):
            found = tokenized_dataset.read(order.tokens, split)
            if found is not None and len(found):
                kept = tokenized_dataset.sample(order.tokens, split)
                return Sample(split, found, [row[0] for row in kept], [row[1] for row in kept])
        raise RuntimeError("a training has validation rows")


@dataclass(frozen=True)
class Means:
    """What the second measurement needs of the first one's surroundings."""

    device: torch.device
    autocast: Callable[[], AbstractContextManager[Any]]
    budget: int
    max_tokens: int
    beat: Beat


def check(order: Order, sample: Sample, *, losses: Losses, means: Means) -> None:
    """Raise ``JobFailure`` unless the files of ``result`` give these losses again."""
    with _beside_its_base(order):
        inspection.inspect(order.result)
        try:
            again, noise = _losses(order, sample, losses, means=means, device=means.device)
        except Exception as error:
            if not is_out_of_memory(error) or means.device.type == "cpu":
                raise
            memory.give_back()  # the trained model is still on its device
            cpu = torch.device("cpu")
            again, noise = _losses(order, sample, losses, means=means, device=cpu)
    allowed = NOISE[order.spec.train.mixed_precision] + REPEATED * noise
    apart = distances(losses, again)
    if not (apart <= allowed).all():
        worst = int(np.argmax(np.where(np.isnan(apart), np.inf, apart)))
        raise _failure(
            f"over the first {len(losses)} {sample.split} rows the loss was {losses.mean():.6g} "
            f"when it was evaluated, and is {again.mean():.6g} loaded again "
            f"(of row {worst}: {losses[worst]:.6g}, and {again[worst]:.6g})"
        )


def distances(first: Losses, second: Losses) -> Losses:
    """How far each number is from the first one, of its size plus one; two NaN are alike."""
    with np.errstate(invalid="ignore"):
        found: Losses = np.abs(first - second) / (1 + np.abs(first))
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    return np.where(same, 0.0, found)


def _losses(
    order: Order, sample: Sample, first: Losses, *, means: Means, device: torch.device
) -> tuple[Losses, float]:
    """The rows' losses by the files, and how far the same model is from itself where they differ.

    The second is not asked for where they do not.
    """
    model, family = _loaded(order, means=means, device=device)
    rows = _read_again(sample, family=family, split=sample.split)

    def measured() -> Losses:
        with means.autocast():
            return evaluation.losses(
                model, family, rows, rows=range(len(rows)), budget=means.budget, beat=means.beat
            )

    found = measured()
    if (distances(first, found) <= NOISE[order.spec.train.mixed_precision]).all():
        return found, 0.0
    return found, float(distances(found, measured()).max())


def _loaded(order: Order, *, means: Means, device: torch.device) -> tuple[Any, Family]:
    task = order.spec.task
    tokenizer = model_loader.tokenizer(order.result)
    model = model_loader.module(order.result, auto=AUTO[task], dtype=torch.float32, device=device)
    labels = _labels(model) if task is Task.CLASSIFY else ()
    if labels != order.labels:
        raise _failure(
            f"it was trained for the {len(order.labels)} labels {', '.join(order.labels[:5])} …, "
            f"and its files have the {len(labels)} labels {', '.join(labels[:5])} …"
        )
    signature = signatures.read(order.result)
    assert signature is not None, "it was written just now"
    family = tasks.of(
        signature, tokenizer=tokenizer, model=model, labels=labels, max_tokens=means.max_tokens
    )
    return model, family


def _labels(model: Any) -> tuple[str, ...]:
    names = model.config.id2label
    return tuple(names[place] for place in range(len(names)))


def _read_again(sample: Sample, *, family: Family, split: str) -> Tokens:
    """The rows as the saved tokenizer reads them, which must be as training read them."""
    read: list[Row] = []
    for row, found in enumerate(family.encode(sample.texts, sample.targets)):
        if isinstance(found, RowError):
            raise _failure(f"row {row} of the {split} rows cannot be read again: {found.message}")
        inputs, answers = found
        read.append(found)
        for then, now in ((sample.rows.inputs[row], inputs), (sample.rows.targets[row], answers)):
            if then.tolist() != list(now):
                raise _failure(
                    f"its tokenizer made {len(then)} tokens ({_begin(then)}) of row {row} of the "
                    f"{split} rows in training, and makes {len(now)} ({_begin(now)}) loaded again"
                )
    return InMemory(read, targets=sample.targets)


def _begin(ids: Iterable[int]) -> str:
    return " ".join(str(each) for each in islice(ids, 8))


@contextmanager
def _beside_its_base(order: Order) -> Iterator[None]:
    """An adapter finds its base there, as it will in the cache of a worker."""
    link: Path = order.result / "base"
    if not lora.is_adapter(order.result):
        yield
        return
    link.symlink_to(order.origin.resolve(), target_is_directory=True)
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
