"""The metrics of jobs that train side by side, and which of them is the best."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.decisions import promotion

METRICS = promotion.HIGHER | promotion.LOWER


@dataclass(frozen=True)
class Measured:
    """One job: what it is compared by, null while that is not known."""

    metric: str
    value: float | None


def flat(report: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a report as ``split/metric``; an evaluation has one split, ``test``."""
    splits = {"test": report} if "task" in report else report
    return {
        f"{split}/{metric}": found[metric]
        for split, found in splits.items()
        for metric in sorted(METRICS & found.keys())
        if isinstance(found[metric], int | float)
    }


def best(jobs: Sequence[Measured]) -> int | None:
    """The place of the best one, the first of equals; ``None``: nothing is known, or comparable."""
    known = [place for place, job in enumerate(jobs) if _is_known(job)]
    if len({jobs[place].metric for place in known}) != 1:
        return None
    return functools.reduce(lambda old, new: new if _beats(jobs[new], jobs[old]) else old, known)


def _is_known(job: Measured) -> bool:
    return job.metric in METRICS and job.value is not None and math.isfinite(job.value)


def _beats(new: Measured, old: Measured) -> bool:
    assert new.value is not None, "only what is known is compared"
    assert old.value is not None, "only what is known is compared"
    return promotion.is_better(new.metric, new=new.value, old=old.value)
