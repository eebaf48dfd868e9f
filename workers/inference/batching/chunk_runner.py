"""All texts of a chunk through tokenizer and model, once.

Texts are tokenized in a thread ahead of the device, longest first, and cut into batches by the
token budget. Memory is bounded by that budget, except for the results that the caller keeps.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from jobs import progress
from jobs.progress import Beat
from jobs.row_codes import RowCode
from workers import time_limits
from workers.inference import row_isolation
from workers.inference.batching.forward import ModelRunner, Row, RowError
from workers.inference.batching.tokenization import RowText, TokenizedText, slices, utf8_bytes
from workers.prefetch import prefetch


class TextTokenizer(Protocol):
    """Tokenizes texts, or pairs of texts, into windows."""

    def tokenize(self, texts: Sequence[Any], /) -> list[TokenizedText]:
        """One result for each text, in order."""


class ChunkRunner:
    """A model and its tokenizer; ``width`` is the number of outputs for a window."""

    def __init__(self, runner: ModelRunner, *, tokenizer: TextTokenizer, width: int) -> None:
        self._runner = runner
        self._tokenizer = tokenizer
        self._width = width
        self._tally = row_isolation.FaultTally("the tokenizer")

    def rows(self, texts: Sequence[RowText], *, beat: Beat) -> list[Row]:
        """A row for every text, with its outputs or its error, in the order of the texts."""
        rows: dict[int, Row] = {}
        for group in self.groups(texts, beat=beat):
            rows.update(group)
        return [rows[index] for index in range(len(texts))]

    def groups(self, texts: Sequence[RowText], *, beat: Beat) -> Iterator[dict[int, Row]]:
        """The same in groups of rows, by their text's index, for a caller that keeps less."""
        whole = sum(map(utf8_bytes, texts))
        with prefetch(self._tokenized_slices(texts, beat=beat)) as groups:
            for group in groups:
                part = sum(utf8_bytes(texts[place]) for place in group)
                rows = {
                    index: Row.of(tokenized, width=self._width)
                    for index, tokenized in group.items()
                }
                self._runner.run(list(rows.values()), beat=beat, share=part / max(whole, 1))
                yield rows

    def _tokenized_slices(
        self, texts: Sequence[RowText], *, beat: Beat
    ) -> Iterator[dict[int, TokenizedText | RowError]]:
        """Tokenized texts by index, a slice at a time; runs in the thread ahead."""
        for indices in slices(texts, budget=self._runner.budget):
            begun = time.perf_counter()
            tokenized = self._tokenize([texts[index] for index in indices])
            progress.tokenized(beat, seconds=time.perf_counter() - begun)
            yield dict(zip(indices, tokenized, strict=True))

    def _tokenize(self, texts: list[RowText]) -> list[TokenizedText | RowError]:
        """A result for each; texts that raise together are tokenized in halves."""
        try:
            with time_limits.reading():
                tokenized = self._tokenizer.tokenize(texts)
        except BaseException as error:  # noqa: BLE001 - what is no row's fault is raised by check
            row_isolation.check(error)
            if len(texts) == 1:
                why = self._tally.raised(row_isolation.reason(error))
                return [RowError(RowCode.ROW_FAILED, why)]
        else:
            self._tally.succeeded(len(texts))
            return list(tokenized)
        middle = len(texts) // 2
        return [*self._tokenize(texts[:middle]), *self._tokenize(texts[middle:])]
