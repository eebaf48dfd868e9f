"""``score``: one number for every row of a corpus, by a cross-encoder or a reward model."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from jobs.errors import ModelFailure
from jobs.kinds.bulk_spec import BulkSpec, LongTexts, PairCorpus, WindowOptions
from jobs.kinds.result_columns import TOKENS, TRUNCATED, Column, ColumnType
from jobs.models import compatibility
from jobs.models.inspection import ModelFacts
from jobs.models.signatures import Signature


class ScoreActivation(StrEnum):
    """What makes a score of the head's one logit."""

    NONE = "none"
    SIGMOID = "sigmoid"


class ScoreOptions(WindowOptions):
    """How to score. The model has a head with one output."""

    kind: ClassVar[str] = "score"

    activation: ScoreActivation = Field(
        ScoreActivation.NONE,
        description="`none`: the logit itself; `sigmoid`: between 0 and 1. The order of the rows "
        "is the same.",
    )

    def check_model(self, facts: ModelFacts) -> None:
        """A sequence-classification head with one output."""
        if not facts.has_head:
            raise ModelFailure(
                "score needs a sequence-classification head with one output, as cross-encoders and "
                f"reward models have; this model has none ({compatibility.named(facts)})",
                code="model_has_no_head",
            )
        outputs = 2 if facts.id2label is None else len(facts.id2label)
        if outputs != 1:
            raise ModelFailure(
                f"score needs a head with one output (num_labels in config.json), and this model's "
                f"has {outputs}: classify gives every row its label",
                code="model_several_outputs",
            )

    def other_use(self, signature: Signature) -> str:
        """No fine-tune trains a score."""
        return f"the model was trained to {signature.task}, and its one output is no score"


class ScoreSpec(BulkSpec):
    """Give every row of a corpus, a text or a pair of texts, its score: one number.

    The model is a cross-encoder, a reward model, or another regression with one output.
    """

    strides: ClassVar[bool] = True
    columns: ClassVar[tuple[Column, ...]] = (
        Column("score", ColumnType.NUMBER),
        TOKENS,
        TRUNCATED,
    )

    kind: Literal["score"] = "score"
    corpus: PairCorpus
    score: ScoreOptions = ScoreOptions()

    @model_validator(mode="after")
    def _pairs_are_read_in_one_window(self) -> Self:
        if self.reads_pairs and self.score.long_texts is LongTexts.STRIDE:
            raise ValueError("pair_column reads both texts in one window: leave stride out")
        return self
