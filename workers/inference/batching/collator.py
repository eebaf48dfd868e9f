"""What the engine knows of a model: windows of tokens in, numbers out."""

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
from workers.inference.batching.batcher import Fill
from workers.inference.batching.tokenization import Window
from workers.inference.kernels import unpadding
from workers.inference.kernels.varlen_attention import Packing, moved
from workers.inference.probes.module_snapshot import Snapshot
from workers.inference.special_tokens import SpecialTokens

Inputs = dict[str, Any]
"""What a model is called with: tensors, and the ``packing`` of one that computes packed."""


class Family(Protocol):
    """A kind of model that outputs numbers of a window."""

    @property
    def model(self) -> PreTrainedModel:
        """Itself, on its device."""

    def measure(self, inputs: Inputs) -> torch.Tensor:
        """One row per window: logits or cosines of labels, or an embedding."""


class Padder:
    """Windows become tensors as one model wants them, on its device."""

    def __init__(self, model: PreTrainedModel, *, tokenizer: PreTrainedTokenizerBase) -> None:
        self.fresh = Snapshot(model)  # before anything was computed
        self.tokens = SpecialTokens.of(model, tokenizer)
        special_tokens.settle(model)
        self.fill = Fill.PACK if unpadding.installed(model) else Fill.PAD  # until the probe
        self._device = model.device
        self._rows = special_tokens.table(model)
        names = set(inspect.signature(model.forward).parameters)
        self._types = "token_type_ids" in names & set(tokenizer.model_input_names)

    def inputs(self, windows: Sequence[Window]) -> Inputs:
        """What the model is called with for these windows."""
        return self.packed(windows) if self.fill is Fill.PACK else self.padded(windows)

    def packed(self, windows: Sequence[Window]) -> Inputs:
        """The same as ``padded``, and where the tokens lie of a model that computes packed."""
        lengths = [len(window.ids) for window in windows]
        return {**self.padded(windows), "packing": Packing.of(lengths).on(self._device)}

    def padded(self, windows: Sequence[Window]) -> Inputs:
        """Token ids, mask and, where the model has them, segments, filled up at the right."""
        for window in windows:
            special_tokens.check_in_table(window.ids, rows=self._rows)
        lengths = [len(window.ids) for window in windows]
        inside = np.arange(max(lengths)) < np.array(lengths)[:, None]  # (windows, longest)
        arrays = {"attention_mask": inside.astype(np.int64)}
        arrays["input_ids"] = np.full(inside.shape, self.tokens.padding, dtype=np.int64)
        arrays["input_ids"][inside] = _flat([window.ids for window in windows])
        if self._types:
            arrays["token_type_ids"] = np.zeros(inside.shape, dtype=np.int64)
            arrays["token_type_ids"][inside] = _flat([window.types for window in windows])
        return {
            name: moved(torch.from_numpy(array), self._device) for name, array in arrays.items()
        }


def _flat(lists: list[list[int]]) -> npt.NDArray[np.int64]:
    return np.fromiter(itertools.chain.from_iterable(lists), dtype=np.int64)
