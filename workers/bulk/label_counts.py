"""What is counted of a labelled corpus while it streams by, and what makes it useless for training.

Memory is the counts of at most ``MAX_LABELS`` labels and the first rejected rows.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from jobs.corpora import targets as target_values
from jobs.corpora.messages import WHOLE
from jobs.corpora.targets import Targets
from jobs.datasets import EXAMPLES, MAX_LABELS, Rejected, Split, SplitFacts
from jobs.errors import CorpusFailure
from jobs.models.signatures import RowForm
from jobs.results.schemas import TRAINING_SCHEMA

_LISTED = 10
_CLIPPED = 100


@dataclass(frozen=True)
class Known:
    """The labels that a corpus may have, and who says so, in words."""

    labels: Collection[str]
    whose: str


class Tally:
    """The counts of one split; ``known`` is ``None`` where any label may come."""

    def __init__(self, split: Split, *, targets: Targets, known: Known | None) -> None:
        self._split = split
        self._targets = targets
        self._known = known
        self._rows = 0  # usable or not
        self._rejected = 0
        self._examples: list[Rejected] = []
        self._labels: Counter[str] = Counter()
        self._forms: set[RowForm] = set()

    def add(self, batch: pa.RecordBatch) -> pa.Table:
        """Count a batch of ``LABELLED_SCHEMA``; its usable rows in ``TRAINING_SCHEMA``.

        Raises ``CorpusFailure``: unknown_label, too_many_labels.
        """
        places = pa.arange(self._rows, self._rows + batch.num_rows)
        columns = [places, batch["line"], batch["text"], batch["target"]]
        table = pa.Table.from_arrays(columns, schema=TRAINING_SCHEMA)
        self._rows += batch.num_rows
        if batch["error_code"].null_count < batch.num_rows:
            self._reject(batch.filter(batch["error_code"].is_valid()))
            table = table.filter(batch["error_code"].is_null())
        if self._targets in (Targets.LABEL, Targets.LABELS):
            self._count(table)
        self._forms |= _forms(table)
        return table

    @property
    def form(self) -> RowForm:
        """What all usable rows are: a reader chooses its columns once."""
        [form] = self._forms
        return form

    def facts(self, *, fingerprint: str, shards: int) -> SplitFacts:
        """What was found. Raises ``CorpusFailure``: split_empty."""
        rows = self._rows - self._rejected
        if rows == 0:
            first = self._examples[0]
            raise CorpusFailure(
                f"the {self._split} corpus has no row that can be used: all {self._rows:,} are "
                f"rejected, the first, on line {first.line}, because: {first.message}",
                code="split_empty",
            )
        labelled = self._targets in (Targets.LABEL, Targets.LABELS)
        return SplitFacts(
            rows=rows,
            rejected=self._rejected,
            examples=tuple(self._examples),
            labels=dict(sorted(self._labels.items())) if labelled else None,
            fingerprint=fingerprint,
            shards=shards,
        )

    def _reject(self, bad: pa.RecordBatch) -> None:
        self._rejected += bad.num_rows
        first = bad.slice(0, EXAMPLES - len(self._examples))
        lines, codes, messages = (
            first[name].to_pylist() for name in ("line", "error_code", "error_message")
        )
        self._examples += map(Rejected, lines, codes, messages)

    def _count(self, table: pa.Table) -> None:
        for entry in table["target"].value_counts().to_pylist():
            target = entry["values"]
            for label in self._labels_of(target):
                if self._known is not None and label not in self._known.labels:
                    raise self._unknown(label, self._known, line=_line_of(target, table))
                self._labels[label] += entry["counts"]
        if len(self._labels) > MAX_LABELS:
            raise CorpusFailure(
                f"the target column of the {self._split} corpus looks like free text: it has more "
                f"than {MAX_LABELS:,} different labels; pass target_column",
                code="too_many_labels",
            )

    def _labels_of(self, target: str) -> list[str]:
        return target_values.labels(target) if self._targets is Targets.LABELS else [target]

    def _unknown(self, label: str, known: Known, *, line: int) -> CorpusFailure:
        return CorpusFailure(
            f"line {line} of the {self._split} corpus has the label {label[:_CLIPPED]!r}, which "
            f"{known.whose} lacks; it has {_listed(known.labels)}",
            code="unknown_label",
        )


def _forms(table: pa.Table) -> set[RowForm]:
    targets = table["target"]
    plain = targets.null_count
    whole = pc.sum(pc.equal(targets, WHOLE)).as_py() or 0
    found = {RowForm.TEXT: plain, RowForm.MESSAGES: whole}
    found[RowForm.PAIR] = table.num_rows - plain - whole
    return {form for form, rows in found.items() if rows}


def _line_of(target: str, table: pa.Table) -> int:
    index = pc.index(table["target"], pa.scalar(target)).as_py()
    return int(table["line"][index].as_py())


def _listed(labels: Collection[str]) -> str:
    names: Iterable[str] = (repr(each[:_CLIPPED]) for each in itertools.islice(labels, _LISTED))
    more = f" and {len(labels) - _LISTED:,} more" if len(labels) > _LISTED else ""
    return ", ".join(names) + more
