"""What the specs of jobs that train or evaluate share: what runs on a gang of hosts."""

from __future__ import annotations

from abc import abstractmethod
from enum import StrEnum
from typing import NamedTuple, Self

from pydantic import Field, model_validator

from jobs import names
from jobs.kinds.base import Corpus, JobSpec, Strict
from jobs.models.signatures import Task


class DatasetSplit(StrEnum):
    """What the rows of a corpus are for. The corpus of an evaluation is its test split."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"
    PROMOTION = "promotion"


METRICS = {
    Task.CLASSIFY: ("macro_f1", "weighted_f1", "accuracy", "loss"),
    Task.GENERATE: ("loss", "perplexity"),
    Task.TEXT2TEXT: ("loss", "perplexity", "bleu", "chrf"),
}
"""Metrics of each task by which weights are the best and versions are promoted; the first is the
default."""


class LabelledCorpus(Corpus):
    """A corpus whose rows have the answer that the model should give."""

    target_column: str | None = Field(
        None,
        description="The label, or the text that should be written. Default: `label`, `labels`, "
        "`target`, `completion`, `summary`, `translation`, or the only other column. For generate: "
        "`target`, `completion`, `summary` or `translation`, else the rows are plain text.",
    )
    messages_column: str | None = Field(
        None,
        description='For generate: a column of conversations, each a list of `{"role", '
        '"content"}`; what the assistant writes is learned. Default: `messages`, where neither '
        "text_column nor target_column is given.",
    )

    @model_validator(mode="after")
    def _messages_stand_alone(self) -> Self:
        if self.messages_column is not None and (self.text_column or self.target_column):
            raise ValueError(
                "messages_column holds whole conversations: leave text_column and target_column out"
            )
        return self


class Machines(Strict):
    """How many hosts a run takes: `3`, or `2..4` for as many as are free."""

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


class ReadingLimits(NamedTuple):
    """How much a job reads at once; null: as the model was trained, else what it can read."""

    batch_tokens: int  # on a device, padding included; 0: what suits the device
    max_tokens: int | None  # of a row


class TrainingSpec(JobSpec):
    """What every kind that runs on a gang of hosts has."""

    pool: str = Field("train", pattern=f"^{names.POOL}$", description="Which hosts run it.")
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

    @property
    @abstractmethod
    def splits(self) -> dict[DatasetSplit, LabelledCorpus]:
        """The corpora; train comes first, because the others are checked against it."""

    @property
    @abstractmethod
    def reading_limits(self) -> ReadingLimits:
        """The limits that the job asks for."""

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
