"""How the linear layers of an encoder lie in memory: as they came, or laid out for oneDNN.

Which is faster depends on the processor and its threads, and nobody knows the next processor. So
the two race when a model is loaded, on the layers of its first block and made-up states, and the
verdict is remembered for all models of that shape (decision 0025). Answers do not depend on it
beyond the order of sums (promise P6).
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
from workers.inference.kernels.onednn_linear import Laid

log = structlog.get_logger()

VERDICT = "layout"

TOKENS = 2_048
"""Tokens of a raced batch, as in a real one: small batches favour a layout that is made once."""

SMALL = 2**18
"""Of a block with fewer weights nobody would notice how they lie: it keeps them as they came."""

SECONDS = 10.0
"""A race takes no longer, but for the lap that it is in."""


class Layout(StrEnum):
    """Ways for linear layers to lie in memory, and what computes them."""

    PLAIN = "plain"  # as the checkpoint has them: MKL, which lays them out anew in every call
    LAID_OUT = "laid_out"  # once, for oneDNN, which computes an exact GELU on the way


class InPlaceGELU(nn.Module):
    """An exact GELU that overwrites what it is given; for inference."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(...) to the same tensor."""
        found: torch.Tensor = torch.ops.aten.gelu_(states)
        return found


def install(model: PreTrainedModel, *, settings: Settings) -> None:
    """Give an encoder that will not be asked for gradients the layout that is fastest here."""
    if choice(model, settings=settings) is Layout.LAID_OUT:
        onednn_linear.install(model)
    else:
        for module, _, activation in onednn_linear.activated(model):
            setattr(module, activation, InPlaceGELU())


def choice(model: PreTrainedModel, *, settings: Settings) -> Layout:
    """The fastest layout: the only one, the one that is remembered, or the winner of a race."""
    layers = onednn_linear.block(model)
    shapes = [[*layer.weight.shape] for layer in layers]
    if not onednn_linear.fits(model) or sum(rows * columns for rows, columns in shapes) < SMALL:
        return Layout.PLAIN
    raced = f"linear, {TOKENS} tokens"
    cache = TuningCache.of(settings, model=model, digest=None, kind=raced, shapes=shapes)
    known = cache.get(VERDICT, Layout)
    if known is not None:
        return known
    speeds = race.run(_ways(model, layers), seconds=SECONDS)
    found = race.winner(speeds, default=Layout.PLAIN)
    shown = {layout.value: speed for layout, speed in speeds.items()}
    log.info("linear layers raced", layout=found.value, relative_speeds=shown, shapes=shapes)
    if speeds:
        cache.keep(VERDICT, found)
    return found


def _ways(
    model: PreTrainedModel, layers: Sequence[nn.Linear]
) -> dict[Layout, Callable[[], object]]:
    """Every linear layer of a block once, with the activation where it has one of its own."""
    before_gelu = {getattr(module, layer) for module, layer, _ in onednn_linear.activated(model)}
    random = torch.Generator().manual_seed(0)
    states = {
        width: torch.randn(TOKENS, width, generator=random)
        for width in {layer.in_features for layer in layers}
    }
    gelu = InPlaceGELU()
    plain = [nn.Sequential(each, gelu) if each in before_gelu else each for each in layers]
    laid = [Laid(each, then="gelu" if each in before_gelu else "none") for each in layers]

    @torch.inference_mode()
    def all_of(modules: Sequence[nn.Module]) -> None:
        for module, layer in zip(modules, layers, strict=True):
            module(states[layer.in_features])

    return {Layout.PLAIN: lambda: all_of(plain), Layout.LAID_OUT: lambda: all_of(laid)}
