"""Linear layers in integers of 8 bits, on CPU: weights once, what goes in at every batch.

PyTorch's dynamic quantization: weights by output channel, a batch's numbers by their range. So a
row's numbers depend a little on its batch, and promise P6 does not hold for what is computed so.
"""

from __future__ import annotations

import warnings
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from jobs.errors import ModelFailure


def quantized(model: PreTrainedModel) -> PreTrainedModel:
    """The model, linear layers quantized in place. Raises ``ModelFailure`` where that cannot be."""
    if model.device.type != "cpu":
        raise ModelFailure(
            f"int8 computes on CPU, and this worker's device is {model.device.type}; "
            "submit the job without int8, or to a pool of CPU workers",
            code="int8_needs_cpu",
        )
    if torch.backends.quantized.engine == "none":
        raise ModelFailure(
            "this worker's PyTorch has no int8 for its CPU; submit the job without int8",
            code="int8_needs_cpu",
        )
    with warnings.catch_warnings():  # of its move to a package whose kernels are slower on CPU
        warnings.simplefilter("ignore")
        from torch.ao.quantization import quantize_dynamic  # noqa: PLC0415

        quantize: Any = quantize_dynamic
        return cast(
            "PreTrainedModel", quantize(model, {nn.Linear}, dtype=torch.qint8, inplace=True)
        )
