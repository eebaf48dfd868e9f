"""The tokenized splits of a job: flat files of token ids and targets, written once per host.

Shards are read, tokenized and written in batches; no corpus is held in memory (promise P5). Without
a ``validation`` folder the validation rows are a share of ``train``.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow.parquet as pq
import structlog

from jobs.decisions import validation_split
from jobs.decisions.validation_split import Selector
from jobs.errors import CorpusFailure, NightshiftError
from jobs.kinds import FinetuneSpec, Task
from jobs.progress import Beat
from jobs.row_codes import RowCode
from workers.inference.batching.forward import RowError
from workers.training import forward_faults
from workers.training.ragged_array import RaggedArray, RaggedWriter

log = structlog.get_logger()

BATCH_ROWS = 2_000
"""Rows that are tokenized at once."""

SAMPLE_ROWS = 256
SAMPLE_CHARACTERS = 2**19
"""Limits of the sample: the first rows of each split, kept as texts."""

Row = tuple[list[int], list[int]]
"""Token ids of the input, and label ids, token ids or span edges of the target."""

TRAIN, VALIDATION, TEST = "train", "validation", "test"


class RowEncoder(Protocol):
    """Turns rows into token ids; each ``Objective`` is one."""

    def encode(
        self, texts: Sequence[str], targets: Sequence[str | None]
    ) -> Sequence[Row | RowError]:
        """Input and target of each row, or the reason why the model cannot take it."""


class TokenizedSplit:
    """The rows of a split, by index."""

    def __init__(self, folder: Path) -> None:
        self.inputs = RaggedArray(folder / "inputs")
        self.targets = RaggedArray(folder / "targets")
        self._texts = RaggedArray(folder / "texts", dtype="uint8")

    def __len__(self) -> int:
        return len(self.inputs)

    def reference(self, row: int) -> str:
        """The target text, as it is in the corpus."""
        return bytes(self._texts[row]).decode()


class InMemorySplit(TokenizedSplit):
    """Rows in memory."""

    def __init__(
        self,
        rows: Sequence[tuple[Sequence[int], Sequence[int]]],
        *,
        targets: Sequence[str | None],
    ) -> None:
        self.inputs = InMemoryRaggedArray([inputs for inputs, _ in rows])
        self.targets = InMemoryRaggedArray([answers for _, answers in rows])
        self._references = [target or "" for target in targets]

    def reference(self, row: int) -> str:
        """The target text, as it is in the corpus."""
        return self._references[row]


class InMemoryRaggedArray(RaggedArray):
    """Rows of different lengths in memory."""

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        self.values = np.array([each for row in rows for each in row], dtype=np.int32)
        self.offsets = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)


def write(data: Path, *, to: Path, encoder: RowEncoder, spec: FinetuneSpec, beat: Beat) -> None:
    """Tokenize every split under ``data``; the folder ``to`` appears once all are complete."""
    draft = to.with_name(f"{to.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    for split in sorted(path.name for path in data.iterdir() if path.is_dir()):
        assign = _assignment(data, split=split, spec=spec)
        _write_split(data / split, assign, encoder=encoder, draft=draft, beat=beat)
    draft.rename(to)


def read(folder: Path, split: str) -> TokenizedSplit | None:
    """A tokenized split; ``None`` if the job has none of this name."""
    return TokenizedSplit(folder / split) if (folder / split).is_dir() else None


def sample(folder: Path, split: str) -> list[tuple[str, str | None]]:
    """Text and target of the first rows of a tokenized split, at most ``SAMPLE_ROWS``."""
    with (folder / split / "sample.jsonl").open(encoding="utf-8") as file:
        return [tuple(json.loads(line)) for line in file]


def required(folder: Path, split: str) -> TokenizedSplit:
    """A tokenized split that must have rows. Raises ``CorpusFailure``."""
    tokenized = read(folder, split)
    if tokenized is None or not len(tokenized):
        raise CorpusFailure(
            f"the {split} rows must be one at least, and are none", code="split_empty"
        )
    return tokenized


Assign = Callable[[str | None], str]
"""The split of a row, by its target; called once for each row, in order."""


def _assignment(data: Path, *, split: str, spec: FinetuneSpec) -> Assign:
    if split != TRAIN or (data / VALIDATION).is_dir():
        return lambda _: split
    stratified = spec.task is Task.CLASSIFY and not spec.multi_label
    counts: Counter[str] = Counter()
    for _, _, targets in rows(data / split):
        counts.update(_stratum(target, stratified=stratified) for target in targets)
    selector = Selector(counts, share=spec.validation_share, seed=spec.train.seed)

    def assign(target: str | None) -> str:
        selected = selector.take(_stratum(target, stratified=stratified))
        return VALIDATION if selected else TRAIN

    return assign


def _stratum(target: str | None, *, stratified: bool) -> str:
    return str(target) if stratified else validation_split.ONLY_STRATUM


def _write_split(
    shards: Path, assign: Assign, *, encoder: RowEncoder, draft: Path, beat: Beat
) -> None:
    skipped = SkippedRows(shards.name)
    with ExitStack() as stack:
        writers: dict[str, _SplitWriter] = {}
        for lines, texts, targets in rows(shards):
            encoded = _encoded(encoder, texts, targets)
            splits = [assign(target) for target in targets]
            usable = skipped.without(encoded, lines=lines)
            for split in sorted(set(splits)):
                if split not in writers:
                    writers[split] = stack.enter_context(_SplitWriter(draft / split))
                indices = [index for index in usable if splits[index] == split]
                writers[split].append(
                    [usable[index] for index in indices],
                    texts=[texts[index] for index in indices],
                    targets=[targets[index] for index in indices],
                )
            beat()
    skipped.report()


def _encoded(
    encoder: RowEncoder, texts: Sequence[str], targets: Sequence[str | None]
) -> list[Row | RowError]:
    """Encode the rows; bisects to make an error row of each row for which the tokenizer raises."""
    try:
        return list(encoder.encode(texts, targets))
    except (NightshiftError, MemoryError, OSError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - panics of Rust are no exceptions
        if len(texts) == 1:
            return [
                RowError(
                    RowCode.ROW_FAILED, f"the tokenizer raises: {forward_faults.first_line(error)}"
                )
            ]
        half = len(texts) // 2
        return [
            *_encoded(encoder, texts[:half], targets[:half]),
            *_encoded(encoder, texts[half:], targets[half:]),
        ]


class SkippedRows:
    """Counts the rows of a split that a model cannot take, and remembers the first."""

    def __init__(self, split: str) -> None:
        self._split = split
        self._rows = self.count = 0
        self._first: tuple[int, RowError] | None = None

    def without(self, encoded: Sequence[Row | RowError], *, lines: Sequence[int]) -> dict[int, Row]:
        """The usable rows, by index."""
        usable: dict[int, Row] = {}
        for index, row in enumerate(encoded):
            if isinstance(row, RowError):
                self.count += 1
                self._first = self._first or (lines[index], row)
            else:
                usable[index] = row
        self._rows += len(encoded)
        return usable

    def report(self) -> None:
        """Log a warning about them. Raises ``CorpusFailure`` if no row is usable."""
        if self._first is None:
            return
        line, error = self._first
        if self.count == self._rows:
            raise CorpusFailure(
                f"the {self._split} corpus has no row that the model can be given: of all "
                f"{self._rows:,} the first, on line {line}: {error.message}",
                code=error.code,
            )
        log.warning(
            "rows are left out",
            split=self._split,
            rows=self.count,
            first_line=line,
            code=error.code,
            reason=error.message,
        )


def rows(shards: Path) -> Iterator[tuple[list[int], list[str], list[str | None]]]:
    """Line numbers, texts and targets of a split's shards, in batches of rows."""
    columns = ["line", "text", "target"]
    for shard in sorted(shards.glob("*.parquet")):
        with pq.ParquetFile(shard) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
                yield tuple(batch[name].to_pylist() for name in columns)


class _SplitWriter(ExitStack):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        folder.mkdir(parents=True)
        self._inputs = self.enter_context(RaggedWriter(folder / "inputs"))
        self._targets = self.enter_context(RaggedWriter(folder / "targets"))
        self._texts = self.enter_context(RaggedWriter(folder / "texts", dtype="uint8"))
        self._sample = self.enter_context((folder / "sample.jsonl").open("w", encoding="utf-8"))
        self._rows, self._characters = 0, 0

    def append(
        self,
        rows: Sequence[Row],
        *,
        texts: Sequence[str],
        targets: Sequence[str | None],
    ) -> None:
        self._inputs.append([inputs for inputs, _ in rows])
        self._targets.append([answer for _, answer in rows])
        self._texts.append([(target or "").encode() for target in targets])
        for text, target in zip(texts, targets, strict=True):
            if self._rows == SAMPLE_ROWS or self._characters > SAMPLE_CHARACTERS:
                return
            self._sample.write(json.dumps([text, target]) + "\n")
            self._rows += 1
            self._characters += len(text) + len(target or "")
