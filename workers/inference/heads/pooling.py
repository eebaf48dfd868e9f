"""Pooling: an encoder's token states become one embedding per window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, PreTrainedModel

from jobs.errors import ModelFailure
from jobs.kinds import Options, Pooling
from jobs.models.inspection import ModelFacts
from jobs.settings import Settings
from workers.inference import model_loader
from workers.inference.batching.collator import ModelInputs
from workers.inference.batching.memory import is_out_of_memory
from workers.inference.kernels import optimization


class PooledEncoder:
    """A model without a head, and the pooling of its token states."""

    def __init__(self, model: PreTrainedModel, *, pooling: str) -> None:
        self.model = model
        self.pooling = pooling

    def forward(self, inputs: ModelInputs) -> torch.Tensor:
        """Embeddings (windows, width) in float32, not normalized."""
        states: torch.Tensor = self.model(**inputs).last_hidden_state
        return pool(states.float(), mask=inputs["attention_mask"], pooling=self.pooling)

    def width(self, inputs: ModelInputs) -> int:
        """The width of an embedding, by a forward pass. Raises ``ModelFailure`` if that fails."""
        try:
            with torch.inference_mode():
                embeddings = self.forward(inputs)
        except Exception as error:  # the model needs an image, or a decoder's text
            if is_out_of_memory(error):
                raise
            raise ModelFailure(
                f"{type(self.model).__name__} makes no embedding of a text alone: {error}",
                code="model_not_an_encoder",
            ) from error
        return embeddings.shape[1]


def pool(states: torch.Tensor, *, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """One vector per window from its token states; padding, at the right, is left out.

    The modes are those of the module `Pooling` in sentence-transformers.
    """
    if pooling == Pooling.CLS:
        return states[:, 0]
    if pooling == Pooling.LAST:
        last = mask.sum(dim=1) - 1
        return states[torch.arange(len(states), device=states.device), last]
    inside = mask.unsqueeze(-1)
    if pooling == Pooling.MAX:
        return states.masked_fill(inside == 0, float("-inf")).amax(dim=1)
    count = inside.sum(dim=1)
    return (states * inside).sum(dim=1) / (count.sqrt() if pooling == "mean_sqrt_len" else count)


def load(
    folder: Path,
    *,
    pooling: str | None,
    facts: ModelFacts,
    options: Options,
    settings: Settings,
    gradients: bool = False,
) -> PooledEncoder:
    """The folder's encoder (of a classifier: its base) on this process's device.

    Without a pooling it uses the one in the model's files, else the mean. Raises ``ModelFailure``.
    """
    auto: Any = AutoModel
    model = model_loader.model(folder, auto=auto, options=options)
    pooling = pooling or facts.pooling or Pooling.MEAN
    optimization.optimize(
        model,
        first_tokens_only=pooling == Pooling.CLS,
        gradients=gradients,
        settings=settings,
    )
    return PooledEncoder(model, pooling=pooling)
