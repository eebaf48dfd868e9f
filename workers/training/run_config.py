"""What a training process is told to do: ``run.json`` and the names in its work folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jobs import kinds
from jobs.kinds import FinetuneSpec
from jobs.models.signatures import RowForm, Signature


@dataclass(frozen=True)
class Order:
    """One run's part of a training job. ``folder`` is the work folder, where everything lies."""

    folder: Path
    job_id: str
    run_number: int
    spec: FinetuneSpec
    labels: tuple[str, ...]  # by id; empty: not a classifier
    base_reference: str | None  # as it is pinned; null: from scratch
    signature: Signature  # how rows are read; its window is the program's to know

    @cached_property
    def data(self) -> Path:
        """A folder per split, with its shards."""
        return self.folder / "data"

    @cached_property
    def origin(self) -> Path:
        """The model folder that training starts from: the base, or the one made from scratch."""
        return self.folder / ("scratch" if self.spec.base is None else "base")

    @cached_property
    def tokens(self) -> Path:
        """The splits as the model reads them; complete once it exists."""
        return self.folder / "tokens"

    @cached_property
    def checkpoints(self) -> Path:
        """A folder per step, each complete on this host once it has its name."""
        return self.folder / "checkpoints"

    @cached_property
    def resume(self) -> Path:
        """The checkpoint to go on from; absent: from the beginning."""
        return self.folder / "resume"

    @cached_property
    def best(self) -> Path:
        """On resume: the best checkpoint, where it is not the one resumed from."""
        return self.folder / "best"

    @cached_property
    def result(self) -> Path:
        """The trained model, on the host of rank 0."""
        return self.folder / "result"

    def checkpoint(self, step: int) -> Path:
        """The folder of this step's checkpoint."""
        return self.checkpoints / f"step-{step:09}"


def read(path: Path) -> Order:
    """The order in a ``run.json``; its folder is the work folder."""
    given = json.loads(path.read_bytes())
    spec = kinds.parse(given["spec"])
    assert isinstance(spec, FinetuneSpec)
    return Order(
        folder=path.resolve().parent,
        job_id=given["job_id"],
        run_number=given["run_number"],
        spec=spec,
        labels=tuple(given["dataset"].get("labels") or ()),
        base_reference=given.get("base") or spec.base,
        signature=_signature(given["dataset"], spec),
    )


def _signature(dataset: dict[str, Any], spec: FinetuneSpec) -> Signature:
    """As the planner decided; one that knew no signatures gave plain texts to every model."""
    if dataset.get("signature") is not None:
        return Signature.model_validate(dataset["signature"])
    return Signature(task=spec.task, rows=RowForm.PAIR, multi_label=spec.multi_label)
