"""A version's signature: how it was trained to read a row and what it outputs (promise P13).

It is kept with the version in the registry and, as ``nightshift_signature.json``, in the version's
folder, so that a copied folder keeps it. Results depend on it, so a model's digest covers it.
``jobs.kinds.signature_defaults`` decides what follows from it for a job.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.errors import ModelFailure

FILE = "nightshift_signature.json"


class Task(StrEnum):
    """What a model is trained for, and which head it has."""

    CLASSIFY = "classify"
    GENERATE = "generate"
    TEXT2TEXT = "text2text"


class RowForm(StrEnum):
    """What a row of a training corpus is."""

    TEXT = "text"  # a plain text
    PAIR = "pair"  # a text and its target: a label, or the text to generate
    MESSAGES = "messages"  # a conversation


class Signature(BaseModel):
    """How a model was trained, or how a training job reads its rows."""

    model_config = ConfigDict(frozen=True)

    task: Task
    rows: RowForm = Field(RowForm.PAIR, description="What a row of the training corpus was.")
    labels: tuple[str, ...] = Field((), description="Of a classifier, by id.")
    multi_label: bool = Field(default=False, description="A row has any number of labels.")
    chat: bool = Field(
        default=False, description="Rows are rendered by the chat template of the model's folder."
    )
    chat_template: str | None = Field(
        None, description="Of the template's text: its sha256. Null: none was used."
    )
    system: str | None = Field(None, description="The system message of every chat.")
    prompt: str = Field("", description="Put before every text of `text2text`.")
    max_tokens: int | None = Field(None, description="The window in tokens.")

    @property
    def words(self) -> str:
        """In words, such as `no chat template, window 128`."""
        return ", ".join(
            [*self._task_words(), *([f"window {self.max_tokens}"] * bool(self.max_tokens))]
        )

    def _task_words(self) -> list[str]:
        match self.task:
            case Task.CLASSIFY:
                labels = "any number of labels a row" if self.multi_label else "one label a row"
                return [f"{labels}, of {len(self.labels)}" if self.labels else labels]
            case Task.GENERATE:
                system = [] if self.system is None else [f"system text {_shown(self.system)}"]
                return ["chat template" if self.chat else "no chat template", *system]
            case Task.TEXT2TEXT:
                return [f"prompt {_shown(self.prompt)}" if self.prompt else "no prompt"]


class Reading(BaseModel):
    """How a job reads its rows, as shown to its owner."""

    model_config = ConfigDict(frozen=True)

    model: str = Field(description="The reference, pinned where it can be.")
    trained: Signature
    warnings: tuple[str, ...] = Field(
        (), description="Where the job differs from the training, in words."
    )

    @property
    def words(self) -> str:
        """In a line: `as news@3 was trained: no chat template, window 128`."""
        return f"as {self.model} was trained: {self.trained.words}"


def read(folder: Path) -> Signature | None:
    """The signature in a model's folder; ``None`` if there is none. Raises ``ModelFailure``."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return Signature.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise ModelFailure(f"{FILE} of the model is no signature: {error}") from error


def write(folder: Path, signature: Signature) -> None:
    (folder / FILE).write_text(signature.model_dump_json(indent=2) + "\n", encoding="utf-8")


_MAX_SHOWN = 60


def _shown(text: str) -> str:
    return repr(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…")
