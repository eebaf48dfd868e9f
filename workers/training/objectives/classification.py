"""The objective of the task classify."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from jobs.errors import CorpusFailure
from jobs.kinds import Task
from workers.training.objectives.batch import Batch, TrainingCollator
from workers.training.objectives.tokenization import TruncatingTokenizer
from workers.training.tokenized_dataset import Row, TokenizedSplit


class Classification:
    """One label per row with cross-entropy, or any number with one sigmoid per label."""

    task = Task.CLASSIFY

    def __init__(
        self,
        tokenizer: TruncatingTokenizer,
        collator: TrainingCollator,
        *,
        labels: Sequence[str],
        multi_label: bool,
        counted_id: int | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._collator = collator
        self._counted_id = counted_id
        self._label_ids = {label: label_id for label_id, label in enumerate(labels)}
        self.labels = tuple(labels)
        self.multi_label = multi_label
        self._class_weights: torch.Tensor | None = None

    def encode(self, texts: Sequence[str], targets: Sequence[str | None]) -> list[Row]:
        """Token ids of the text, and label ids."""
        label_ids = [self._target_ids(target) for target in targets]
        return list(zip(self._tokenizer.encode(texts), label_ids, strict=True))

    def _target_ids(self, target: str | None) -> list[int]:
        names: list[Any] = json.loads(target or "[]") if self.multi_label else [target]
        try:
            return sorted({self._label_ids[name] for name in names})
        except KeyError as unknown:
            raise CorpusFailure(
                f"a label must be one that the training rows have, and is {unknown.args[0]!r}",
                code="unknown_label",
            ) from None

    def balance(self, split: TokenizedSplit) -> None:
        """Weights: rows / (labels * rows of the label); multi-label: negatives / positives."""
        counts = np.bincount(split.targets.values, minlength=len(self.labels))
        positives = np.maximum(counts, 1)
        rows = len(split)
        if self.multi_label:
            weights = (rows - counts) / positives
        else:
            weights = rows / (len(counts) * positives)
        self._class_weights = torch.tensor(weights, dtype=torch.float32)

    def lengths(self, split: TokenizedSplit) -> npt.NDArray[np.int32]:
        """Tokens of the text."""
        return split.inputs.lengths

    def weights(self, split: TokenizedSplit) -> npt.NDArray[np.float32]:
        """One, or the class weight of the row's label."""
        if self._class_weights is None or self.multi_label:
            return np.ones(len(split), dtype=np.float32)
        return self._class_weights.numpy()[split.targets.values]

    def together(self, split: TokenizedSplit, rows: Sequence[int]) -> list[list[int]]:
        """Groups of rows with an equal number of end tokens.

        Raises ``CorpusFailure`` for a row without any.
        """
        if self._counted_id is None:
            return [list(rows)]
        groups: dict[int, list[int]] = {}
        for row in rows:
            count = int((split.inputs[row] == self._counted_id).sum())
            if count == 0:
                raise CorpusFailure(
                    f"every text must have an end token (id {self._counted_id}) for this base, "
                    f"which reads its label there, and row {row} has 0 in "
                    f"{len(split.inputs[row])} tokens: its tokenizer adds none",
                    code="no_end_token",
                )
            groups.setdefault(count, []).append(row)
        return list(groups.values())

    def batch(self, split: TokenizedSplit, rows: Sequence[int]) -> Batch:
        """Texts and their labels."""
        inputs = self._collator.inputs([split.inputs[row] for row in rows])
        labels = torch.from_numpy(self.truth(split, rows))
        no_tokens = torch.zeros(0, dtype=torch.int64)
        return Batch(list(rows), inputs, labels, no_tokens, no_tokens)

    def truth(self, split: TokenizedSplit, rows: Sequence[int]) -> npt.NDArray[Any]:
        """Label ids (rows,), or flags (rows, labels)."""
        if not self.multi_label:
            return np.array([split.targets[row][0] for row in rows], dtype=np.int64)
        flags = np.zeros((len(rows), len(self.labels)), dtype=bool)
        for index, row in enumerate(rows):
            flags[index, split.targets[row]] = True
        return flags

    def losses(self, logits: torch.Tensor, batch: Batch, *, weighted: bool) -> torch.Tensor:
        """Cross-entropy; multi-label: the mean of the labels' binary cross-entropies."""
        class_weights = self._class_weights_on(logits.device) if weighted else None
        logits = logits.float()
        if self.multi_label:
            flags = batch.targets.to(logits.dtype)
            losses = functional.binary_cross_entropy_with_logits(
                logits, flags, pos_weight=class_weights, reduction="none"
            )
            return losses.mean(dim=1)
        return functional.cross_entropy(
            logits, batch.targets, weight=class_weights, reduction="none"
        )

    def _class_weights_on(self, device: torch.device) -> torch.Tensor | None:
        if self._class_weights is not None and self._class_weights.device != device:
            self._class_weights = self._class_weights.to(device)
        return self._class_weights
