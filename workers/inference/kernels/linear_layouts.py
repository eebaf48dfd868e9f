"""Memory layout of an encoder's linear layers: as in the checkpoint, or prepacked for oneDNN.

Which layout is faster depends on the processor and on the number of threads. So the two race when a
model is loaded, on the layers of its first block and on random states, and the winner is cached for
all models of that shape (decision 0025). Results do not depend on the layout beyond the order of
sums (promise P6).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum

import structlog
import torch
from torch import nn
from transformers import PreTrainedModel

from jobs.settings import Settings
from workers.inference.batching import race
from workers.inference.batching.autotune_cache import TuningCache
from workers.inference.kernels import onednn_linear
from workers.inference.kernels.onednn_linear import PrepackedLinear

log = structlog.get_logger()

CACHE_NAME = "layout"

TOKENS = 2_048
"""Tokens of a batch in the race, as many as real batches have. Fewer favour prepacked weights: a
plain layer reorders its weights once in every call."""

MIN_WEIGHTS = 2**18
"""A block with fewer weights keeps its layout: the difference would not be noticeable."""

SECONDS = 10.0
"""Limit on a race; a lap that has begun is finished."""


class LinearLayout(StrEnum):
    """Memory layout of the weights, and what computes with it. Values are stored in the cache."""

    PLAIN = "plain"  # as in the checkpoint: MKL reorders the weights in every call
    PREPACKED = "laid_out"  # reordered once for oneDNN, which fuses an exact GELU


class InPlaceGELU(nn.Module):
    """An exact GELU that overwrites its input; for inference."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(...) to the same tensor."""
        activated: torch.Tensor = torch.ops.aten.gelu_(states)
        return activated


def install(model: PreTrainedModel, *, settings: Settings) -> None:
    """Give an encoder the layout that is fastest here. It has no gradients after this."""
    if choice(model, settings=settings) is LinearLayout.PREPACKED:
        onednn_linear.install(model)
    else:
        for module, _, activation in onednn_linear.activated(model):
            setattr(module, activation, InPlaceGELU())


def choice(model: PreTrainedModel, *, settings: Settings) -> LinearLayout:
    """The fastest layout: the only possible one, the cached one, or the winner of a race."""
    layers = onednn_linear.first_block(model)
    shapes = [[*layer.weight.shape] for layer in layers]
    weights = sum(rows * columns for rows, columns in shapes)
    if not onednn_linear.supports(model) or weights < MIN_WEIGHTS:
        return LinearLayout.PLAIN
    variant = f"linear, {TOKENS} tokens"
    cache = TuningCache.of(settings, model=model, digest=None, variant=variant, shapes=shapes)
    cached = cache.get(CACHE_NAME, LinearLayout)
    if cached is not None:
        return cached
    speeds = race.run(_candidates(model, layers), seconds=SECONDS)
    layout = race.winner(speeds, default=LinearLayout.PLAIN)
    shown = {each.value: speed for each, speed in speeds.items()}
    log.info("linear layers raced", layout=layout.value, relative_speeds=shown, shapes=shapes)
    if speeds:
        cache.keep(CACHE_NAME, layout)
    return layout


def _candidates(
    model: PreTrainedModel, layers: Sequence[nn.Linear]
) -> dict[LinearLayout, Callable[[], object]]:
    """Each computes every linear layer of a block once, with its GELU where one follows."""
    before_gelu = {getattr(module, layer) for module, layer, _ in onednn_linear.activated(model)}
    random = torch.Generator().manual_seed(0)
    states = {
        width: torch.randn(TOKENS, width, generator=random)
        for width in {layer.in_features for layer in layers}
    }
    gelu = InPlaceGELU()
    plain = [nn.Sequential(each, gelu) if each in before_gelu else each for each in layers]
    prepacked = [
        PrepackedLinear(each, activation="gelu" if each in before_gelu else "none")
        for each in layers
    ]

    @torch.inference_mode()
    def compute(modules: Sequence[nn.Module]) -> None:
        for module, layer in zip(modules, layers, strict=True):
            module(states[layer.in_features])

    return {
        LinearLayout.PLAIN: lambda: compute(plain),
        LinearLayout.PREPACKED: lambda: compute(prepacked),
    }
