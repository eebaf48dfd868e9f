"""Counts of rows, labels and rejected rows of a labelled corpus, taken in one pass over it.

A corpus that cannot be trained on fails the job here. Memory is bounded by the counts of
``MAX_LABELS`` labels and the first rejected rows (promise P5).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from jobs.corpora import targets as target_values
from jobs.corpora.message_lists import CONVERSATION
from jobs.corpora.schemas import TRAINING_SCHEMA
from jobs.corpora.targets import TargetKind
from jobs.errors import CorpusFailure
from jobs.kinds import DatasetSplit
from jobs.kinds.datasets import MAX_EXAMPLES, MAX_LABELS, RejectedRow, SplitFacts
from jobs.models.signatures import RowForm

_SHOWN_LABELS = 10
_SHOWN_CHARACTERS = 100


@dataclass(frozen=True)
class KnownLabels:
    """The labels that a corpus may have, and the name of their source for an error message."""

    labels: Collection[str]
    source: str


class LabelCounts:
    """The counts of one split; ``known`` is ``None`` where every label is allowed."""

    def __init__(
        self, split: DatasetSplit, *, targets: TargetKind, known: KnownLabels | None
    ) -> None:
        self._split = split
        self._targets = targets
        self._known = known
        self._rows = 0  # usable or not
        self._rejected = 0
        self._examples: list[RejectedRow] = []
        self._labels: Counter[str] = Counter()
        self._forms: set[RowForm] = set()

    def add(self, batch: pa.RecordBatch) -> pa.Table:
        """Count a batch of ``LABELLED_SCHEMA``; returns its usable rows in ``TRAINING_SCHEMA``.

        Raises ``CorpusFailure``: unknown_label, too_many_labels.
        """
        numbers = pa.arange(self._rows, self._rows + batch.num_rows)
        columns = [numbers, batch["line"], batch["text"], batch["target"]]
        table = pa.Table.from_arrays(columns, schema=TRAINING_SCHEMA)
        self._rows += batch.num_rows
        sources = batch["source"] if "source" in batch.schema.names else None
        if batch["error_code"].null_count < batch.num_rows:
            self._reject(batch.filter(batch["error_code"].is_valid()))
            usable = batch["error_code"].is_null()
            table = table.filter(usable)
            sources = None if sources is None else sources.filter(usable)
        self._tally(table, sources)
        return table

    def add_usable(self, table: pa.Table) -> None:
        """Count rows in ``TRAINING_SCHEMA``, of which none is rejected."""
        self._rows += table.num_rows
        self._tally(table)

    @property
    def usable(self) -> int:
        """Rows without an error so far."""
        return self._rows - self._rejected

    @property
    def form(self) -> RowForm:
        """The form of all usable rows, which is one: the reader of an object chooses columns once.

        Raises ``CorpusFailure`` where one object of a corpus has another form than the next.
        """
        if len(self._forms) > 1:
            raise CorpusFailure(
                f"the objects of the {self._split} corpus have rows of different forms "
                f"({', '.join(sorted(self._forms))}): write them with the same columns",
                code="column_missing",
            )
        [form] = self._forms
        return form

    def facts(self, *, fingerprint: str, shards: int) -> SplitFacts:
        """The facts of the split. Raises ``CorpusFailure``: split_empty."""
        rows = self.usable
        if self._rows == 0:
            raise CorpusFailure(f"the {self._split} corpus holds no rows", code="corpus_empty")
        if rows == 0:
            first = self._examples[0]
            raise CorpusFailure(
                f"the {self._split} corpus has no row that can be used: all {self._rows:,} are "
                f"rejected, the first, on {first.place}, because: {first.message}",
                code="split_empty",
            )
        labelled = self._targets in (TargetKind.LABEL, TargetKind.LABELS)
        return SplitFacts(
            rows=rows,
            rejected=self._rejected,
            examples=tuple(self._examples),
            labels=dict(sorted(self._labels.items())) if labelled else None,
            fingerprint=fingerprint,
            shards=shards,
        )

    def _tally(self, table: pa.Table, sources: pa.Array | None = None) -> None:
        if self._targets in (TargetKind.LABEL, TargetKind.LABELS):
            self._count(table, sources)
        self._forms |= _forms(table)

    def _reject(self, bad: pa.RecordBatch) -> None:
        self._rejected += bad.num_rows
        first = bad.slice(0, MAX_EXAMPLES - len(self._examples))
        lines, codes, messages = (
            first[name].to_pylist() for name in ("line", "error_code", "error_message")
        )
        has_source = "source" in first.schema.names
        sources = first["source"].to_pylist() if has_source else itertools.repeat(None)
        self._examples += map(RejectedRow, lines, codes, messages, sources)

    def _count(self, table: pa.Table, sources: pa.Array | None) -> None:
        for entry in table["target"].value_counts().to_pylist():
            target = entry["values"]
            for label in self._labels_of(target):
                if self._known is not None and label not in self._known.labels:
                    index = pc.index(table["target"], pa.scalar(target)).as_py()
                    source = None if sources is None else sources[index].as_py()
                    line = table["line"][index].as_py()
                    raise self._unknown(label, self._known, line=line, source=source)
                self._labels[label] += entry["counts"]
        if len(self._labels) > MAX_LABELS:
            raise CorpusFailure(
                f"the target column of the {self._split} corpus looks like free text: it has more "
                f"than {MAX_LABELS:,} different labels; pass target_column",
                code="too_many_labels",
            )

    def _labels_of(self, target: str) -> list[str]:
        return target_values.labels(target) if self._targets is TargetKind.LABELS else [target]

    def _unknown(
        self, label: str, known: KnownLabels, *, line: int, source: str | None
    ) -> CorpusFailure:
        within = f"{source} in the" if source else "the"
        return CorpusFailure(
            f"line {line} of {within} {self._split} corpus has the label "
            f"{label[:_SHOWN_CHARACTERS]!r}, which {known.source} lacks; it has "
            f"{_enumerated(known.labels)}",
            code="unknown_label",
        )


def _forms(table: pa.Table) -> set[RowForm]:
    targets = table["target"]
    texts = targets.null_count
    conversations = pc.sum(pc.equal(targets, CONVERSATION)).as_py() or 0
    counts = {RowForm.TEXT: texts, RowForm.MESSAGES: conversations}
    counts[RowForm.PAIR] = table.num_rows - texts - conversations
    return {form for form, rows in counts.items() if rows}


def _enumerated(labels: Collection[str]) -> str:
    names: Iterable[str] = (
        repr(label[:_SHOWN_CHARACTERS]) for label in itertools.islice(labels, _SHOWN_LABELS)
    )
    more = f" and {len(labels) - _SHOWN_LABELS:,} more" if len(labels) > _SHOWN_LABELS else ""
    return ", ".join(names) + more
