"""The rows of a job's corpus: those of its objects, one object after another.

Each object is read as a corpus of its own: its format, compression and columns are its own. Where a
corpus may have several, every row keeps the object that it comes from, and the line there, in the
column ``source``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from jobs.corpora import decoder
from jobs.corpora.decoder import Limits
from jobs.corpora.hashed_source import HashedSource
from jobs.corpora.schemas import SOURCE
from jobs.corpora.sources import Source
from jobs.corpora.targets import TargetKind
from jobs.errors import CorpusFailure
from jobs.inputs import Input, ReadInput
from jobs.kinds import Corpus
from jobs.progress import Beat

EMPTY = "corpus_empty"
CHANGED = "corpus_changed"
ON_THE_HUB = "hf://"


class CorpusReader:
    """Reads the objects of one corpus in order; ``read`` has what became known of each."""

    def __init__(
        self,
        corpus: Corpus,
        inputs: Sequence[Input],
        *,
        opened: Callable[[Input], Source],
        limits: Limits,
        beat: Beat,
        targets: TargetKind | None = None,
        strict: bool = True,
    ) -> None:
        """``strict``: an object that has changed since it was written down is refused."""
        self.corpus = corpus
        self.read: list[ReadInput] = []
        self.failure: CorpusFailure | None = None
        """What is wrong with the only object, where it has no rows."""
        self._inputs = inputs
        self._opened = opened
        self._limits = limits
        self._beat = beat
        self._targets = targets
        self._strict = strict

    @property
    def rows(self) -> int:
        """Rows of the objects that were read to their end."""
        return sum(each.rows for each in self.read)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The batches of every object. None, where no object has a row.

        Raises ``CorpusFailure``, with the code ``corpus_changed`` for an object that is another one
        than was written down.
        """
        for index, each in enumerate(self._inputs):
            source = self._source(each)
            self._check(each, source)
            hashed = HashedSource(source) if self._needs_hash(each) else None
            rows = 0
            for batch in self._batches(source if hashed is None else hashed.source, each):
                rows += batch.num_rows
                yield batch
            sha256 = each.sha256 if hashed is None else hashed.sha256(beat=self._beat)
            self._check(each, source)
            self.read.append(ReadInput(index, rows, sha256))

    def _source(self, each: Input) -> Source:
        """The object, under a name by which a person finds it among the others."""
        source = self._opened(each)
        if self.corpus.is_single or each.filename is not None:
            return source
        return replace(source, name=each.name)

    def _needs_hash(self, each: Input) -> bool:
        return self._strict and each.sha256 is None and not each.name.startswith(ON_THE_HUB)

    def _batches(self, source: Source, each: Input) -> Iterator[pa.RecordBatch]:
        if each.bytes == 0 and not self.corpus.is_single:
            return
        batches = decoder.read(source, self.corpus, limits=self._limits, targets=self._targets)
        while True:
            try:
                batch = next(batches, None)
            except CorpusFailure as failure:
                if failure.code != EMPTY:
                    raise
                self.failure = failure if self.corpus.is_single else None
                return  # others may have rows
            if batch is None:
                return
            yield batch if self.corpus.is_single else _with_source(batch, each.name)

    def _check(self, each: Input, source: Source) -> None:
        if self._strict and source.fingerprint() != each.version:
            raise CorpusFailure(
                f"{each.name} has changed since this job listed it; submit a new job to read it as "
                "it is now",
                code=CHANGED,
            )


def _with_source(batch: pa.RecordBatch, name: str) -> pa.RecordBatch:
    """The batch, each row with the object that it comes from."""
    names = pa.repeat(pa.scalar(name, SOURCE.type), batch.num_rows)
    return pa.RecordBatch.from_arrays([*batch.columns, names], schema=batch.schema.append(SOURCE))
