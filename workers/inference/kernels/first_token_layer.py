"""The last layer of a packed encoder for the windows' first tokens alone.

A classifier's head reads the state of each window's first token, and so does an embedding pooled
there. What the last layer says of the others nobody reads, though their keys and values count:
queries, what is made of the mixed values, and the inner layers are computed for first tokens only.
What those say is what they say beside all others, but for the order of sums (decision 0022).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional

from workers.inference.kernels import varlen_attention
from workers.inference.kernels.varlen_attention import Packing


class Firsts(nn.Module):
    """A layer that, of packed windows, says the first tokens' states alone."""

    def __init__(self, layer: nn.Module, *, heads: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads = heads

    def forward(self, states: torch.Tensor, *args: Any, **given: Any) -> torch.Tensor:
        """(1, tokens, width) to (1, windows and some idle ones, width); else as the layer does."""
        if "packing" not in given:
            return cast("torch.Tensor", self.layer(states, *args, **given))
        return self._of(states[0], given["packing"])[None]

    def _of(self, row: torch.Tensor, packing: Packing) -> torch.Tensor:
        layer: Any = self.layer
        firsts = row.index_select(0, packing.bounds[:-1])
        firsts = functional.pad(firsts, (0, 0, 0, -len(firsts) % varlen_attention.STEP))
        if hasattr(layer, "sa_layer_norm"):  # DistilBERT
            it = layer.attention
            mixed = self._attended(it.q_lin(firsts), it.k_lin(row), it.v_lin(row), packing=packing)
            states = layer.sa_layer_norm(it.out_lin(mixed) + firsts)
            return cast("torch.Tensor", layer.output_layer_norm(layer.ffn(states) + states))
        it = layer.attention.self
        mixed = self._attended(it.query(firsts), it.key(row), it.value(row), packing=packing)
        states = layer.attention.output(mixed, firsts)
        return cast("torch.Tensor", layer.output(layer.intermediate(states), states))

    def _attended(self, *projected: torch.Tensor, packing: Packing) -> torch.Tensor:
        query, key, value = (each.view(len(each), self.heads, -1) for each in projected)
        return varlen_attention.attended(query, key, value, packing, firsts=True).flatten(1)
