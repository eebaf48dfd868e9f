"""``text2text``: an encoder with a decoder translates or summarizes every row of a corpus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from jobs.errors import ModelFailure
from jobs.kinds.bulk_spec import BulkSpec, DecodingOptions
from jobs.kinds.result_columns import WRITTEN, Column
from jobs.models import compatibility
from jobs.models.compatibility import SEQ2SEQ
from jobs.models.inspection import ModelFacts
from jobs.models.signatures import Signature, Task
from jobs.settings import Settings


class Text2TextOptions(DecodingOptions):
    """How an encoder with a decoder writes; with one beam the likeliest token is always next."""

    kind: ClassVar[str] = "text2text"
    trained_for: ClassVar[Task | None] = Task.TEXT2TEXT

    prompt: str | None = Field(
        None,
        description="Put before every text: `translate English to German: `. Default: as the "
        "model was trained, else none; empty: none.",
    )
    source_language: str | None = Field(
        None,
        description="Language of the rows, as the model's tokenizer names it: `eng_Latn`, `en_XX`, "
        "`en`.",
    )
    target_language: str | None = Field(None, description="The same, of what is written.")
    beams: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Hypotheses that are followed at once. Default: by the model's files.",
    )
    length_penalty: float | None = Field(
        None,
        ge=-10,
        le=10,
        description="Of beams: above 0, longer. Default: by the model's files.",
    )
    no_repeat_ngram: int | None = Field(
        None,
        ge=0,
        le=100,
        description="No sequence of this many tokens twice; 0: no such rule. Default: by the "
        "model's files.",
    )
    max_tokens: int | None = Field(
        None,
        ge=8,
        description="A longer text is cut. Default: as the model was trained, else what it can "
        "read, which is the upper bound.",
    )

    def check_model(self, facts: ModelFacts) -> None:
        """An encoder with a decoder that has room for the longest output."""
        if not any(name.endswith(SEQ2SEQ) for name in facts.architectures):
            raise ModelFailure(
                "text2text needs an encoder with a decoder, such as T5, BART, Marian or NLLB "
                f"(...{', ...'.join(SEQ2SEQ)} in config.json); this one is "
                f"{compatibility.named(facts)}",
                code="model_not_text2text",
            )
        if facts.decoder_positions is not None and self.max_new_tokens > facts.decoder_positions:
            raise ModelFailure(
                f"text2text.max_new_tokens must be at most {facts.decoder_positions}, the "
                f"positions of the model's decoder, not {self.max_new_tokens}",
                code="model_too_short",
            )

    def trained_values(self, signature: Signature) -> Mapping[str, object]:
        """The prompt and the window."""
        return {"prompt": signature.prompt, "max_tokens": signature.max_tokens}


class Text2TextSpec(BulkSpec):
    """Translate or summarize every row of a corpus."""

    columns: ClassVar[tuple[Column, ...]] = WRITTEN

    kind: Literal["text2text"] = "text2text"
    text2text: Text2TextOptions = Text2TextOptions()

    def default_chunk_rows(self, settings: Settings) -> int:
        """Fewer than where a row is one forward pass."""
        return settings.written_chunk_rows
