"""A linear layer in integers of 8 bits whose rows do not depend on each other, on CPU.

Weights have a scale for each output channel, and what goes in one for each token: its largest
number. A sum of products of integers is exact in whatever order, and everything else is done number
by number, so a token's result is the same bits in every batch (promise P6).

AVX2 without VNNI adds two neighbouring products in 16 bits and cuts off what is larger. So no
two neighbours among a channel's weights are larger together than ``PAIR``, and nothing is cut off
on any processor (decision 0026).
"""

from __future__ import annotations

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


class Int8Linear(nn.Module):
    """A linear layer of 8 bits. ``weight`` is opaque to all but oneDNN.

    Channels that go in may have a ``spread``, or be ``skewed``: most steps are above zero. In
    ``then_gelu`` an exact GELU follows.
    """

    def __init__(
        self,
        plain: nn.Linear,
        *,
        spread: Spread | None = None,
        skewed: bool = False,
        then_gelu: bool = False,
    ) -> None:
        super().__init__()
        weight = plain.weight.detach().float()
        bias = torch.zeros(len(weight)) if plain.bias is None else plain.bias.detach().float()
        self.spread = spread
        self._skewed = skewed
        self._then_gelu = then_gelu
        if spread is not None:
            bias = bias + weight @ spread.middle
            weight = weight * spread.width
            self._inverse = spread.width.reciprocal()
            self._shift = -spread.middle * self._inverse
        whole, self._scales = quantized(weight)
        zero = SKEWED_ZERO if skewed else STEPS + 1
        self._bias = bias
        self._of_zero = -zero * self._scales * whole.float().sum(1)
        self._rounder = torch.full((plain.in_features,), ROUNDER + zero)
        self._no_zeros = torch.zeros(len(weight), dtype=torch.int64)
        self.weight = _operators().qlinear_prepack(whole, None)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        tokens = states.reshape(-1, states.shape[-1])
        if self.spread is not None:
            tokens = torch.addcmul(self._shift, tokens, self._inverse)
        steps = SKEWED_STEPS if self._skewed else STEPS
        largest = self._largest(tokens)
        # The lowest eight bits of a float that was rounded by an addition are the integer.
        rounded = torch.addcmul(self._rounder, tokens, steps / largest)
        products = _operators().qlinear_pointwise(
            rounded.view(torch.int32).to(torch.uint8),
            *(1.0, 0, self.weight, self._scales, self._no_zeros, self._of_zero),
            *(1.0, 0, torch.float32, "none", [], ""),
        )
        found = torch.addcmul(self._bias, products, largest / steps, out=products)
        if self._then_gelu:
            torch.ops.aten.gelu_(found)
        return found.view(*states.shape[:-1], -1)

    def _largest(self, tokens: torch.Tensor) -> torch.Tensor:
        """(tokens, 1): what the last step above zero stands for; below it nothing is further."""
        high = tokens.amax(1, keepdim=True)
        low = tokens.amin(1, keepdim=True)
        below = SKEWED_STEPS / SKEWED_ZERO if self._skewed else 1.0
        return torch.maximum(high, low.mul_(-below)).clamp_min_(TINY)


def quantized(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Integers (out, in) and the scale of each output channel."""
    even = functional.pad(weight.abs(), (0, weight.shape[1] % 2))
    pairs = even.view(len(weight), -1, 2).sum(2).amax(1)
    scales = (torch.maximum(pairs / PAIR, weight.abs().amax(1) / STEPS)).clamp_min(TINY)
    return torch.round(weight / scales[:, None]).to(torch.int8), scales


def _operators() -> Any:
    return torch.ops.onednn
