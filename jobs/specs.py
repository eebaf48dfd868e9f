"""What a user may ask for: the spec of each kind of job, checked field by field.

A spec is the request and the record: it is stored with the job as it was accepted. Unknown fields
are refused, so that a misspelt option is an error and not a silent default.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    field_validator,
    model_validator,
)


class CorpusFormat(StrEnum):
    """How rows are written in a corpus."""

    JSONL = "jsonl"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"
    TEXT = "text"


class OutputFormat(StrEnum):
    """How results are written to a single file."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


class Strict(BaseModel):
    """A frozen value that refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*")
    @classmethod
    def _storable(cls, value: object) -> object:
        texts = value if isinstance(value, tuple) else (value,)
        if any(isinstance(text, str) and "\0" in text for text in texts):
            raise ValueError("a text must not contain the character NUL")
        return value


class Corpus(Strict):
    """Where the rows are and how to read them. Exactly one of ``file`` and ``uri``."""

    file: str | None = Field(None, description="Id of an uploaded file, `file-...`.")
    uri: str | None = Field(
        None, description="`file:///...`, `s3://...` or `hf://datasets/org/name/path`."
    )
    format: CorpusFormat | None = Field(None, description="Default: by the name's ending.")
    compression: Literal["gzip", "zstd", "none"] | None = Field(
        None, description="Default: by the first bytes."
    )
    encoding: str = Field("utf-8", description="Python codec name; a BOM is always honoured.")
    text_column: str | None = Field(
        None,
        description="Default: `text`, `content`, `sentence`, `body`, `document`, `title`, "
        "or the only column of text.",
    )
    id_column: str | None = Field(None, description="A column copied to the result as `id`.")

    @field_validator("encoding")
    @classmethod
    def _known_codec(cls, value: str) -> str:
        try:
            "".encode(value)
        except LookupError:
            raise ValueError(
                f"encoding must be a Python codec name such as gb18030, not {value!r}"
            ) from None
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.file is None) == (self.uri is None):
            raise ValueError(
                "a corpus is either an uploaded `file` id or a `uri`: give exactly one"
            )
        return self


class Output(Strict):
    """What is written besides the parts and their manifest."""

    format: OutputFormat | None = Field(None, description="One single file as well.")
    postgres: bool = Field(
        default=False, description="Copy each result row into the table `result_rows` as well."
    )
    keep_text: bool = Field(default=False, description="Repeat each row's text in its result.")


class LongTexts(StrEnum):
    """What becomes of a text that is longer than the window."""

    TRUNCATE = "truncate"
    STRIDE = "stride"


class ClassifyOptions(Strict):
    """How to classify. With ``labels`` the model is an encoder and the nearest label wins."""

    labels: tuple[str, ...] | None = Field(
        None,
        description="Label texts: the label whose embedding is nearest to the row's (cosine). "
        "Without: the model's own head and id2label.",
    )
    top_k: int = Field(1, ge=1, description="How many labels, best first.")
    all_scores: bool = Field(default=False, description="Every label with its score, best first.")
    multi_label: bool | None = Field(
        None,
        description="Every label whose sigmoid score reaches `threshold`. Default: what the "
        "model's config says (problem_type).",
    )
    threshold: float = Field(0.5, gt=0, lt=1, description="Of multi-label.")
    long_texts: LongTexts = Field(
        LongTexts.TRUNCATE,
        description="`truncate` keeps the beginning and marks the row; `stride` averages the "
        "scores over overlapping windows.",
    )
    stride: int = Field(64, ge=0, description="Tokens that neighbouring windows share.")
    max_tokens: int | None = Field(
        None, ge=8, description="Window in tokens; default and upper bound: the model's own."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="`auto`: float32 on CPU, bfloat16 where the accelerator has it."
    )

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (len(value) < 2 or len(set(value)) != len(value)):  # noqa: PLR2004
            raise ValueError("labels must be at least two different texts")
        if value is not None and any(not label.strip() for label in value):
            raise ValueError("a label must not be empty")
        return value


class JobSpec(Strict):
    """What every kind of job has."""

    pool: str = Field("cpu", pattern=r"^[a-z0-9_-]{1,40}$", description="Which workers run it.")
    priority: int = Field(0, ge=-100, le=100, description="Higher goes first.")
    deadline_seconds: float | None = Field(
        None,
        gt=0,
        le=10 * 365 * 86_400,
        description="Expires when not finished this long after it was accepted.",
    )
    name: str | None = Field(None, max_length=200, description="For people.")


class ClassifySpec(JobSpec):
    """One label, or several, for every row of a corpus."""

    kind: Literal["classify"] = "classify"
    corpus: Corpus
    model: str = Field(
        description="`name@version`, `name@alias`, `hf:org/name`, a folder or a URI."
    )
    classify: ClassifyOptions = ClassifyOptions()
    output: Output = Output()
    chunk_rows: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Rows per chunk; default by the installation's settings.",
    )


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
    task: Task = Task.CLASSIFY
    multi_label: bool = Field(
        default=False, description="A row has any number of labels: an array, or `a|b` in a text."
    )
    corpus: LabelledCorpus


class FinetuneSpec(TrainingSpec):
    """A model trained on a corpus; ends as a version in the registry."""

    kind: Literal["finetune"] = "finetune"
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
    model: str = Field(
        description="`name@version`, `name@alias`, `hf:org/name`, a folder or a URI."
    )
    batch_tokens: int = Field(0, ge=0, description="As of training.")
    max_tokens: int | None = Field(None, ge=8, description="Longer rows are cut.")

    @property
    def machines(self) -> Machines:
        """One host: an evaluation is not shared between machines."""
        return Machines()


BULK = frozenset({"classify"})
TRAINING = frozenset({"finetune", "evaluate"})


def _kind(value: object) -> str:
    """The kind of a spec as it was sent; without one it is a classification."""
    found = value.get("kind", "classify") if isinstance(value, dict) else getattr(value, "kind", "")
    return str(found)


AnyTraining = FinetuneSpec | EvaluateSpec
AnySpec = ClassifySpec | AnyTraining
Spec = Annotated[
    Annotated[ClassifySpec, Tag("classify")]
    | Annotated[FinetuneSpec, Tag("finetune")]
    | Annotated[EvaluateSpec, Tag("evaluate")],
    Discriminator(
        _kind,
        custom_error_type="unknown_kind",
        custom_error_message=f"kind must be one of {', '.join(sorted(BULK | TRAINING))}",
    ),
]
"""Any job's spec, told apart by ``kind``."""

_ANY: TypeAdapter[AnySpec] = TypeAdapter(Spec)


def parse(value: object) -> AnySpec:
    """A spec of whatever kind. Raises pydantic's ``ValidationError``."""
    return _ANY.validate_python(value)


def training(value: object) -> AnyTraining:
    """A stored spec of a job that trains or evaluates."""
    found = parse(value)
    assert not isinstance(found, ClassifySpec)
    return found
