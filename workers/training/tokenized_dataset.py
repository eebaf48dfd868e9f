"""A job's splits as the model reads them: flat files of token ids and targets, made once per host.

Shards are read and tokenized batch by batch and written as they come; nothing of a corpus is held
in memory. Without a ``validation`` folder its rows are a share of ``train``.
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
from jobs.results.schemas import RowCode
from workers.inference.batching.forward import RowError
from workers.training import faults
from workers.training.ragged_array import Ragged, Writer

log = structlog.get_logger()

BATCH_ROWS = 2_000
"""Rows that are tokenized in one go."""

SAMPLE_ROWS = 256
SAMPLE_CHARACTERS = 2**19
"""Bounds on the first rows of each split that are kept as they stood in the corpus."""

Row = tuple[list[int], list[int]]
"""What the model reads, and what it should answer."""

TRAIN, VALIDATION, TEST = "train", "validation", "test"


class Encoder(Protocol):
    """What makes token ids of rows; of a family of models."""

    def encode(
        self, texts: Sequence[str], targets: Sequence[str | None]
    ) -> Sequence[Row | RowError]:
        """Of each row: what the model reads, and what it should answer; or why it cannot."""


class Tokens:
    """A split's rows, by their place in it."""

    def __init__(self, folder: Path) -> None:
        self.inputs = Ragged(folder / "inputs")
        self.targets = Ragged(folder / "targets")
        self._texts = Ragged(folder / "texts", dtype="uint8")

    def __len__(self) -> int:
        return len(self.inputs)

    def reference(self, row: int) -> str:
        """The text that should be written, as it stood in the corpus."""
        return bytes(self._texts[row]).decode()


class InMemory(Tokens):
    """Some rows that are in no file."""

    def __init__(
        self,
        rows: Sequence[tuple[Sequence[int], Sequence[int]]],
        *,
        targets: Sequence[str | None],
    ) -> None:
        self.inputs = Held([inputs for inputs, _ in rows])
        self.targets = Held([answers for _, answers in rows])
        self._references = [target or "" for target in targets]

    def reference(self, row: int) -> str:
        """The text that should be written, as it stood in the corpus."""
        return self._references[row]


class Held(Ragged):
    """Rows of different lengths in memory."""

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        self.values = np.array([each for row in rows for each in row], dtype=np.int32)
        self.offsets = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)


def write(data: Path, *, to: Path, encoder: Encoder, spec: FinetuneSpec, alive: Beat) -> None:
    """Tokenize every split under ``data``; the folder ``to`` appears when all are complete."""
    draft = to.with_name(f"{to.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    for split in sorted(path.name for path in data.iterdir() if path.is_dir()):
        choose = _chooser(data, split=split, spec=spec)
        _write_split(data / split, choose, encoder=encoder, draft=draft, alive=alive)
    draft.rename(to)


def read(folder: Path, split: str) -> Tokens | None:
    """A tokenized split; ``None`` where the job has none of this name."""
    return Tokens(folder / split) if (folder / split).is_dir() else None


def sample(folder: Path, split: str) -> list[tuple[str, str | None]]:
    """Text and target of the first rows of a tokenized split, some hundred at most."""
    with (folder / split / "sample.jsonl").open(encoding="utf-8") as file:
        return [tuple(json.loads(line)) for line in file]


def required(folder: Path, split: str) -> Tokens:
    """A tokenized split that must have rows. Raises ``CorpusFailure``."""
    found = read(folder, split)
    if found is None or not len(found):
        raise CorpusFailure(
            f"the {split} rows must be one at least, and are none", code="split_empty"
        )
    return found


Choose = Callable[[str | None], str]
"""The split of a row, by its target; asked once for each row, in order."""


def _chooser(data: Path, *, split: str, spec: FinetuneSpec) -> Choose:
    if split != TRAIN or (data / VALIDATION).is_dir():
        return lambda _: split
    stratified = spec.task is Task.CLASSIFY and not spec.multi_label
    counts: Counter[str] = Counter()
    for _, _, targets in rows(data / split):
        counts.update(_stratum(target, stratified=stratified) for target in targets)
    selector = Selector(counts, share=spec.validation_share, seed=spec.train.seed)

    def choose(target: str | None) -> str:
        taken = selector.take(_stratum(target, stratified=stratified))
        return VALIDATION if taken else TRAIN

    return choose


def _stratum(target: str | None, *, stratified: bool) -> str:
    return str(target) if stratified else validation_split.WHOLE


def _write_split(
    shards: Path, choose: Choose, *, encoder: Encoder, draft: Path, alive: Beat
) -> None:
    left_out = LeftOut(shards.name)
    with ExitStack() as stack:
        writers: dict[str, _SplitWriter] = {}
        for lines, texts, targets in rows(shards):
            encoded = _encoded(encoder, texts, targets)
            chosen = [choose(target) for target in targets]
            sound = left_out.without(encoded, lines=lines)
            for split in sorted(set(chosen)):
                if split not in writers:
                    writers[split] = stack.enter_context(_SplitWriter(draft / split))
                places = [place for place in sound if chosen[place] == split]
                writers[split].append(
                    [sound[place] for place in places],
                    texts=[texts[place] for place in places],
                    targets=[targets[place] for place in places],
                )
            alive()
    left_out.tell()


def _encoded(
    encoder: Encoder, texts: Sequence[str], targets: Sequence[str | None]
) -> list[Row | RowError]:
    """The rows' tokens; an error for a row for which the tokenizer raises."""
    try:
        return list(encoder.encode(texts, targets))
    except (NightshiftError, MemoryError, OSError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - panics of Rust are no exceptions
        if len(texts) == 1:
            return [RowError(RowCode.ROW_FAILED, f"the tokenizer raises: {faults.words(error)}")]
        half = len(texts) // 2
        return [
            *_encoded(encoder, texts[:half], targets[:half]),
            *_encoded(encoder, texts[half:], targets[half:]),
        ]


class LeftOut:
    """Rows of a split that a model cannot be given: they are counted, and the first is named."""

    def __init__(self, split: str) -> None:
        self._split = split
        self._rows = self.count = 0
        self._first: tuple[int, RowError] | None = None

    def without(self, encoded: Sequence[Row | RowError], *, lines: Sequence[int]) -> dict[int, Row]:
        """The other rows, by their place."""
        sound: dict[int, Row] = {}
        for place, row in enumerate(encoded):
            if isinstance(row, RowError):
                self.count += 1
                self._first = self._first or (lines[place], row)
            else:
                sound[place] = row
        self._rows += len(encoded)
        return sound

    def tell(self) -> None:
        """Warn of them in the log. Raises ``CorpusFailure`` where no row is left."""
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
    """Lines, texts and targets of a split's shards, some rows at a time."""
    columns = ["line", "text", "target"]
    for shard in sorted(shards.glob("*.parquet")):
        with pq.ParquetFile(shard) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
                yield tuple(batch[name].to_pylist() for name in columns)


class _SplitWriter(ExitStack):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        folder.mkdir(parents=True)
        self._inputs = self.enter_context(Writer(folder / "inputs"))
        self._targets = self.enter_context(Writer(folder / "targets"))
        self._texts = self.enter_context(Writer(folder / "texts", dtype="uint8"))
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
