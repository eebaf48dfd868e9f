"""``classify``: one label, or several, for every row of a corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from jobs.errors import ModelFailure
from jobs.kinds import embed
from jobs.kinds.base import Strict
from jobs.kinds.bulk_spec import BulkSpec, LongTexts, PairCorpus, WindowOptions
from jobs.kinds.result_columns import TOKENS, TRUNCATED, Column, ColumnType
from jobs.models import compatibility
from jobs.models.inspection import ModelFacts
from jobs.models.signatures import Signature, Task


class Explain(Strict):
    """Which rows' labels are explained, token by token."""

    rows: tuple[int, ...] = Field(
        (), max_length=10_000, description="These rows, by their place in the corpus from 0."
    )
    every: int | None = Field(
        None, ge=1, description="One row in this many: 1 is every row, 100 every hundredth."
    )
    below: float | None = Field(
        None, gt=0, le=1, description="Rows whose best score is below this."
    )
    steps: int = Field(
        32, ge=8, le=1_024, description="Steps of the integral; more are slower and more exact."
    )

    @model_validator(mode="after")
    def _chooses(self) -> Self:
        if not self.rows and self.every is None and self.below is None:
            raise ValueError("explain must say which rows: give rows, every or below")
        if any(row < 0 for row in self.rows):
            raise ValueError("explain.rows must be places in the corpus, from 0")
        return self


class ClassifyOptions(WindowOptions):
    """How to classify. With ``labels`` the model is an encoder and the nearest label wins."""

    kind: ClassVar[str] = "classify"
    trained_for: ClassVar[Task | None] = Task.CLASSIFY

    labels: tuple[str, ...] | None = Field(
        None,
        description="Label texts: the label whose embedding is nearest to the row's (cosine). "
        "Without: the model's own head and id2label.",
    )
    hypothesis: str | None = Field(
        None,
        description="Zero-shot: a sentence with {} where a label stands, such as `This text is "
        "about {}.`. The model is one of natural language inference (NLI), and the label wins "
        "whose sentence follows most from the text.",
    )
    top_k: int = Field(
        1,
        ge=1,
        description="How many labels, best first. Multi-label ignores it: `threshold` decides.",
    )
    all_scores: bool = Field(default=False, description="Every label with its score, best first.")
    multi_label: bool | None = Field(
        None,
        description="Every label whose score reaches `threshold`: the sigmoid of its logit, or "
        "with label texts its cosine. Default: as the model was trained, else as its config has "
        "it (problem_type).",
    )
    threshold: float = Field(
        0.5, gt=0, lt=1, description="Of multi-label: the least score of a row's label."
    )
    int8: bool = Field(
        default=False,
        description="On CPU: linear layers in integers of 8 bits. Faster, and some labels change; "
        "some rows are computed in float32 as well, and the job reports how many labels agree.",
    )

    explain: Explain | None = Field(
        None,
        description="Attribute some rows' labels to their tokens (integrated gradients), in the "
        "column `explanation`.",
    )

    @model_validator(mode="after")
    def _explains_what_it_computes(self) -> Self:
        if self.explain is None:
            return self
        if self.hypothesis is not None:
            raise ValueError(
                "explain is for a model's own labels or for nearest ones: leave hypothesis out"
            )
        if self.int8:
            raise ValueError("explain needs gradients, which int8 has not: leave int8 out")
        if self.long_texts is LongTexts.STRIDE:
            raise ValueError("explain reads a long text's beginning: leave long_texts stride out")
        return self

    @model_validator(mode="after")
    def _hypothesis_has_its_place(self) -> Self:
        if self.hypothesis is None:
            return self
        if self.labels is None:
            raise ValueError("hypothesis needs labels, which stand in its {}")
        if self.hypothesis.count("{}") != 1:
            raise ValueError("hypothesis must have {} once, where a label stands")
        if self.long_texts is LongTexts.STRIDE:
            raise ValueError(
                "hypothesis reads a long text's beginning: leave long_texts stride out"
            )
        return self

    @model_validator(mode="after")
    def _int8_is_of_float32(self) -> Self:
        if self.int8 and self.dtype not in ("auto", "float32"):
            raise ValueError(f"int8 is made of float32: leave dtype {self.dtype} out, or int8")
        return self

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (len(value) < 2 or len(set(value)) != len(value)):  # noqa: PLR2004
            raise ValueError("labels must be at least two different texts")
        if value is not None and any(not label.strip() for label in value):
            raise ValueError("a label must not be empty")
        return value

    def check_model(self, facts: ModelFacts) -> None:
        """A head that was trained on labels; for nearest labels an encoder that embeds."""
        if self.labels is not None and self.hypothesis is None:
            embed.check_encoder(facts, who="labels need")
            embed.check_modules(facts, pooling=facts.pooling or embed.Pooling.MEAN)
            return
        check_head(facts)
        if self.hypothesis is not None:
            entailment(facts.id2label or ())

    def check_signature(self, signature: Signature) -> None:
        """Nearest labels of a fine-tuned classifier must be labels that it was trained on."""
        if signature.task is not Task.CLASSIFY or not signature.labels:
            return
        if unknown := [label for label in self.labels or () if label not in signature.labels]:
            raise ModelFailure(
                f"the model was trained to tell {len(signature.labels)} labels apart "
                f"({_listed(signature.labels)}), and {unknown[0]!r} is none of them: leave labels "
                "out, or compare label texts with an encoder that was not trained to classify",
                code="model_other_labels",
            )

    def is_as_trained(self, signature: Signature) -> bool:
        """A fine-tuned model answers with its own head."""
        return self.labels is None and super().is_as_trained(signature)

    def trained_values(self, signature: Signature) -> Mapping[str, object]:
        """One label or several, and the window."""
        return {"multi_label": signature.multi_label, "max_tokens": signature.max_tokens}

    def other_use(self, signature: Signature) -> str | None:
        """A fine-tuned classifier whose head is passed over."""
        trained = f"the model was trained to {signature.task}"
        if self.hypothesis is not None:
            return f"{trained}, and a hypothesis needs one of natural language inference"
        if self.labels is not None and signature.labels:
            return f"{trained}: without labels its own head chooses, which was trained for that"
        return None


