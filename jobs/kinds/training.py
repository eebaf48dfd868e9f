"""Specs of jobs that train or evaluate: what runs on a gang of hosts."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from jobs.kinds.base import Corpus, JobSpec, Strict


class Task(StrEnum):
    """What a model is trained for, and which head it has."""

    CLASSIFY = "classify"
    GENERATE = "generate"
    TEXT2TEXT = "text2text"


METRICS = {
    Task.CLASSIFY: ("macro_f1", "weighted_f1", "accuracy", "loss"),
    Task.GENERATE: ("loss", "perplexity"),
    Task.TEXT2TEXT: ("loss", "perplexity", "bleu", "chrf"),
}
"""What a best-so-far rule and a promotion can go by, of each task; the first is the default."""


class LabelledCorpus(Corpus):
    """A corpus whose rows say what the model should answer."""

    target_column: str | None = Field(
        None,
        description="The label, or the text to be written. Default: `label`, `labels`, `target`, "
        "`completion`, `summary`, `translation`, or the only other column. For generate: "
        "`target`, `completion`, `summary` or `translation`, else the rows are plain text.",
    )
    messages_column: str | None = Field(
        None,
        description='For generate: a column of conversations, each a list of `{"role", '
        '"content"}`; what the assistant says is learned. Default: `messages`, where neither '
        "text_column nor target_column is given.",
    )

    @model_validator(mode="after")
    def _messages_stand_alone(self) -> Self:
        if self.messages_column is not None and (self.text_column or self.target_column):
            raise ValueError(
                "messages_column holds whole conversations: leave text_column and target_column out"
            )
        return self


class Architecture(StrEnum):
    """Small models that are trained from scratch, with a tokenizer made from the corpus."""

    TRANSFORMER = "transformer"
    TEXTCNN = "textcnn"
    LSTM = "lstm"


class Machines(Strict):
    """How many hosts a run takes: written `3`, or `2..4` for what is there."""

    min: int = Field(1, ge=1, le=256)
    max: int = Field(1, ge=1, le=256)

    @model_validator(mode="before")
    @classmethod
    def _written(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError("machines must be a number such as 2, or a range such as 2..4")  # noqa: TRY004
        if isinstance(value, int):
            return {"min": value, "max": value}
        if isinstance(value, str):
            least, found, most = value.partition("..")
            if not least.isdecimal() or (found and not most.isdecimal()):
                raise ValueError(
                    f"machines must be a number such as 2, or a range such as 2..4, not {value!r}"
                )
            return {"min": int(least), "max": int(most) if found else int(least)}
        return value

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"machines must be a range such as 2..4, not {self.min}..{self.max}")
        return self


class Lora(Strict):
    """Low-rank adapters instead of full weights (Hu et al. 2021), through peft."""

    r: int = Field(8, ge=1, le=1024, description="Rank of the adapters.")
    alpha: int = Field(16, ge=1, description="Scale, over `r`.")
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: tuple[str, ...] | None = Field(
        None, description="Default: what peft knows of the architecture, else every linear layer."
    )
    merge: bool = Field(
        default=False, description="Register full weights, the adapter merged into its base."
    )


class TrainOptions(Strict):
    """The recipe. An optimizer step is `batch_rows` rows, however many devices share them."""

    epochs: int = Field(3, ge=1, le=10_000)
    max_steps: int | None = Field(None, ge=1, description="Ends earlier, whatever the epochs.")
    batch_rows: int = Field(32, ge=1, le=1_000_000, description="Rows of one optimizer step.")
    batch_tokens: int = Field(
        0,
        ge=0,
        description="Most tokens, padding included, that go through a device at once; a step with "
        "more is accumulated. 0 takes 2,048 on CPU and 16,384 on an accelerator.",
    )
    learning_rate: float | None = Field(
        None, gt=0, lt=10, description="Default: 5e-5; 2e-4 with LoRA, 1e-3 from scratch."
    )
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float = Field(0.06, ge=0, lt=1, description="Share of the steps.")
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    seed: int = Field(0, ge=0, lt=2**31)
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    max_tokens: int | None = Field(None, ge=8, description="Longer rows are cut.")
    class_weights: Literal["balanced"] | None = Field(
        None, description="`balanced`: rows of rare labels weigh more."
    )
    evaluate_steps: int | None = Field(None, ge=1, description="Default: once an epoch.")
    metric: str | None = Field(
        None,
        description="The best-so-far rule's, on the validation rows: `accuracy`, `macro_f1`, "
        "`weighted_f1`, `loss`, `perplexity`, `bleu`, `chrf`. Default: `macro_f1`, else `loss`.",
    )
    patience: int | None = Field(
        None, ge=1, description="Stop after so many evaluations without a better one."
    )
    checkpoint_steps: int | None = Field(
        None, ge=1, description="Default: every five minutes, and at each evaluation."
    )
    keep_checkpoints: int = Field(2, ge=1, le=100, description="The last ones; the best besides.")
    accelerate: dict[str, Any] | None = Field(
        None,
        description="Entries of an Accelerate config file, such as `fsdp_config`; what concerns "
        "machines, ranks and addresses is the gang's and refused.",
    )


class Promote(Strict):
    """Move an alias to the new version, only if it is better than what the alias points to."""

    alias: str = Field("champion", pattern=r"^[a-z][a-z0-9_-]{0,39}$")
    metric: str | None = Field(None, description="Default: the recipe's.")
    margin: float = Field(0.0, ge=0, description="Better by more than this.")
    corpus: LabelledCorpus | None = Field(
        None, description="The named set. Default: the test rows, else the validation rows."
    )


MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$"


class TrainingSpec(JobSpec):
    """What runs on a gang of hosts."""

    pool: str = Field("train", pattern=r"^[a-z0-9_-]{1,40}$", description="Which hosts run it.")
    corpus: LabelledCorpus
    chat: bool | None = Field(
        None,
        description="For generate: rows go through the model's chat template, the text as the "
        "user's message and the target as the assistant's. Default: as the model was trained, "
        "else if it has a template and the rows have answers.",
    )
    system: str | None = Field(
        None,
        description="The system message of every chat that begins with none. Default: as the "
        "model was trained, else none.",
    )
    prompt: str | None = Field(
        None,
        description="For text2text: put before every text, such as `summarize: `. Default: as the "
        "model was trained, else none.",
    )

    @model_validator(mode="after")
    def _read_as_the_task_reads(self) -> Self:
        task = getattr(self, "task", None)
        if task not in (None, Task.GENERATE) and (self.chat or self.system is not None):
            raise ValueError("chat and system are for the task generate")
        if task not in (None, Task.TEXT2TEXT) and self.prompt:
            raise ValueError("prompt is for the task text2text")
        if self.system is not None and self.chat is False:
            raise ValueError("a system message is for chats: leave `chat` out, or set it to true")
        return self


class FinetuneSpec(TrainingSpec):
    """A model trained on a corpus; ends as a version in the registry."""

    kind: Literal["finetune"] = "finetune"
    task: Task = Task.CLASSIFY
    multi_label: bool = Field(
        default=False, description="A row has any number of labels: an array, or `a|b` in a text."
    )
    validation: LabelledCorpus | None = Field(
        None, description="Default: a seeded, stratified share of the corpus."
    )
    validation_share: float = Field(0.1, gt=0, lt=1)
    test: LabelledCorpus | None = Field(
        None, description="Rows that nothing is chosen by; evaluated once, at the end."
    )
    base: str | None = Field(
        None, description="`name@version`, `name@alias`, `hf:org/name`, a folder or a URI."
    )
    architecture: Architecture | None = Field(None, description="From scratch, instead of a base.")
    model: str = Field(pattern=MODEL_NAME, description="The name it is registered under.")
    machines: Machines = Machines()
    train: TrainOptions = TrainOptions()
    lora: Lora | None = None
    promote: Promote | None = None

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
    def learning_rate(self) -> float:
        """The recipe's, or what usually suits where the weights come from."""
        if self.train.learning_rate is not None:
            return self.train.learning_rate
        if self.architecture is not None:
            return 1e-3
        return 5e-5 if self.lora is None else 2e-4

    @property
    def metric(self) -> str:
        """What the best-so-far rule goes by."""
        return self.train.metric or METRICS[self.task][0]


FROM_SCRATCH = {
    Architecture.TRANSFORMER: (Task.CLASSIFY, Task.GENERATE),
    Architecture.TEXTCNN: (Task.CLASSIFY,),
    Architecture.LSTM: (Task.CLASSIFY, Task.GENERATE),
}
"""Which small architecture can be trained for what."""


class EvaluateSpec(TrainingSpec):
    """A report on a model over a labelled corpus."""

    kind: Literal["evaluate"] = "evaluate"
    task: Task | None = Field(
        None, description="Default: what the model was trained for, else classify."
    )
    multi_label: bool | None = Field(
        None,
        description="A row has any number of labels: an array, or `a|b` in a text. Default: as "
        "the model was trained.",
    )
    model: str = Field(
        description="`name@version`, `name@alias`, `hf:org/name`, a folder or a URI."
    )
    batch_tokens: int = Field(0, ge=0, description="As of training.")
    max_tokens: int | None = Field(
        None,
        ge=8,
        description="Longer rows are cut. Default: as the model was trained, else what it can.",
    )

    @property
    def machines(self) -> Machines:
        """One host: an evaluation is not shared between machines."""
        return Machines()


AnyTraining = FinetuneSpec | EvaluateSpec
