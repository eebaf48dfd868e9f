"""A split's rows measured by the ranks of a training together.

Rows are measured in blocks of a fixed size, and joined in their order: the report does not depend
on the number of ranks.
"""

from __future__ import annotations

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
from workers.training.evaluation import Part, Writer
from workers.training.metrics import Report
from workers.training.tasks import Family
from workers.training.tokenized_dataset import Tokens

BLOCK_ROWS = 512

Losses = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Judge:
    """What the evaluations of a training have in common."""

    family: Family
    tokenizer: PreTrainedTokenizerBase
    budget: int
    max_tokens: int
    alive: Beat

    def report(self, state: TrainState, tokens: Tokens, *, writes: bool) -> Report:
        """The report on the model as it is; every rank calls it and gets the same.

        ``writes``: a text2text model also writes its texts, for BLEU and chrF.
        """
        parts = self._parts(state, tokens, writes=writes and self.family.task is Task.TEXT2TEXT)
        distributed.wait(state.accelerator, alive=self.alive)
        if not state.sharded:
            parts = dict(gather_object(list(parts.items())))
        report = None
        if state.accelerator.is_main_process:
            whole = evaluation.joined([parts[block] for block in sorted(parts)])
            report = evaluation.report(whole, family=self.family)
        distributed.wait(state.accelerator, alive=self.alive)
        shared: Report = broadcast_object_list([report])[0]
        return shared

    def losses(self, state: TrainState, tokens: Tokens, *, rows: int) -> Losses | None:
        """The loss of each of the first rows on the main process; every rank calls it."""
        if not (state.sharded or state.accelerator.is_main_process):
            return None
        model: Any = state.model if state.sharded else state.module
        return evaluation.losses(
            model, self.family, tokens, rows=range(rows), budget=self.budget, beat=self.alive
        )

    def _parts(self, state: TrainState, tokens: Tokens, *, writes: bool) -> dict[int, Part]:
        """The blocks of this rank; of a sharded model all: no rank can go through it alone."""
        model: Any = state.model if state.sharded else state.module
        rank, ranks = state.accelerator.process_index, state.accelerator.num_processes
        writer = Writer(self.tokenizer, max_tokens=self.max_tokens) if writes else None
        return {
            block: evaluation.measure(
                model,
                self.family,
                tokens,
                rows=range(start, min(start + BLOCK_ROWS, len(tokens))),
                budget=self.budget,
                beat=self.alive,
                writer=writer,
            )
            for block, start in enumerate(range(0, len(tokens), BLOCK_ROWS))
            if state.sharded or block % ranks == rank
        }
