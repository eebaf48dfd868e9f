"""What makes a model faster on its device without changing what it says."""

from __future__ import annotations

from transformers import PreTrainedModel

from jobs.settings import Settings
from workers.inference.kernels import linear_layouts, unpadding


def tune(
    model: PreTrainedModel, *, firsts: bool, settings: Settings, gradients: bool = False
) -> None:
    """Rearrange an encoder for inference.

    ``firsts``: only the states of first tokens are read; ``gradients``: somebody will ask for them.
    """
    if not unpadding.fits(model):
        return
    unpadding.install(model, firsts=firsts)
    if not gradients and model.device.type == "cpu":
        linear_layouts.install(model, settings=settings)
