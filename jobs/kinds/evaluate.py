"""``evaluate``: a report on a model over a labelled corpus."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from jobs.kinds.training_spec import (
    DatasetSplit,
    LabelledCorpus,
    Machines,
    ReadingLimits,
    TrainingSpec,
)
from jobs.models.signatures import Task


class EvaluateSpec(TrainingSpec):
    """Measure a model on a labelled corpus."""

    kind: Literal["evaluate"] = "evaluate"
    task: Task | None = Field(
        None,
        description="What the model is evaluated for. Default: what it was trained for, else "
        "classify.",
    )
    multi_label: bool | None = Field(
        None,
        description="A row has any number of labels: an array, or `a|b` in a text. Default: as "
        "the model was trained.",
    )
    model: str = Field(
        description="The evaluated model: `name@version`, `name@alias`, `hf:org/name`, a folder "
        "or a URI."
    )
    batch_tokens: int = Field(
        0,
        ge=0,
        description="Most tokens, padding included, that go through a device at once. 0 takes "
        "2,048 on CPU and 16,384 on an accelerator.",
    )
    max_tokens: int | None = Field(
        None,
        ge=8,
        description="Longer rows are cut. Default: as the model was trained, else what it can.",
    )

    @property
    def starts_from(self) -> tuple[str, str]:
        """The model that is evaluated."""
        return "model", self.model

    @property
    def splits(self) -> dict[DatasetSplit, LabelledCorpus]:
        """The corpus is the test split."""
        return {DatasetSplit.TEST: self.corpus}

    @property
    def reading_limits(self) -> ReadingLimits:
        """Those of the evaluation."""
        return ReadingLimits(self.batch_tokens, self.max_tokens)

    @property
    def machines(self) -> Machines:
        """One host: an evaluation is not shared between machines."""
        return Machines()
