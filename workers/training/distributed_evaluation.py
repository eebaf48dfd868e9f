"""Distributed evaluation: the ranks of a training share the rows of a split.

Rows are measured in blocks of a fixed size and merged in order, so that the report does not depend
on the world size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from accelerate.utils import broadcast_object_list, gather_object
from transformers import PreTrainedTokenizerBase

from jobs.kinds import Task
from jobs.progress import Beat
from workers.training import distributed, evaluation
from workers.training.checkpoint import TrainState
from workers.training.evaluation import EvaluationPart, GreedyDecoder
from workers.training.messages import MessageWriter
from workers.training.metrics import Report
from workers.training.objectives.objective import Objective
from workers.training.shutdown import StopRequest, TrainingStopped
from workers.training.tokenized_dataset import TokenizedSplit

BLOCK_ROWS = 512

Losses = npt.NDArray[np.float64]


@dataclass(frozen=True)
class EvaluationProgress:
    """Reports how many rows an evaluation has done, and ends it if the training is asked to stop.

    It ends only in a ``single_process``: one of several ranks would leave the others waiting.
    """

    messages: MessageWriter
    stop: StopRequest
    single_process: bool

    def beat(self) -> None:
        """A heartbeat. Raises ``TrainingStopped``."""
        self.messages.heartbeat()
        if self.single_process and self.stop.requested:
            raise TrainingStopped

    def evaluated(self, rows: int, *, total: int) -> None:
        """``rows`` of ``total`` rows are done. Raises ``TrainingStopped``."""
        self.messages.evaluated(rows, total=total)
        self.beat()


@dataclass(frozen=True)
class Evaluator:
    """The settings that all evaluations of a training share."""

    objective: Objective
    tokenizer: PreTrainedTokenizerBase
    budget: int
    max_tokens: int
    progress: EvaluationProgress

    @property
    def beat(self) -> Beat:
        """The heartbeat of an evaluation."""
        return self.progress.beat

    def report(self, state: TrainState, split: TokenizedSplit, *, generate: bool) -> Report:
        """The report on the current model; a collective call, with the same report on every rank.

        ``generate``: a text2text model also generates texts, for BLEU and chrF.
        """
        parts = self._parts(
            state, split, generate=generate and self.objective.task is Task.TEXT2TEXT
        )
        distributed.barrier(state.accelerator, beat=self.beat)
        if not state.sharded:
            parts = dict(gather_object(list(parts.items())))
        report = None
        if state.accelerator.is_main_process:
            whole = evaluation.merge([parts[block] for block in sorted(parts)])
            report = evaluation.report(whole, objective=self.objective)
        distributed.barrier(state.accelerator, beat=self.beat)
        shared: Report = broadcast_object_list([report])[0]
        return shared

    def losses(self, state: TrainState, split: TokenizedSplit, *, rows: int) -> Losses | None:
        """The losses of the first rows, on the main process; a collective call."""
        if not (state.sharded or state.accelerator.is_main_process):
            return None
        model: Any = state.model if state.sharded else state.module
        return evaluation.losses(
            model, self.objective, split, rows=range(rows), budget=self.budget, beat=self.beat
        )

    def _parts(
        self, state: TrainState, split: TokenizedSplit, *, generate: bool
    ) -> dict[int, EvaluationPart]:
        """The blocks that this rank measures: its share, or every block if the model is sharded.

        The forward pass of a sharded model is collective: all ranks compute the same rows.
        """
        model: Any = state.model if state.sharded else state.module
        rank, ranks = state.accelerator.process_index, state.accelerator.num_processes
        decoder = GreedyDecoder(self.tokenizer, max_tokens=self.max_tokens) if generate else None
        advance = self._counter(
            state, rows=len(split), ranks_measuring=1 if state.sharded else ranks
        )
        return {
            block: evaluation.measure(
                model,
                self.objective,
                split,
                rows=range(start, min(start + BLOCK_ROWS, len(split))),
                budget=self.budget,
                beat=self.beat,
                advance=advance,
                decoder=decoder,
            )
            for block, start in enumerate(range(0, len(split), BLOCK_ROWS))
            if state.sharded or block % ranks == rank
        }

    def _counter(
        self, state: TrainState, *, rows: int, ranks_measuring: int
    ) -> Callable[[int], None]:
        """Counts the rows of this rank; each of ``ranks_measuring`` ranks does about as many."""
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if state.accelerator.is_main_process:
                self.progress.evaluated(min(done * ranks_measuring, rows), total=rows)
            else:
                self.beat()

        advance(0)
        return advance
