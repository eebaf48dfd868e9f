"""``run.json``, which configures a training process, and the names in its work folder."""

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
class RunConfig:
    """One run of a training job; ``folder`` is the work folder."""

    folder: Path
    job_id: str
    run_number: int
    spec: FinetuneSpec
    labels: tuple[str, ...]  # by id; empty: not a classifier
    base_reference: str | None  # with its version; null: from scratch
    signature: Signature  # how rows are read; the program adds the window

    @cached_property
    def data(self) -> Path:
        """The shards, in a folder per split."""
        return self.folder / "data"

    @cached_property
    def origin(self) -> Path:
        """The model folder that training starts from: the base, or the one made from scratch."""
        return self.folder / ("scratch" if self.spec.base is None else "base")

    @cached_property
    def tokens(self) -> Path:
        """The tokenized splits; complete once the folder exists."""
        return self.folder / "tokens"

    @cached_property
    def checkpoints(self) -> Path:
        """A folder per step; each is complete on this host once it has its final name."""
        return self.folder / "checkpoints"

    @cached_property
    def resume(self) -> Path:
        """The checkpoint to resume from; absent: from the beginning."""
        return self.folder / "resume"

    @cached_property
    def best(self) -> Path:
        """On resume, the best checkpoint, unless it is the one in ``resume``."""
        return self.folder / "best"

    @cached_property
    def result(self) -> Path:
        """The trained model, on the host of rank 0."""
        return self.folder / "result"

    @cached_property
    def messages(self) -> Path:
        """A file per process with messages to the agent; see ``messages``."""
        return self.folder / "told"

    def checkpoint(self, step: int) -> Path:
        """The folder of this step's checkpoint."""
        return self.checkpoints / f"step-{step:09}"


def read(path: Path) -> RunConfig:
    """The config in a ``run.json``, whose folder is the work folder."""
    given = json.loads(path.read_bytes())
    spec = kinds.parse(given["spec"])
    assert isinstance(spec, FinetuneSpec)
    return RunConfig(
        folder=path.resolve().parent,
        job_id=given["job_id"],
        run_number=given["run_number"],
        spec=spec,
        labels=tuple(given["dataset"].get("labels") or ()),
        base_reference=given.get("base") or spec.base,
        signature=_signature(given["dataset"], spec),
    )


def _signature(dataset: dict[str, Any], spec: FinetuneSpec) -> Signature:
    """As the planner decided; without one, of an old planner, rows are plain texts."""
    if dataset.get("signature") is not None:
        return Signature.model_validate(dataset["signature"])
    return Signature(task=spec.task, rows=RowForm.PAIR, multi_label=spec.multi_label)
