"""The collator: token windows become the input tensors of a forward pass."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workers.inference import special_tokens
from workers.inference.batching.batcher import BatchLayout
from workers.inference.batching.tokenization import TokenWindow
from workers.inference.kernels import unpadding
from workers.inference.kernels.varlen_attention import Packing, to_device
from workers.inference.probes.module_snapshot import ModuleSnapshot
from workers.inference.special_tokens import SpecialTokens

ModelInputs = dict[str, Any]
"""Keyword arguments of a forward pass: tensors, and the ``packing`` of a model without padding."""


class Head(Protocol):
    """A model with a head that outputs one vector for each window."""

    @property
    def model(self) -> PreTrainedModel:
        """The model itself, on its device."""

    def forward(self, inputs: ModelInputs) -> torch.Tensor:
        """(windows, width): logits or cosines of labels, or an embedding."""


class Collator:
    """Collates windows into tensors as one model takes them, on its device."""

    def __init__(self, model: PreTrainedModel, *, tokenizer: PreTrainedTokenizerBase) -> None:
        self.snapshot = ModuleSnapshot(model)  # before the first forward pass
        self.tokens = SpecialTokens.of(model, tokenizer)
        special_tokens.set_missing_padding_id(model)
        packs = unpadding.installed(model)
        self.layout = BatchLayout.PACKED if packs else BatchLayout.PADDED  # until the probe
        self._device = model.device
        self._embeddings = special_tokens.embedding_rows(model)
        names = set(inspect.signature(model.forward).parameters)
        self._has_type_ids = "token_type_ids" in names & set(tokenizer.model_input_names)

    def collate(self, windows: Sequence[TokenWindow]) -> ModelInputs:
        """Inputs of a forward pass over these windows, in the layout that the probe allows."""
        packs = self.layout is BatchLayout.PACKED
        return self.packed(windows) if packs else self.padded(windows)

    def packed(self, windows: Sequence[TokenWindow]) -> ModelInputs:
        """``padded``, and the packing by which the model removes the padding."""
        lengths = [len(window.ids) for window in windows]
        return {**self.padded(windows), "packing": Packing.of(lengths).to(self._device)}

    def padded(self, windows: Sequence[TokenWindow]) -> ModelInputs:
        """Token ids, attention mask and, where the model has them, token types, right-padded."""
        for window in windows:
            special_tokens.check_ids(window.ids, rows=self._embeddings)
        lengths = [len(window.ids) for window in windows]
        inside = np.arange(max(lengths)) < np.array(lengths)[:, None]  # (windows, longest)
        arrays = {"attention_mask": inside.astype(np.int64)}
        arrays["input_ids"] = np.full(inside.shape, self.tokens.padding, dtype=np.int64)
        arrays["input_ids"][inside] = _flat([window.ids for window in windows])
        if self._has_type_ids:
            arrays["token_type_ids"] = np.zeros(inside.shape, dtype=np.int64)
            arrays["token_type_ids"][inside] = _flat([window.type_ids for window in windows])
        return {
            name: to_device(torch.from_numpy(array), self._device) for name, array in arrays.items()
        }


def _flat(lists: list[list[int]]) -> npt.NDArray[np.int64]:
    return np.fromiter(itertools.chain.from_iterable(lists), dtype=np.int64)
