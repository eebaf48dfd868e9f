"""What is known of a training job's data: its splits, where their shards lie, what was counted.

The planner writes it down as ``job.dataset``; host agents and the training program read it there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from jobs.kinds import AnyTraining, FinetuneSpec, LabelledCorpus
from jobs.models.signatures import Signature

MAX_LABELS = 10_000
"""More different labels are taken for free text in the target column."""

EXAMPLES = 20
"""Rejected rows of a split that are kept with their reasons; the others are counted."""


class Split(StrEnum):
    """What the rows of a corpus are for. The corpus of an evaluation is its test rows."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"
    PROMOTION = "promotion"


@dataclass(frozen=True)
class Rejected:
    """A row that is not in the shards, and why."""

    line: int
    code: str  # of jobs.results.schemas.RowCode
    message: str


@dataclass(frozen=True)
class SplitFacts:
    """What the planner found in one corpus."""

    rows: int  # usable, and so in the shards
    rejected: int
    examples: tuple[Rejected, ...]  # the first of the rejected rows
    labels: Mapping[str, int] | None  # rows with each label; None: its targets are texts
    fingerprint: str  # of the corpus, as its source tells it
    shards: int

    def as_json(self) -> dict[str, Any]:
        """As an entry of ``job.dataset["splits"]``."""
        examples = [vars(example) for example in self.examples]
        labels = None if self.labels is None else dict(self.labels)
        return vars(self) | {"examples": examples, "labels": labels}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SplitFacts:
        """The inverse of ``as_json``."""
        examples = tuple(Rejected(**example) for example in value["examples"])
        return cls(**{**value, "examples": examples})


@dataclass(frozen=True)
class Dataset:
    """All splits of a job; without a validation split it is a share of train."""

    labels: tuple[str, ...] | None  # of the training rows, sorted; None: targets are texts
    splits: Mapping[Split, SplitFacts]
    signature: Signature | None = None  # how rows are read; None: planned before it was decided

    @property
    def rows(self) -> int:
        """Usable rows of all splits."""
        return sum(split.rows for split in self.splits.values())

    @property
    def fingerprint(self) -> str:
        """Of all corpora together, to be kept with the job."""
        named = ((name, self.splits.get(name)) for name in Split)
        return " ".join(f"{name}={split.fingerprint}" for name, split in named if split)

    def as_json(self) -> dict[str, Any]:
        """As ``job.dataset``."""
        return {
            "labels": None if self.labels is None else list(self.labels),
            "splits": {str(name): split.as_json() for name, split in self.splits.items()},
            "signature": self.signature and self.signature.model_dump(mode="json"),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Dataset:
        """The inverse of ``as_json``."""
        splits = {Split(name): SplitFacts.from_json(v) for name, v in value["splits"].items()}
        labels, signature = value["labels"], value.get("signature")
        return cls(
            labels=None if labels is None else tuple(labels),
            splits=splits,
            signature=signature and Signature.model_validate(signature),
        )


def corpora(spec: AnyTraining) -> dict[Split, LabelledCorpus]:
    """The corpora that a spec names; train comes first, since the others are checked against it."""
    if not isinstance(spec, FinetuneSpec):
        return {Split.TEST: spec.corpus}
    promotion = None if spec.promote is None else spec.promote.corpus
    named = {
        Split.TRAIN: spec.corpus,
        Split.VALIDATION: spec.validation,
        Split.TEST: spec.test,
        Split.PROMOTION: promotion,
    }
    return {split: corpus for split, corpus in named.items() if corpus is not None}


def shard_key(job_id: str, split: Split, *, index: int, fence: int) -> str:
    """Where a planner writes a shard; the fence keeps a replaced planner's objects apart.

    ``index`` counts through all splits of the job, as in the ledger.
    """
    return f"jobs/{job_id}/data/{split}-{index:06d}-{fence}.parquet"
