"""A linear layer in integers of 8 bits whose rows do not depend on each other, on CPU.

Weights have a scale for each output channel, and what goes in one for each token: its largest
number. A sum of products of integers is exact in whatever order, and everything else is done number
by number, so a token's result is the same bits in every batch (promise P6).

AVX2 without VNNI adds two neighbouring products in 16 bits and cuts off what is larger. So no
two neighbours among a channel's weights are larger together than ``PAIR``, and nothing is cut off
on any processor (decision 0026).
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional

PAIR = 128
"""255 times this is less than 2^15: the largest sum of two products of 8 bits that 16 bits hold."""

ROUNDER = float(2**23)
"""A number below 2^22 that this is added to is rounded to an integer, in the float's last bits."""

STEPS = 127
"""From zero to the largest number of a token."""

SKEWED_ZERO = 32
"""The integer for zero where there is much less below it than above, as behind a GELU."""

SKEWED_STEPS = 255 - SKEWED_ZERO

TINY = 1e-20


@dataclass(frozen=True, slots=True)
class Spread:
    """How the numbers that go into a layer are moved and scaled, channel by channel.

    Some channels of a layer norm are far larger than others, always: they would take the steps of
    all.
    """

    middle: torch.Tensor  # (in,)
    width: torch.Tensor  # (in,): above zero

    @classmethod
    def of(cls, states: torch.Tensor, weight: torch.Tensor) -> Self:
        """For states (tokens, in): what is large in them is shared out evenly with the weights.

        After SmoothQuant (Xiao and others, 2022), with the middle of each channel made zero. All is
        rounded to few digits, so that another order of sums in the states makes nothing else.
        """
        low, high = states.amin(0), states.amax(0)
        largest = ((high - low) / 2).clamp_min(TINY)
        width = (largest / weight.abs().amax(0).clamp_min(TINY)).sqrt().clamp(1e-4, 1e4)
        width = torch.exp2(torch.round(2 * torch.log2(width)) / 2)
        middle = torch.round((low + high) / 2 / width * 16) / 16 * width
        return cls(middle=middle, width=width)


@dataclass(slots=True)
class _LastRead:
    """The states that were quantized last, what they became, and which layers have it."""

    states: weakref.ref[torch.Tensor]
    integers: torch.Tensor
    scales: torch.Tensor
    readers: set[int]


class TokenQuantizer:
    """Rounds states to 8 bits with one scale per token.

    Input channels may have a ``spread``, or be ``skewed``: most steps are above zero. Layers that
    read the same states, as the projections to query, key and value do, share one quantizer, which
    computes once for all of them.
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

        A reader that asks twice gets the states quantized again: they may have been changed in
        place since.
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
        # The lowest eight bits of a float that was rounded by an addition are the integer.
        rounded = torch.addcmul(self._rounder, tokens, self._steps / largest)
        return rounded.view(torch.int32).to(torch.uint8), largest / self._steps

    def _largest(self, tokens: torch.Tensor) -> torch.Tensor:
        """(tokens, 1): the value of the last step above zero; no value below is further away."""
        high = tokens.amax(1, keepdim=True)
        low = tokens.amin(1, keepdim=True)
        return torch.maximum(high, low.mul_(-self._below)).clamp_min_(TINY)

    def __getstate__(self) -> dict[str, Any]:
        """What was read last is not copied with the model."""
        return {**self.__dict__, "_last": None}


class Int8Linear(nn.Module):
    """A linear layer with weights and inputs of 8 bits. ``weight`` is opaque to all but oneDNN.

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
    """Integers (out, in) and the scale of each output channel."""
    even = functional.pad(weight.abs(), (0, weight.shape[1] % 2))
    pairs = even.view(len(weight), -1, 2).sum(2).amax(1)
    scales = (torch.maximum(pairs / PAIR, weight.abs().amax(1) / STEPS)).clamp_min(TINY)
    return torch.round(weight / scales[:, None]).to(torch.int8), scales


def _operators() -> Any:
    return torch.ops.onednn
