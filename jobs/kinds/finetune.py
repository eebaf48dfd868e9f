"""``finetune``: a model trained on a corpus, which ends as a version in the registry."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from jobs import names
from jobs.decisions.held_back import HeldBack
from jobs.kinds import label_sets
from jobs.kinds.base import Corpus, Strict
from jobs.kinds.label_sets import LabelSet
from jobs.kinds.promote import Promote
from jobs.kinds.training_spec import (
    METRICS,
    DatasetSplit,
    LabelledCorpus,
    Machines,
    ReadingLimits,
    TrainingSpec,
)
from jobs.models.signatures import Task


class Architecture(StrEnum):
    """Small models that are trained from scratch, with a tokenizer made from the corpus."""

    TRANSFORMER = "transformer"
    TEXTCNN = "textcnn"
    LSTM = "lstm"


FROM_SCRATCH = {
    Architecture.TRANSFORMER: (Task.CLASSIFY, Task.GENERATE),
    Architecture.TEXTCNN: (Task.CLASSIFY,),
    Architecture.LSTM: (Task.CLASSIFY, Task.GENERATE),
}
"""Which small architecture can be trained for what."""


class Lora(Strict):
    """Low-rank adapters instead of full weights (Hu et al. 2021), through peft."""

    r: int = Field(8, ge=1, le=1024, description="Rank of the adapters.")
    alpha: int = Field(16, ge=1, description="Scale of the adapters, divided by their rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before each adapter.")
    target_modules: tuple[str, ...] | None = Field(
        None,
        description="Layers that get an adapter. Default: what peft knows of the architecture, "
        "else every linear layer.",
    )
    merge: bool = Field(
        default=False, description="Register full weights, the adapter merged into its base."
    )


class TrainOptions(Strict):
    """The recipe. An optimizer step is `batch_rows` rows, however many devices share them."""

    epochs: int = Field(3, ge=1, le=10_000, description="Passes over the training rows.")
    max_steps: int | None = Field(
        None, ge=1, description="Optimizer steps at most, whatever the epochs."
    )
    batch_rows: int = Field(32, ge=1, le=1_000_000, description="Rows of one optimizer step.")
    batch_tokens: int = Field(
        0,
        ge=0,
        description="Most tokens, padding included, that go through a device at once; a step with "
        "more is accumulated. 0 takes 2,048 on CPU and 16,384 on an accelerator.",
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        lt=10,
        description="The highest one of the schedule. Default: 5e-5; 2e-4 with LoRA, 1e-3 from "
        "scratch.",
    )
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="How the learning rate falls after the warm-up."
    )
    warmup: float = Field(
        0.06, ge=0, lt=1, description="Share of the steps in which the learning rate rises."
    )
    weight_decay: float = Field(0.01, ge=0, description="Of AdamW.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    seed: int = Field(
        0, ge=0, lt=2**31, description="Of the order of the rows, dropout and new weights."
    )
    mixed_precision: Literal["no", "bf16", "fp16"] = Field(
        "no", description="Type of the forward pass; the weights stay in float32."
    )
    max_tokens: int | None = Field(
        None, ge=8, description="Longer rows are cut. Default: what the model can read."
    )
    class_weights: Literal["balanced"] | None = Field(
        None, description="`balanced`: rows of rare labels weigh more."
    )
    evaluate_steps: int | None = Field(
        None, ge=1, description="Steps between two evaluations. Default: once an epoch."
    )
    metric: str | None = Field(
        None,
        description="Which weights are the best, by the validation rows: `accuracy`, `macro_f1`, "
        "`weighted_f1`, `loss`, `perplexity`, `bleu`, `chrf`. Default: `macro_f1`, else `loss`.",
    )
    patience: int | None = Field(
        None, ge=1, description="Early stopping: after this many evaluations without a better one."
    )
    checkpoint_steps: int | None = Field(
        None,
        ge=1,
        description="Steps between two checkpoints. Default: every five minutes, and at each "
        "evaluation.",
    )
    keep_checkpoints: int = Field(
        2, ge=1, le=100, description="Keep this many of the last ones; the best one besides."
    )
    accelerate: dict[str, Any] | None = Field(
        None,
        description="Entries of an Accelerate config file, such as `fsdp_config`; those of "
        "machines, ranks and addresses are the gang's and refused.",
    )


class FinetuneSpec(TrainingSpec):
    """Train a model on a corpus and register it, with its evaluation."""

    kind: Literal["finetune"] = "finetune"
    task: Task = Field(Task.CLASSIFY, description="What the model is trained for.")
    multi_label: bool = Field(
        default=False, description="A row has any number of labels: an array, or `a|b` in a text."
    )
    validation: LabelledCorpus | None = Field(
        None,
        description="Rows by which the best weights are chosen. Default: a seeded, stratified "
        "share of the corpus.",
    )
    validation_share: float = Field(
        0.1, gt=0, lt=1, description="That share, where no validation corpus is named."
    )
    test: LabelledCorpus | None = Field(
        None, description="Rows by which nothing is chosen; evaluated once, at the end."
    )
    base: str | None = Field(
        None,
        description="The model to start from: `name@version`, `name@alias`, `hf:org/name`, a "
        "folder or a URI.",
    )
    architecture: Architecture | None = Field(
        None, description="Train a small model from scratch, instead of a base."
    )
    model: str = Field(
        pattern=f"^{names.MODEL}$", description="The name under which it is registered."
    )
    machines: Machines = Field(
        Machines(), description="Hosts: `2`, or `2..4` for as many as are free."
    )
    labels: LabelSet | None = Field(
        None,
        description="For classify: the labels that the model knows, whether tonight's rows have "
        "them or not: a list, or a version whose labels they are, such as `news@champion`. "
        "Default: those of the training rows.",
    )
    new_labels: Literal["refuse", "add"] | None = Field(
        None,
        description="With `labels`: whether a training row with another label fails the job "
        "(`refuse`, the default), or its label is added behind them (`add`).",
    )
    train: TrainOptions = TrainOptions()
    lora: Lora | None = Field(None, description="Train low-rank adapters, not all weights.")
    promote: Promote | None = Field(
        None, description="Move an alias to the new version if that is better."
    )

    @field_validator("labels")
    @classmethod
    def _labels_or_version(cls, value: LabelSet | None) -> LabelSet | None:
        if value is not None:
            label_sets.check(value)
        return value

    @model_validator(mode="after")
    def _labels_of_a_classifier(self) -> Self:
        floors = self.promote is not None and self.promote.floors is not None
        if self.task is not Task.CLASSIFY and (self.labels is not None or floors):
            raise ValueError("labels and floors are for the task classify")
        if self.new_labels is not None and self.labels is None:
            raise ValueError("new_labels is for a label set: give `labels` as well")
        if isinstance(self.labels, tuple) and len(self.labels) < (1 if self.multi_label else 2):
            raise ValueError("labels must be at least two; with multi_label at least one")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.base is None) == (self.architecture is None):
            raise ValueError(
                "a fine-tune starts from a `base`, or from scratch with an `architecture` "
                f"({', '.join(Architecture)}): give exactly one"
            )
        if self.lora is not None and self.base is None:
            raise ValueError("lora needs a `base`: from scratch there is nothing to adapt")
        if self.multi_label and self.task is not Task.CLASSIFY:
            raise ValueError("multi_label is for the task classify")
        chosen = (self.train.metric, self.promote.metric if self.promote else None)
        unknown = [metric for metric in chosen if metric not in (None, *METRICS[self.task])]
        if unknown:
            raise ValueError(
                f"the metric of the task {self.task} must be one of "
                f"{', '.join(METRICS[self.task])}, not {unknown[0]!r}"
            )
        if self.architecture is not None and self.task not in FROM_SCRATCH[self.architecture]:
            tasks = ", ".join(FROM_SCRATCH[self.architecture])
            raise ValueError(f"the architecture {self.architecture} is for {tasks}")
        return self

    @property
    def starts_from(self) -> tuple[str, str] | None:
        """The base; none from scratch."""
        return None if self.base is None else ("base", self.base)

    @property
    def registers(self) -> tuple[str, Task]:
        """The name of the new version, and its task."""
        return self.model, self.task

    @property
    def accelerate(self) -> dict[str, Any]:
        """The recipe's entries of an Accelerate config."""
        return self.train.accelerate or {}

    def corpora(self) -> Iterator[tuple[str, Corpus]]:
        """Those that are trained on, chosen by, tested on and promoted by."""
        yield from super().corpora()
        promotion = None if self.promote is None else self.promote.corpus
        others = {
            "validation": self.validation,
            "test": self.test,
            "promote.corpus": promotion,
        }
        yield from ((path, corpus) for path, corpus in others.items() if corpus is not None)

    @property
    def splits(self) -> dict[DatasetSplit, LabelledCorpus]:
        """Those that were given."""
        promotion = None if self.promote is None else self.promote.corpus
        named = {
            DatasetSplit.TRAIN: self.corpus,
            DatasetSplit.VALIDATION: self.validation,
            DatasetSplit.TEST: self.test,
            DatasetSplit.PROMOTION: promotion,
        }
        return {split: corpus for split, corpus in named.items() if corpus is not None}

    @property
    def reading_limits(self) -> ReadingLimits:
        """Those of the recipe."""
        return ReadingLimits(self.train.batch_tokens, self.train.max_tokens)

    @property
    def learning_rate(self) -> float:
        """The recipe's, or what usually suits where the weights come from."""
        if self.train.learning_rate is not None:
            return self.train.learning_rate
        if self.architecture is not None:
            return 1e-3
        return 5e-5 if self.lora is None else 2e-4

    @property
    def held_back(self) -> HeldBack | None:
        """Which rows of the corpus are not trained on, because they decide a promotion."""
        newest = None if self.promote is None else self.promote.newest
        return None if newest is None else HeldBack.parse(newest)

    @property
    def metric(self) -> str:
        """Which weights are the best is decided by it."""
        return self.train.metric or METRICS[self.task][0]
