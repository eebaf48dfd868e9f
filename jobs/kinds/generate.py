"""``generate``: a causal language model goes on from every row of a corpus, or answers it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from jobs.errors import ModelFailure
from jobs.kinds.base import Corpus, Strict
from jobs.kinds.bulk_spec import BulkSpec, DecodingOptions
from jobs.kinds.result_columns import WRITTEN, Column
from jobs.models import compatibility
from jobs.models.compatibility import CAUSAL
from jobs.models.inspection import ModelFacts
from jobs.models.signatures import Signature, Task
from jobs.settings import Settings


class RowSettings(Strict):
    """What a row may set for itself; the rest is as the job has it."""

    temperature: float | None = Field(None, ge=0, le=10)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    seed: int | None = Field(None, ge=0, lt=2**31)
    max_new_tokens: int | None = Field(None, ge=1, le=32_768)


class GenerateOptions(DecodingOptions):
    """How a causal language model goes on; at temperature 0 the likeliest token is always next."""

    kind: ClassVar[str] = "generate"
    trained_for: ClassVar[Task | None] = Task.GENERATE

    chat: bool | None = Field(
        None,
        description="Whether a row is a message to the assistant, put into the model's chat "
        "template. Default: as the model was trained, else if it has a template.",
    )
    system: str | None = Field(
        None, description="The system message of every chat. Default: as the model was trained."
    )
    temperature: float = Field(
        0.0, ge=0, le=10, description="0: the likeliest token is always next; above: sample."
    )
    top_p: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Nucleus sampling: from the likeliest tokens that have this much probability.",
    )
    top_k: int = Field(
        0, ge=0, description="Sample from this many of the likeliest tokens; 0: from all."
    )
    repetition_penalty: float | None = Field(
        None, gt=0, le=10, description="1 is none. Default: by the model's files."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Of sampling; each row draws on its own.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.system is not None and self.chat is False:
            raise ValueError("a system message is for chats: leave `chat` out, or set it to true")
        if not self.temperature and (self.top_k or self.top_p < 1):
            raise ValueError("top_k and top_p are for sampling: set a temperature above 0")
        return self

    def of_row(self, settings: str) -> Self:
        """These options with those of a row, a JSON object with fields of ``RowSettings``.

        A row at temperature 0 leaves the job's ``top_p`` and ``top_k``. Raises pydantic's
        ``ValidationError``.
        """
        given = RowSettings.model_validate_json(settings).model_dump(exclude_none=True)
        greedy = {} if given.get("temperature") != 0 else {"top_p": 1.0, "top_k": 0}
        return type(self).model_validate(self.model_dump() | greedy | given)

    def check_model(self, facts: ModelFacts) -> None:
        """A causal language model with room for the longest output."""
        if not any(name.endswith(CAUSAL) for name in facts.architectures):
            raise ModelFailure(
                f"generate needs a causal language model (...{', ...'.join(CAUSAL)} in "
                f"config.json); this one is {compatibility.named(facts)}",
                code="model_not_a_generator",
            )
        if (self.chat or self.system is not None) and not facts.has_chat_template:
            raise ModelFailure(
                "the model's tokenizer has no chat template: leave chat and system out, and write "
                "the prompt as the model was trained on it",
                code="model_no_chat_template",
            )
        if facts.max_tokens is not None and self.max_new_tokens >= facts.max_tokens:
            raise ModelFailure(
                f"generate.max_new_tokens must be less than {facts.max_tokens}, what the model can "
                f"read and write in all, not {self.max_new_tokens}",
                code="model_too_short",
            )

    def trained_values(self, signature: Signature) -> Mapping[str, object]:
        """Chat or plain text, and the system message."""
        return {
            # A job that names a system message wants a chat.
            "chat": signature.chat or self.system is not None,
            # A job that asks for no chat has no place for a system message.
            "system": None if self.chat is False else signature.system,
        }


class PromptCorpus(Corpus):
    """A corpus whose rows may have settings of their own."""

    settings_column: str | None = Field(
        None,
        description="A column with a row's own `temperature`, `top_p`, `top_k`, `seed` and "
        "`max_new_tokens`, any of them: a JSON object. What it leaves out is as the job has it.",
    )


class GenerateSpec(BulkSpec):
    """Let a language model go on from every row of a corpus, or answer it."""

    columns: ClassVar[tuple[Column, ...]] = WRITTEN

    kind: Literal["generate"] = "generate"
    corpus: PromptCorpus
    generate: GenerateOptions = GenerateOptions()

    def default_chunk_rows(self, settings: Settings) -> int:
        """Fewer than where a row is one forward pass."""
        return settings.written_chunk_rows
