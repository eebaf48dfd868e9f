"""What the engine knows of a model: windows of tokens in, numbers out."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workers.inference.reading import Window

Inputs = dict[str, torch.Tensor]


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
        self.may_pad = pad is not None and getattr(config, "summary_type", None) != "last"
        self._pad = pad if pad is not None else 0
        if getattr(config, "pad_token_id", None) is None:
            config.pad_token_id = pad if pad is not None else -1
        self._device = model.device
        names = set(inspect.signature(model.forward).parameters)
        self._types = "token_type_ids" in names & set(tokenizer.model_input_names)

    def inputs(self, windows: Sequence[Window]) -> Inputs:
        """Token ids, mask and, where the model has them, segments, filled up at the right."""
        longest = max(len(window.ids) for window in windows)
        ids = np.full((len(windows), longest), self._pad, dtype=np.int64)
        types, mask = np.zeros_like(ids), np.zeros_like(ids)
        for place, window in enumerate(windows):
            length = len(window.ids)
            ids[place, :length] = window.ids
            types[place, :length] = window.types
            mask[place, :length] = 1
        arrays = {"input_ids": ids, "attention_mask": mask}
        if self._types:
            arrays["token_type_ids"] = types
        return {name: torch.from_numpy(array).to(self._device) for name, array in arrays.items()}
