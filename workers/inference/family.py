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

from workers.inference import packing
from workers.inference.attending import Packing, moved
from workers.inference.batching import Fill
from workers.inference.reading import Window

Inputs = dict[str, Any]
"""What a model is called with: tensors, and the ``packing`` of one that computes packed."""


class Family(Protocol):
    """A kind of model that says so many numbers of a window."""

    def measure(self, inputs: Inputs) -> torch.Tensor:
        """One row per window: logits or cosines of labels, or an embedding."""


class Padder:
    """Windows become tensors as one model wants them, on its device."""

    def __init__(self, model: PreTrainedModel, *, tokenizer: PreTrainedTokenizerBase) -> None:
        config = model.config
        pad = tokenizer.pad_token_id
        pad = pad if pad is not None else getattr(config, "pad_token_id", None)
        # A head that reads the last token (XLNet) or finds it by the padding id (decoders) would
        # read a filled-up row wrongly: such models get rows of one length only.
        may_pad = pad is not None and getattr(config, "summary_type", None) != "last"
        self.fill = Fill.PAD if may_pad else Fill.NOT
        if packing.installed(model):
            self.fill = Fill.PACK
        self._pad = pad if pad is not None else 0
        if getattr(config, "pad_token_id", None) is None:
            config.pad_token_id = pad if pad is not None else -1
        self._device = model.device
        names = set(inspect.signature(model.forward).parameters)
        self._types = "token_type_ids" in names & set(tokenizer.model_input_names)

    def inputs(self, windows: Sequence[Window]) -> Inputs:
        """What the model is called with for these windows."""
        inputs = self.padded(windows)
        if self.fill is Fill.PACK:
            lengths = [len(window.ids) for window in windows]
            inputs["packing"] = Packing.of(lengths).on(self._device)
        return inputs

    def padded(self, windows: Sequence[Window]) -> Inputs:
        """Token ids, mask and, where the model has them, segments, filled up at the right."""
        lengths = [len(window.ids) for window in windows]
        inside = np.arange(max(lengths)) < np.array(lengths)[:, None]  # (windows, longest)
        arrays = {"attention_mask": inside.astype(np.int64)}
        arrays["input_ids"] = np.full(inside.shape, self._pad, dtype=np.int64)
        arrays["input_ids"][inside] = _flat([window.ids for window in windows])
        if self._types:
            arrays["token_type_ids"] = np.zeros(inside.shape, dtype=np.int64)
            arrays["token_type_ids"][inside] = _flat([window.types for window in windows])
        return {
            name: moved(torch.from_numpy(array), self._device) for name, array in arrays.items()
        }


def _flat(lists: list[list[int]]) -> npt.NDArray[np.int64]:
    return np.fromiter(itertools.chain.from_iterable(lists), dtype=np.int64)
