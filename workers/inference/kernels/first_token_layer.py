"""The last layer of a packed encoder, computed for the first token of each window only.

A classification head reads the state of each window's first token, and so does CLS pooling. The
last layer's output for the other tokens is never read, though their keys and values count. So the
queries, the attention output and the feed-forward part are computed for first tokens only. Their
states are those of the full layer, but for the order of sums (decision 0022).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional

from workers.inference.kernels import varlen_attention
from workers.inference.kernels.varlen_attention import Packing


class FirstTokenLayer(nn.Module):
    """A layer that, for packed windows, returns the states of first tokens only."""

    def __init__(self, layer: nn.Module, *, heads: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads = heads

    def forward(self, states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """(1, tokens, width) to (1, windows and some idle tokens, width).

        Without a ``packing`` the layer computes as usual.
        """
        if "packing" not in kwargs:
            return cast("torch.Tensor", self.layer(states, *args, **kwargs))
        return self._first_states(states[0], kwargs["packing"])[None]

    def _first_states(self, row: torch.Tensor, packing: Packing) -> torch.Tensor:
        layer: Any = self.layer
        first = row.index_select(0, packing.cu_seqlens[:-1])
        first = functional.pad(first, (0, 0, 0, -len(first) % varlen_attention.ROW_MULTIPLE))
        if hasattr(layer, "sa_layer_norm"):  # DistilBERT
            own = layer.attention
            mixed = self._attention(own.q_lin(first), own.k_lin(row), own.v_lin(row), packing)
            states = layer.sa_layer_norm(own.out_lin(mixed) + first)
            return cast("torch.Tensor", layer.output_layer_norm(layer.ffn(states) + states))
        own = layer.attention.self
        mixed = self._attention(own.query(first), own.key(row), own.value(row), packing)
        states = layer.attention.output(mixed, first)
        return cast("torch.Tensor", layer.output(layer.intermediate(states), states))

    def _attention(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packing: Packing
    ) -> torch.Tensor:
        query, key, value = (each.view(len(each), self.heads, -1) for each in (query, key, value))
        return varlen_attention.attention(
            query, key, value, packing, first_tokens_only=True
        ).flatten(1)
