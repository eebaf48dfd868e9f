"""Shards of labelled corpora: written under one numbering, and cut where the newest rows begin."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.corpora.corpus_reader import CorpusReader
from jobs.corpora.targets import TargetKind
from jobs.decisions import held_back
from jobs.decisions.held_back import HeldBack
from jobs.errors import ControlFlow, CorpusFailure
from jobs.inputs import Input, fingerprint
from jobs.kinds import DatasetSplit, LabelledCorpus, datasets
from jobs.kinds.datasets import SplitFacts
from jobs.ledger.plans import DataShard
from jobs.ledger.step_leases import StepLease
from jobs.results import parts
from jobs.settings import Settings
from workers.bulk import job_inputs
from workers.bulk.label_counts import LabelCounts
from workers.context import Context
from workers.lease_renewer import LeaseRenewer


class NoRows(ControlFlow):
    """A corpus has too few rows, and the job has ended for it."""


class ShardWriter:
    """Writes the shards of all splits under one numbering."""

    def __init__(self, lease: StepLease, *, renewer: LeaseRenewer, context: Context) -> None:
        self._lease = lease
        self._beat = renewer.beat
        self._context = context
        self._store = context.store
        self._settings = context.settings
        self.shards: list[DataShard] = []
        self.readers: dict[str, CorpusReader] = {}

    def write(
        self,
        split: DatasetSplit,
        corpus: LabelledCorpus,
        found: tuple[Input, ...],
        *,
        counts: LabelCounts,
        targets: TargetKind,
    ) -> SplitFacts:
        """Write a corpus as shards. Raises ``CorpusFailure``, ``NoRows``."""
        first_shard = len(self.shards)
        self.readers[split] = reader = job_inputs.reader(
            corpus, found, beat=self._beat, context=self._context, targets=targets
        )
        usable = self._usable(reader.batches(), counts)
        for table in joined_to_shards(usable, settings=self._settings):
            self.shards.append(self._write_shard(split, table))
        if reader.rows == 0 or counts.usable:  # else the first bad row says what is wrong
            self._end_if_empty(counts)
        return counts.facts(
            fingerprint=fingerprint(found, single=corpus.is_single),
            shards=len(self.shards) - first_shard,
        )

    def hold_back(
        self, train: SplitFacts, newest: HeldBack, *, targets: TargetKind
    ) -> tuple[SplitFacts, SplitFacts]:
        """Make the newest training rows the promotion split; the facts of both.

        All shards so far are of the training corpus. One shard is in memory at a time. Raises
        ``CorpusFailure`` where nothing would be left to train on.
        """
        count = newest.of(train.rows)
        if count >= train.rows:
            raise CorpusFailure(
                f"promote.newest holds back {count:,} rows, and the corpus has {train.rows:,} that "
                "can be used: hold back fewer, or hand in more",
                code="split_empty",
            )
        cut = held_back.cut([shard.rows for shard in self.shards], newest=count)
        replaced, self.shards = self.shards[cut.whole :], self.shards[: cut.whole]
        counts = LabelCounts(DatasetSplit.PROMOTION, targets=targets, known=None)
        for index, shard in enumerate(replaced):
            self._beat()
            table = pq.read_table(io.BytesIO(self._store.get(shard.object_key)))
            kept = cut.rows if index == 0 else 0
            if kept:
                self.shards.append(self._write_shard(DatasetSplit.TRAIN, table.slice(0, kept)))
            counts.add_usable(table.slice(kept))
            self.shards.append(self._write_shard(DatasetSplit.PROMOTION, table.slice(kept)))
        written = {shard.object_key for shard in self.shards}
        self._store.delete_all([s.object_key for s in replaced if s.object_key not in written])
        held = counts.facts(fingerprint=train.fingerprint, shards=len(replaced))
        return replace(
            train,
            rows=train.rows - held.rows,
            labels=_without(train, held),
            shards=len(self.shards) - held.shards,
        ), held

    def _end_if_empty(self, counts: LabelCounts) -> None:
        if job_inputs.end_if_empty(
            self._lease, self.readers, rows=counts.usable, context=self._context
        ):
            raise NoRows

    def _usable(self, batches: Iterable[pa.RecordBatch], counts: LabelCounts) -> Iterator[pa.Table]:
        for batch in batches:
            self._beat()
            yield counts.add(batch)

    def _write_shard(self, split: DatasetSplit, table: pa.Table) -> DataShard:
        key = datasets.shard_key(
            self._lease.job_id, split, index=len(self.shards), fence=self._lease.fence
        )
        buffer = io.BytesIO()
        pq.write_table(table, buffer, row_group_size=parts.ROW_GROUP, compression="zstd")
        self._store.put(key, buffer.getvalue())
        return DataShard(
            split=split,
            object_key=key,
            sha256=hashlib.sha256(buffer.getbuffer()).hexdigest(),
            first_row=int(table["row"][0].as_py()),
            rows=table.num_rows,
        )


def joined_to_shards(tables: Iterable[pa.Table], *, settings: Settings) -> Iterator[pa.Table]:
    """Tables joined to shards of the configured rows or bytes; none is empty."""
    pending: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        pending.append(table)
        rows += table.num_rows
        size += table.nbytes
        while rows and (rows >= settings.shard_rows or size >= settings.shard_bytes):
            joined = pa.concat_tables(pending)
            yield joined.slice(0, settings.shard_rows)
            rest = joined.slice(settings.shard_rows)
            pending, rows, size = [rest], rest.num_rows, rest.nbytes
    if rows:
        yield pa.concat_tables(pending)


def _without(train: SplitFacts, held: SplitFacts) -> dict[str, int] | None:
    """Rows by label of the rows that are left."""
    if train.labels is None:
        return None
    gone = held.labels or {}
    left = {label: rows - gone.get(label, 0) for label, rows in train.labels.items()}
    return {label: rows for label, rows in left.items() if rows}