class ClassifySpec(BulkSpec):
    """Give every row of a corpus its label, or several."""

    strides: ClassVar[bool] = True
    columns: ClassVar[tuple[Column, ...]] = (
        Column("label", ColumnType.TEXT),  # the best one; null where no label is given
        Column("score", ColumnType.NUMBER),  # of the best label
        Column("labels", ColumnType.TEXTS),  # best first
        Column("scores", ColumnType.NUMBERS),
        TOKENS,
        TRUNCATED,
    )
    explanation: ClassVar[Column] = Column("explanation", ColumnType.ATTRIBUTIONS)
    """Null unless the row was chosen and has a label."""

    kind: Literal["classify"] = "classify"
    corpus: PairCorpus
    classify: ClassifyOptions = ClassifyOptions()

    @model_validator(mode="after")
    def _pairs_are_for_a_head(self) -> Self:
        if self.corpus.pair_column is None:
            return self
        refused = {
            "labels": self.classify.labels is not None,
            "explain": self.classify.explain is not None,
            "long_texts stride": self.classify.long_texts is LongTexts.STRIDE,
        }
        for name, given in refused.items():
            if given:
                raise ValueError(f"pair_column is for a model's own labels: leave {name} out")
        return self

    @property
    def result_columns(self) -> tuple[Column, ...]:
        """With an explanation where the job asks for one."""
        explained = self.classify.explain is not None
        return (*self.columns, self.explanation) if explained else self.columns


def check_head(facts: ModelFacts) -> None:
    """Raise ``ModelFailure`` for a model without a head that was trained on labels."""
    if not facts.has_head:
        raise ModelFailure(
            f"the model has no sequence-classification head ({compatibility.named(facts)}): pass "
            "labels, and the nearest label text wins, or choose a model that was trained to "
            "classify",
            code="model_has_no_head",
        )
    if facts.problem_type == "regression":
        raise ModelFailure(
            "the model's head is a regression (problem_type in config.json); "
            "classify needs one that was trained on labels",
            code="model_not_a_classifier",
        )


def entailment(labels: Sequence[str]) -> int:
    """Which output of a model of natural language inference is entailment."""
    for place, label in enumerate(labels):
        if label.lower().startswith("entail"):
            return place
    raise ModelFailure(
        "a hypothesis needs a model of natural language inference, with an entailment among its "
        f"labels; this one's are {', '.join(labels) or 'not named'}",
        code="model_not_a_classifier",
    )


_MAX_LISTED = 10


def _listed(labels: tuple[str, ...]) -> str:
    more = f" and {len(labels) - _MAX_LISTED:,} more" if len(labels) > _MAX_LISTED else ""
    return ", ".join(labels[:_MAX_LISTED]) + more
