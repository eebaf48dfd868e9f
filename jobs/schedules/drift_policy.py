"""Whether a fire's results are compared with those of earlier fires of its schedule."""

from __future__ import annotations

from pydantic import Field

from jobs.kinds.base import Strict


class DriftPolicy(Strict):
    """Compare a bulk job with the schedule's earlier ones (``jobs.decisions.drift``)."""

    threshold: float = Field(
        0.2,
        gt=0,
        le=100,
        description="A fire has drifted if the population stability index of its labels, scores, "
        "lengths or share of failed rows is beyond this.",
    )
    against: int = Field(
        7, ge=1, le=100, description="How many earlier fires it is compared with, the latest ones."
    )
    min_rows: int = Field(
        100, ge=1, le=10**9, description="With fewer rows, now or before, nothing is compared."
    )
    hold_promotion: bool = Field(
        default=False,
        description="While the latest fire has drifted, no fine-tune moves the alias that names "
        "the model of its job, nor does one of the same group that needs the drifted job.",
    )
