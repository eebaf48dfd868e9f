"""Batches of a training step, and the collator that pads rows to tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workers.inference import special_tokens
from workers.inference.special_tokens import SpecialTokens


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one forward pass. Its tensors are on the host until ``to``."""

    rows: list[int]
    inputs: dict[str, torch.Tensor]  # the model's own arguments
    targets: torch.Tensor  # label ids (rows,), flags (rows, labels), or token ids (tokens,)
    positions: torch.Tensor  # of those tokens: the index of the flattened logits that predicts each
    owners: torch.Tensor  # of those tokens: the row of the batch

    def to(self, device: torch.device) -> Batch:
        """Copy the tensors to the device; asynchronous if their memory is pinned."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """Copy the tensors to pinned memory, from which a GPU copies asynchronously."""
        return self._map(torch.Tensor.pin_memory)

    def _map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        inputs = {name: change(tensor) for name, tensor in self.inputs.items()}
        return Batch(
            self.rows, inputs, change(self.targets), change(self.positions), change(self.owners)
        )


class TrainingCollator:
    """Pads rows of token ids to a tensor, with an attention mask."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, model: PreTrainedModel) -> None:
        config: Any = model.config
        self.pad_id = SpecialTokens.of(model, tokenizer).padding
        # A decoder with a classification head finds a row's end by this id, now and once saved.
        special_tokens.text_config(config).pad_token_id = self.pad_id
        # A head that reads the last position must find the text's last token there (XLNet).
        self._left = getattr(config, "summary_type", None) == "last"

    def inputs(self, rows: Sequence[npt.NDArray[Any]]) -> dict[str, torch.Tensor]:
        """Token ids and attention mask, each (rows, tokens)."""
        ids = self.padded(rows, fill=self.pad_id)
        mask = self.padded([np.ones_like(row) for row in rows], fill=0)
        return {"input_ids": ids, "attention_mask": mask}

    def padded(self, rows: Sequence[npt.NDArray[Any]], *, fill: int) -> torch.Tensor:
        """(rows, longest row), padded with ``fill``."""
        longest = max(len(row) for row in rows)
        table = np.full((len(rows), longest), fill, dtype=np.int64)
        for index, row in enumerate(rows):
            start = longest - len(row) if self._left else 0
            table[index, start : start + len(row)] = row
        return torch.from_numpy(table)
