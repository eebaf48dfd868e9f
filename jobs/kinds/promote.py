"""``promote`` of a fine-tune: the gate that a version passes before an alias moves to it."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from jobs import names
from jobs.decisions.held_back import HeldBack
from jobs.decisions.promotion import MEASURES
from jobs.durations import Duration
from jobs.kinds.base import Strict
from jobs.kinds.training_spec import LabelledCorpus


class LabelFloors(Strict):
    """What every label must keep for the alias to move; only for the task classify."""

    recall_drop: float | None = Field(
        None, ge=0, le=1, description="No label may lose more recall, such as 0.02 for two points."
    )
    precision_drop: float | None = Field(
        None, ge=0, le=1, description="No label may lose more precision."
    )
    f1_drop: float | None = Field(None, ge=0, le=1, description="No label may lose more F1.")
    recall: float | None = Field(None, ge=0, le=1, description="The least recall of every label.")
    precision: float | None = Field(
        None, ge=0, le=1, description="The least precision of every label."
    )
    f1: float | None = Field(None, ge=0, le=1, description="The least F1 of every label.")
    rows: int = Field(
        1, ge=1, le=10**9, description="A label with fewer deciding rows is not checked."
    )

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if not (self.drops or self.least):
            raise ValueError(
                "floors need at least one of recall_drop, precision_drop, f1_drop, recall, "
                "precision and f1"
            )
        return self

    @property
    def drops(self) -> dict[str, float]:
        """The most that a label may lose, by measure."""
        named = {measure: getattr(self, f"{measure}_drop") for measure in MEASURES}
        return {measure: drop for measure, drop in named.items() if drop is not None}

    @property
    def least(self) -> dict[str, float]:
        """The least of every label, by measure."""
        named = {measure: getattr(self, measure) for measure in MEASURES}
        return {measure: least for measure, least in named.items() if least is not None}


class Promote(Strict):
    """Move an alias to the new version, only if it is better than what the alias points to."""

    alias: str = Field(
        "champion",
        pattern=f"^{names.ALIAS}$",
        description="This alias moves to the new version if that is better.",
    )
    metric: str | None = Field(
        None, description="Both versions are compared by it. Default: the recipe's."
    )
    margin: float = Field(0.0, ge=0, description="Better by more than this.")
    corpus: LabelledCorpus | None = Field(
        None,
        description="Both versions are compared on it. Default: the test rows, else the "
        "validation rows.",
    )
    newest: str | int | float | None = Field(
        None,
        description="Both versions are compared on the last rows of the corpus, which are not "
        "trained on: a share, such as `0.1` or `10%`, or a whole number of rows.",
    )
    min_rows: int = Field(
        0, ge=0, le=10**9, description="With fewer deciding rows the alias does not move."
    )
    floors: LabelFloors | None = Field(None, description="What every label must keep.")
    keep_rejected: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Of the versions that the alias did not move to this number is kept, the "
        "newest; older ones are deleted. Default: all.",
    )
    keep_rejected_for: Duration | None = Field(
        None,
        description="Versions that the alias did not move to are deleted when they are older, such "
        "as `14d`. With `keep_rejected` those stay that either of the two keeps. Default: never.",
    )

    @field_validator("newest", mode="before")
    @classmethod
    def _rows_or_share(cls, value: str | float | None) -> str | float | None:
        if value is not None:
            HeldBack.parse(value)
        return value

    @model_validator(mode="after")
    def _one_place_to_compare(self) -> Self:
        if self.newest is not None and self.corpus is not None:
            raise ValueError(
                "both versions are compared either on a `corpus` or on the `newest` rows: give one"
            )
        return self
