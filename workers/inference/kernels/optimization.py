"""What makes a model faster on its device and does not change its output."""

from __future__ import annotations

from transformers import PreTrainedModel

from jobs.settings import Settings
from workers.inference.kernels import linear_layouts, unpadding


def optimize(
    model: PreTrainedModel, *, first_tokens_only: bool, settings: Settings, gradients: bool = False
) -> None:
    """Prepare an encoder for inference, in place.

    ``first_tokens_only``: only the states of first tokens are read. ``gradients``: explanations
    will need gradients.
    """
    if not unpadding.supports(model):
        return
    unpadding.install(model, first_tokens_only=first_tokens_only)
    if not gradients and model.device.type == "cpu":
        linear_layouts.install(model, settings=settings)
