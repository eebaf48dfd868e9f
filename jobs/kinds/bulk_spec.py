"""What the specs of bulk jobs share: one result for every row of a corpus.

A kind is a ``BulkSpec`` with ``Options`` of its own. Together they hold all that the planner, the
ledger, the API and the command line know of the kind: its fields, its result columns, how many rows
a chunk has, and what it asks of a model.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from jobs.decisions.failure_limit import FailureLimit
from jobs.kinds.base import Corpus, JobSpec, Output, Strict
from jobs.kinds.result_columns import Column
from jobs.models import compatibility
from jobs.models.inspection import ModelFacts
from jobs.models.signatures import Signature, Task
from jobs.settings import Settings


class Options(Strict):
    """What a kind lets a job choose; the fields here are every kind's."""

    kind: ClassVar[str]
    trained_for: ClassVar[Task | None] = None
    """The task of a fine-tune whose model answers this kind as it was trained."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Type of the weights. `auto`: float32 on CPU, bfloat16 where the accelerator "
        "has it.",
    )

    def check(self, facts: ModelFacts) -> None:
        """Raise ``ModelFailure`` unless this model can do what the options ask.

        The codes are listed in ``jobs.models``.
        """
        if self.reads_texts:
            compatibility.check_reads_texts(facts)
            compatibility.check_vocabulary(facts.vocabulary, largest_token=facts.largest_token)
        if facts.signature is not None:
            self.check_signature(facts.signature)
        self.check_model(facts)

    @property
    def reads_texts(self) -> bool:
        """Whether every row is a text."""
        return True

    @abstractmethod
    def check_model(self, facts: ModelFacts) -> None:
        """Raise ``ModelFailure`` unless the model is one for this kind."""

    def check_signature(self, signature: Signature) -> None:
        """Raise ``ModelFailure`` where the options cannot work with a model so trained."""

    def is_as_trained(self, signature: Signature) -> bool:
        """Whether the options ask for what the model was trained for."""
        return self.trained_for is signature.task

    def trained_values(self, signature: Signature) -> Mapping[str, object]:
        """Options by name that the signature decides where the job leaves them out."""
        del signature
        return {}

    def other_use(self, signature: Signature) -> str | None:
        """A warning where the model is used for what it was not trained for."""
        del signature
        return None


class LongTexts(StrEnum):
    """What happens to a text that is longer than the window."""

    TRUNCATE = "truncate"
    STRIDE = "stride"


class WindowOptions(Options):
    """How an encoder reads a text: one window of it, or several."""

    long_texts: LongTexts = Field(
        LongTexts.TRUNCATE,
        description="`truncate` keeps the beginning and marks the row; `stride` averages over "
        "overlapping windows.",
    )
    stride: int = Field(64, ge=0, description="Tokens that neighbouring windows share.")
    max_tokens: int | None = Field(
        None,
        ge=8,
        description="Window in tokens. Default: as the model was trained, else what it can read, "
        "which is the upper bound.",
    )


class DecodingOptions(Options):
    """How long a text may be that a model writes."""

    max_new_tokens: int = Field(128, ge=1, le=32_768, description="The longest output, in tokens.")
    stop: tuple[str, ...] = Field(
        (), max_length=16, description="The output ends before the first of these texts."
    )

    @field_validator("stop")
    @classmethod
    def _matchable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(not text for text in value):
            raise ValueError("a stop text must not be empty")
        if any("\ufffd" in text for text in value):
            raise ValueError("a stop text must not have U+FFFD, which stands for bytes of no text")
        return value


class PairCorpus(Corpus):
    """A corpus whose rows may be pairs of texts."""

    pair_column: str | None = Field(
        None,
        description="A column with a second text: the model reads both together, as models of "
        "inference (NLI), of paraphrase or of relevance (cross-encoders) do.",
    )


class BulkSpec(JobSpec):
    """What every kind of bulk job has."""

    columns: ClassVar[tuple[Column, ...]]
    """What a result has beside the row it is of and its error."""

    model: str = Field(
        description="`name@version`, `name@alias`, `hf:org/name`, a folder or a URI."
    )
    output: Output = Output()
    chunk_rows: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Rows per chunk; default by the installation's settings.",
    )
    max_failed: str | int | float | None = Field(
        None,
        description="Rows that may fail: a share, such as `0.1` or `10%`, or a whole number. With "
        "more the job fails as soon as that is certain. Default: all but one; `100%`: all.",
    )

    @field_validator("max_failed", mode="before")
    @classmethod
    def _share_or_count(cls, value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, str | int | float | None):
            value = str(value)
        FailureLimit.parse(value)
        return value

    @property
    def options(self) -> Options:
        """What the job chooses, in the field that is named as the kind."""
        options: Options = getattr(self, type(self).model_fields["kind"].default)
        return options

    @property
    def starts_from(self) -> tuple[str, str]:
        """The model that answers the rows."""
        return "model", self.model

    @property
    def result_columns(self) -> tuple[Column, ...]:
        """The columns of this job's results."""
        return self.columns

    @property
    def reads_pairs(self) -> bool:
        """Whether every row is two texts, which the model reads together."""
        return isinstance(self.corpus, PairCorpus) and self.corpus.pair_column is not None

    def default_chunk_rows(self, settings: Settings) -> int:
        """Most rows of a chunk where the job names no number."""
        return settings.chunk_rows

    def embedding_width(self, facts: ModelFacts) -> int | None:
        """Length of a result's vector; ``None``: results have none."""
        del facts
        return None
