"""Encoders without a trained head: the label whose text is nearest to the row's, by cosine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import AutoModel, PreTrainedModel

from jobs.errors import ModelFailure
from jobs.models import ModelFacts
from jobs.specs import ClassifyOptions
from workers.inference import loading
from workers.inference.decide import Activation
from workers.inference.family import Inputs

DEFAULT_POOLING = "mean"
POOLINGS = ("cls", "lasttoken", "max", "mean")
MODULES = ("Transformer", "Pooling", "Normalize")
"""Modules of a sentence-transformers folder that are followed here; a cosine normalizes anyway."""


class Nearest:
    """Label texts as points: cosines between a row's embedding and each label's."""

    activation = Activation.COSINE

    def __init__(self, model: PreTrainedModel, *, pooling: str, labels: tuple[str, ...]) -> None:
        self.model = model
        self.labels = labels
        self._pooling = pooling
        self._points = torch.empty(0)

    def place_labels(self, inputs: Sequence[Inputs]) -> None:
        """Embed the label texts, each alone: a point must not depend on its neighbours."""
        with torch.inference_mode():
            self._points = torch.cat([self.embed(each) for each in inputs])

    def measure(self, inputs: Inputs) -> torch.Tensor:
        """Cosines, one row per window."""
        return self.embed(inputs) @ self._points.T

    def embed(self, inputs: Inputs) -> torch.Tensor:
        """Embeddings of length one in float32, one per window."""
        states: torch.Tensor = self.model(**inputs).last_hidden_state
        pooled = pool(states.float(), mask=inputs["attention_mask"], pooling=self._pooling)
        return functional.normalize(pooled, dim=1)


def pool(states: torch.Tensor, *, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """One vector per window from its tokens' states; padding is at the right and left out."""
    if pooling == "cls":
        return states[:, 0]
    if pooling == "lasttoken":
        last = mask.sum(dim=1) - 1
        return states[torch.arange(len(states), device=states.device), last]
    inside = mask.unsqueeze(-1)
    if pooling == "max":
        return states.masked_fill(inside == 0, float("-inf")).amax(dim=1)
    return (states * inside).sum(dim=1) / inside.sum(dim=1)


def load(
    folder: Path,
    *,
    facts: ModelFacts,
    options: ClassifyOptions,
    device: torch.device,
) -> Nearest:
    """The folder's encoder (of a classifier: its base), its labels not placed yet."""
    pooling = facts.pooling or DEFAULT_POOLING
    _check_followed(folder, pooling=pooling)
    auto: Any = AutoModel
    model = loading.module(
        folder, auto=auto, dtype=loading.dtype(options, device=device), device=device
    )
    return Nearest(model, pooling=pooling, labels=options.labels or ())


def _check_followed(folder: Path, *, pooling: str) -> None:
    """Raise where the folder asks for a step that would be left out in silence."""
    path = folder / "modules.json"
    modules = json.loads(path.read_bytes()) if path.is_file() else []
    names = [str(entry["type"]).rsplit(".", maxsplit=1)[-1] for entry in modules]
    unknown = [name for name in names if name not in MODULES]
    if unknown or pooling not in POOLINGS:
        raise ModelFailure(
            f"the model's embeddings need {', '.join(unknown) or f'{pooling} pooling'}, which is "
            f"not supported: the modules must be {', '.join(MODULES)} with pooling by one of "
            f"{', '.join(POOLINGS)}",
            code="model_unsupported",
        )
