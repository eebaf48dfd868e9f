"""The dataset of a training job: its splits, their shards and counts.

The planner stores it as ``job.dataset``; host agents and the training program read it there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.kinds import DatasetSplit
from jobs.models.signatures import Signature

MAX_LABELS = 10_000
"""A target column with more different values is free text, not labels."""

MAX_EXAMPLES = 20
"""Rejected rows of a split that are kept with their reasons; the others are only counted."""


@dataclass(frozen=True)
class RejectedRow:
    """A row that was left out of the shards, and why."""

    line: int
    code: str  # of jobs.row_codes.RowCode
    message: str
    source: str | None = None  # the object with that line; None: the corpus is one object

    @property
    def place(self) -> str:
        """Where it is, in words."""
        return f"line {self.line}" + (f" of {self.source}" if self.source else "")


@dataclass(frozen=True)
class SplitFacts:
    """One corpus, as the planner read it."""

    rows: int  # usable rows, which are in the shards
    rejected: int
    examples: tuple[RejectedRow, ...]  # the first of the rejected rows
    labels: Mapping[str, int] | None  # rows by label; None: its targets are texts
    fingerprint: str  # of the corpus, from its source
    shards: int

    def as_json(self) -> dict[str, Any]:
        """As an entry of ``job.dataset["splits"]``."""
        examples = [vars(example) for example in self.examples]
        labels = None if self.labels is None else dict(self.labels)
        return vars(self) | {"examples": examples, "labels": labels}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SplitFacts:
        """The inverse of ``as_json``."""
        examples = tuple(RejectedRow(**example) for example in value["examples"])
        return cls(**{**value, "examples": examples})


@dataclass(frozen=True)
class Dataset:
    """All splits of a job. Without a validation split, a share of train is for validation."""

    labels: tuple[str, ...] | None  # of the model, by id: a label set, or those of the training
    # rows, sorted; None: targets are texts
    splits: Mapping[DatasetSplit, SplitFacts]
    signature: Signature | None = None  # how rows are read; None: an older version planned it
    labels_of: str | None = None  # the version whose label set it is; None: of none

    @property
    def rows(self) -> int:
        """Usable rows of all splits."""
        return sum(split.rows for split in self.splits.values())

    @property
    def fingerprint(self) -> str:
        """The fingerprints of all corpora, kept with the job."""
        named = ((name, self.splits.get(name)) for name in DatasetSplit)
        return " ".join(f"{name}={split.fingerprint}" for name, split in named if split)

    def as_json(self) -> dict[str, Any]:
        """As ``job.dataset``."""
        return {
            "labels": None if self.labels is None else list(self.labels),
            "splits": {str(name): split.as_json() for name, split in self.splits.items()},
            "signature": self.signature and self.signature.model_dump(mode="json"),
            "labels_of": self.labels_of,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Dataset:
        """The inverse of ``as_json``."""
        splits = {
            DatasetSplit(name): SplitFacts.from_json(v) for name, v in value["splits"].items()
        }
        labels, signature = value["labels"], value.get("signature")
        return cls(
            labels=None if labels is None else tuple(labels),
            splits=splits,
            signature=signature and Signature.model_validate(signature),
            labels_of=value.get("labels_of"),
        )


def shard_key(job_id: str, split: DatasetSplit, *, index: int, fence: int) -> str:
    """The object of a shard; the fence separates it from those of a replaced planner.

    ``index`` counts over all splits of the job, as in the ledger.
    """
    return f"jobs/{job_id}/data/{split}-{index:06d}-{fence}.parquet"
