"""``embed``: a vector for every row of a corpus."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import Field

from jobs.errors import ModelFailure
from jobs.kinds.bulk_spec import BulkSpec, WindowOptions
from jobs.kinds.result_columns import TOKENS, TRUNCATED, Column, ColumnType
from jobs.models import compatibility
from jobs.models.compatibility import CAUSAL, SEQ2SEQ
from jobs.models.inspection import WIDTHS, ModelFacts
from jobs.models.sentence_transformers import POOLING
from jobs.models.signatures import Signature


class Pooling(StrEnum):
    """How a text's vector is made of its tokens' vectors."""

    MEAN = "mean"
    CLS = "cls"
    LAST = "lasttoken"
    MAX = "max"


MODULES = ("Transformer", "Pooling", "Normalize")
"""Modules of a sentence-transformers folder that are followed, in this order, the last or not."""

POOLINGS = (*Pooling, "mean_sqrt_len")


class EmbedOptions(WindowOptions):
    """How to embed. What is left out follows the model's own files."""

    kind: ClassVar[str] = "embed"

    pooling: Pooling | None = Field(
        None,
        description="How tokens become one vector. Default: by the model's files "
        "(`1_Pooling`), else `mean`.",
    )
    normalize: bool | None = Field(
        None, description="To length one. Default: by the model's files (`modules.json`), else not."
    )
    dimensions: int | None = Field(
        None,
        ge=1,
        description="Keep this many values of each vector, from the first on (Matryoshka models). "
        "Default: by the model's files, else all.",
    )
    prompt: str | None = Field(
        None,
        description="Put before every text, such as `query: `. Default: by the model's files; "
        "empty: none.",
    )

    def check_model(self, facts: ModelFacts) -> None:
        """An encoder that stands alone, and whose pooling is known."""
        check_encoder(facts, who="embed needs")
        if facts.has_decoder:
            raise ModelFailure(
                "embed needs an encoder that stands alone; this model has a decoder "
                f"({compatibility.named(facts)})",
                code="model_not_an_encoder",
            )
        check_modules(facts, pooling=self.pooling or facts.pooling or Pooling.MEAN)
        self._check_vector(facts)

    def other_use(self, signature: Signature) -> str | None:
        """No fine-tune trains vectors."""
        trained = f"the model was trained to {signature.task}"
        return f"{trained}, and its vectors were not trained to be compared"

    def prompt_of(self, facts: ModelFacts) -> str:
        """What stands before every text: the option, or else what the model's files have."""
        return facts.prompt if self.prompt is None else self.prompt

    def width(self, facts: ModelFacts) -> int:
        """Length of a vector by a model that ``check`` has passed."""
        assert facts.width is not None, "check refuses it"
        return self.dimensions or facts.dimensions or facts.width

    def _check_vector(self, facts: ModelFacts) -> None:
        if facts.width is None:
            raise ModelFailure(
                "config.json of the model must say how long a token's vector is "
                f"({', '.join(WIDTHS)})",
                code="model_unsupported",
            )
        if self.width(facts) > facts.width:
            raise ModelFailure(
                f"embed.dimensions must be at most {facts.width}, the length of the model's "
                f"vectors, not {self.width(facts)}",
                code="model_too_narrow",
            )
        if self.prompt_of(facts) and not facts.pools_prompt:
            raise ModelFailure(
                "the model pools without the tokens of its prompt (include_prompt), which is not "
                "supported: choose another model, or one without a prompt",
                code="model_unsupported",
            )


class EmbedSpec(BulkSpec):
    """Give every row of a corpus its vector."""

    strides: ClassVar[bool] = True
    columns: ClassVar[tuple[Column, ...]] = (
        Column("embedding", ColumnType.VECTOR),
        TOKENS,
        TRUNCATED,
    )

    kind: Literal["embed"] = "embed"
    embed: EmbedOptions = EmbedOptions()

    def embedding_width(self, facts: ModelFacts) -> int:
        """As the options and the model's files have it."""
        return self.embed.width(facts)


def check_encoder(facts: ModelFacts, *, who: str) -> None:
    """Raise ``ModelFailure`` for a model that generates; ``who`` needs an encoder."""
    generates = any(name.endswith(CAUSAL + SEQ2SEQ) for name in facts.architectures)
    if generates and facts.pooling is None:
        raise ModelFailure(
            f"{who} an encoder that embeds texts; this model generates "
            f"({compatibility.named(facts)})",
            code="model_not_an_encoder",
        )


def check_modules(facts: ModelFacts, *, pooling: str) -> None:
    """Raise ``ModelFailure`` where the folder asks for a step that would be left out in silence."""
    followed = facts.modules in {(), MODULES[:2], MODULES}
    if not followed or pooling not in POOLINGS:
        needs = f"{pooling} pooling" if followed else f"the modules {', '.join(facts.modules)}"
        raise ModelFailure(
            f"the model's embeddings need {needs}, which is not supported: the modules must be "
            f"{', '.join(MODULES[:2])} and perhaps {MODULES[2]}, with pooling by one of "
            f"{', '.join(POOLINGS)}",
            code="model_unsupported",
        )
    if facts.modules and facts.pooling is None:
        raise ModelFailure(
            f"{POOLING} of the model is missing, which its modules.json names: fetch it as well",
            code="model_unsupported",
        )
