"""An int8 linear layer on CPU whose rows do not depend on each other.

Weights have one scale per output channel, and inputs one per token, by its largest value
(quantization per channel and per token). A sum of integer products is exact in any order, and
everything else is elementwise, so a token's output has the same bits in every batch (promise P6).

AVX2 without VNNI adds two neighbouring products in 16 bits and saturates. So the absolute values of
two neighbouring weights of a channel add up to at most ``MAX_PAIR_SUM``, and no sum saturates on
any processor (decision 0026).
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional

MAX_PAIR_SUM = 128
"""255 times this is less than 2^15, so the sum of two 8-bit products fits into 16 bits."""

ROUNDER = float(2**23)
"""Adding this rounds a value below 2^22 to an integer, which is then in the float's last bits."""

STEPS = 127
"""Integers from zero to the largest value of a token."""

SKEWED_ZERO = 32
"""The zero point where few values are below zero, as after a GELU."""

SKEWED_STEPS = 255 - SKEWED_ZERO

TINY = 1e-20


@dataclass(frozen=True, slots=True)
class Spread:
    """A shift and a scale for each input channel of a layer.

    Some output channels of a layer norm are always far larger than the others, and would take
    almost all integers of the token's scale.
    """

    middle: torch.Tensor  # (in,)
    width: torch.Tensor  # (in,): above zero

    @classmethod
    def of(cls, states: torch.Tensor, weight: torch.Tensor) -> Self:
        """From calibration states (tokens, in): large channels are scaled down, their weights up.

        After SmoothQuant (Xiao and others, 2022), with each channel shifted to its middle. Both are
        rounded to few digits, so that another order of sums in the states makes no difference.
        """
        low, high = states.amin(0), states.amax(0)
        largest = ((high - low) / 2).clamp_min(TINY)
        width = (largest / weight.abs().amax(0).clamp_min(TINY)).sqrt().clamp(1e-4, 1e4)
        width = torch.exp2(torch.round(2 * torch.log2(width)) / 2)
        middle = torch.round((low + high) / 2 / width * 16) / 16 * width
        return cls(middle=middle, width=width)


@dataclass(slots=True)
class _LastRead:
    """The states that were quantized last, the result, and the layers that have read it."""

    states: weakref.ref[torch.Tensor]
    integers: torch.Tensor
    scales: torch.Tensor
    readers: set[int]


class TokenQuantizer:
    """Quantizes states to 8 bits with one scale per token.

    Input channels may have a ``spread``, or be ``skewed``: most integers are above zero. Layers
    that read the same states, as the projections to query, key and value do, share one quantizer,
    which computes once for all of them.
    """

    def __init__(self, width: int, *, spread: Spread | None = None, skewed: bool = False) -> None:
        self.spread = spread
        self.zero = SKEWED_ZERO if skewed else STEPS + 1
        self._steps = SKEWED_STEPS if skewed else STEPS
        self._below = SKEWED_STEPS / SKEWED_ZERO if skewed else 1.0
        self._rounder = torch.full((width,), ROUNDER + self.zero)
        self._last: _LastRead | None = None
        if spread is not None:
            self._inverse = spread.width.reciprocal()
            self._shift = -spread.middle * self._inverse

    def read(self, states: torch.Tensor, *, reader: object) -> tuple[torch.Tensor, torch.Tensor]:
        """States (..., in) as integers (tokens, in) of uint8 and the scale of each (tokens, 1).

        A reader's second call quantizes the states again: they may have been changed in place.
        """
        last = self._last
        if last is None or last.states() is not states or id(reader) in last.readers:
            integers, scales = self._quantized(states.reshape(-1, states.shape[-1]))
            last = self._last = _LastRead(weakref.ref(states), integers, scales, set())
        last.readers.add(id(reader))
        return last.integers, last.scales

    def _quantized(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.spread is not None:
            tokens = torch.addcmul(self._shift, tokens, self._inverse)
        largest = self._largest(tokens)
        # The lowest eight bits of a float that an addition has rounded are the integer.
        rounded = torch.addcmul(self._rounder, tokens, self._steps / largest)
        return rounded.view(torch.int32).to(torch.uint8), largest / self._steps

    def _largest(self, tokens: torch.Tensor) -> torch.Tensor:
        """(tokens, 1): the value of the largest integer; negative values need no larger one."""
        high = tokens.amax(1, keepdim=True)
        low = tokens.amin(1, keepdim=True)
        return torch.maximum(high, low.mul_(-self._below)).clamp_min_(TINY)

    def __getstate__(self) -> dict[str, Any]:
        """A copy of the model starts without the states that were read last."""
        return {**self.__dict__, "_last": None}


class Int8Linear(nn.Module):
    """A linear layer with weights and inputs of 8 bits; only oneDNN can read its ``weight``.

    With ``then_gelu`` an exact GELU follows.
    """

    def __init__(
        self,
        plain: nn.Linear,
        *,
        quantizer: TokenQuantizer | None = None,
        then_gelu: bool = False,
    ) -> None:
        super().__init__()
        weight = plain.weight.detach().float()
        bias = torch.zeros(len(weight)) if plain.bias is None else plain.bias.detach().float()
        self.quantizer = quantizer or TokenQuantizer(plain.in_features)
        self._then_gelu = then_gelu
        spread = self.quantizer.spread
        if spread is not None:
            bias = bias + weight @ spread.middle
            weight = weight * spread.width
        whole, self._scales = quantized(weight)
        self._bias = bias
        self._of_zero = -self.quantizer.zero * self._scales * whole.float().sum(1)
        self._no_zeros = torch.zeros(len(weight), dtype=torch.int64)
        self.weight = _operators().qlinear_prepack(whole, None)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        integers, scales = self.quantizer.read(states, reader=self)
        products = _operators().qlinear_pointwise(
            integers,
            *(1.0, 0, self.weight, self._scales, self._no_zeros, self._of_zero),
            *(1.0, 0, torch.float32, "none", [], ""),
        )
        output = torch.addcmul(self._bias, products, scales, out=products)
        if self._then_gelu:
            torch.ops.aten.gelu_(output)
        return output.view(*states.shape[:-1], -1)


def quantized(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantized weights (out, in) and the scale of each output channel."""
    even = functional.pad(weight.abs(), (0, weight.shape[1] % 2))
    pairs = even.view(len(weight), -1, 2).sum(2).amax(1)
    scales = (torch.maximum(pairs / MAX_PAIR_SUM, weight.abs().amax(1) / STEPS)).clamp_min(TINY)
    return torch.round(weight / scales[:, None]).to(torch.int8), scales


def _operators() -> Any:
    return torch.ops.onednn
