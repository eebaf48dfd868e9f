"""An encoder with its pooling: one vector per window of tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, PreTrainedModel

from jobs.errors import ModelFailure
from jobs.kinds import LoadOptions, Pooling
from jobs.models.inspection import ModelFacts
from jobs.settings import Settings
from workers.inference import model_loader
from workers.inference.batching.collator import Inputs
from workers.inference.batching.memory import is_out_of_memory
from workers.inference.kernels import optimization


class Encoder:
    """A model without a head, and how its tokens' states become one vector."""

    def __init__(self, model: PreTrainedModel, *, pooling: str) -> None:
        self.model = model
        self.pooling = pooling

    def measure(self, inputs: Inputs) -> torch.Tensor:
        """Embeddings (windows, width) in float32, of whatever length they come."""
        states: torch.Tensor = self.model(**inputs).last_hidden_state
        return pool(states.float(), mask=inputs["attention_mask"], pooling=self.pooling)

    def width(self, inputs: Inputs) -> int:
        """Numbers in an embedding, found by making one. Raises ``ModelFailure`` if it cannot."""
        try:
            with torch.inference_mode():
                made = self.measure(inputs)
        except Exception as error:  # of whatever the model misses: an image, a decoder's text
            if is_out_of_memory(error):
                raise
            raise ModelFailure(
                f"{type(self.model).__name__} makes no embedding of a text alone: {error}",
                code="model_not_an_encoder",
            ) from error
        return made.shape[1]


def pool(states: torch.Tensor, *, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """One vector per window from its tokens' states; padding is at the right and left out.

    The modes are those of sentence-transformers' module `Pooling`.
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
    options: LoadOptions,
    settings: Settings,
    gradients: bool = False,
) -> Encoder:
    """The folder's encoder (of a classifier: its base) on this process's device.

    Without a pooling it is as the model's files say, else a mean. Raises ``ModelFailure``.
    """
    auto: Any = AutoModel
    model = model_loader.model(folder, auto=auto, options=options)
    pooling = pooling or facts.pooling or Pooling.MEAN
    optimization.tune(model, firsts=pooling == Pooling.CLS, gradients=gradients, settings=settings)
    return Encoder(model, pooling=pooling)
