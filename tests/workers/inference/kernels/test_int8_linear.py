"""A layer of 8 bits: exact in integers, near the plain one, and row by row the same bits."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from workers.inference.kernels.int8_linear import (
    MAX_PAIR_SUM,
    Int8Linear,
    Spread,
    TokenQuantizer,
    quantized,
)

SIZES = [(384, 384), (384, 70), (33, 20), (1, 3), (130, 1)]


def layer(columns: int, rows: int, *, bias: bool = True) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(columns + rows)
        return nn.Linear(columns, rows, bias=bias)


def some_states(tokens: int, columns: int, *, seed: int = 0) -> torch.Tensor:
    """Channels of very different size, some of them always far from zero."""
    random = torch.Generator().manual_seed(seed)
    sizes = torch.rand(columns, generator=random) * 5
    middles = torch.randn(columns, generator=random) * 3
    return torch.randn(tokens, columns, generator=random) * sizes + middles


def spread_layer(plain: nn.Linear, states: torch.Tensor) -> Int8Linear:
    spread = Spread.of(states, plain.weight)
    return Int8Linear(plain, quantizer=TokenQuantizer(plain.in_features, spread=spread))


def skewed_layer(plain: nn.Linear, skewed: bool = True) -> Int8Linear:  # noqa: FBT001, FBT002
    return Int8Linear(plain, quantizer=TokenQuantizer(plain.in_features, skewed=skewed))


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Relative, of all numbers together."""
    return float((found - exact).norm() / exact.norm())


@torch.inference_mode()
@pytest.mark.parametrize(("columns", "rows"), SIZES)
@pytest.mark.parametrize("bias", [True, False])
def test_what_comes_out_is_near_the_plain_layer(columns: int, rows: int, bias: bool) -> None:  # noqa: FBT001
    plain, states = layer(columns, rows, bias=bias), some_states(50, columns)
    for made in (Int8Linear(plain), spread_layer(plain, states)):
        assert error(made(states), plain(states)) < 0.03


@torch.inference_mode()
def test_a_spread_brings_uneven_channels_nearer() -> None:
    plain, states = layer(384, 384), some_states(200, 384)
    states[:, 7] += 60
    even = spread_layer(plain, states)
    assert error(even(states), plain(states)) < error(Int8Linear(plain)(states), plain(states)) / 3


@torch.inference_mode()
@pytest.mark.parametrize("size", [1.0, 30.0])
def test_what_is_behind_a_gelu_is_nearer_with_most_steps_above_zero(size: float) -> None:
    plain, states = layer(256, 64), nn.functional.gelu(some_states(80, 256) * size)
    skewed, even = (skewed_layer(plain, each)(states) for each in (True, False))
    assert error(skewed, plain(states)) < error(even, plain(states)) < 0.03


@torch.inference_mode()
@pytest.mark.parametrize("sign", [1, -1])
def test_most_steps_above_zero_are_no_error_where_numbers_are_below(sign: int) -> None:
    plain, states = layer(256, 64, bias=False), sign * some_states(80, 256).abs()
    assert error(skewed_layer(plain)(states), plain(states)) < 0.15


@torch.inference_mode()
def test_a_gelu_may_follow() -> None:
    plain, states = layer(256, 64), some_states(80, 256)
    found = Int8Linear(plain, then_gelu=True)(states)
    torch.testing.assert_close(found, nn.functional.gelu(Int8Linear(plain)(states)))


@torch.inference_mode()
@pytest.mark.parametrize(("columns", "rows"), SIZES)
@pytest.mark.parametrize("skewed", [True, False])
def test_a_row_has_the_same_bits_in_every_batch(
    columns: int,
    rows: int,
    skewed: bool,  # noqa: FBT001
) -> None:
    plain, states = layer(columns, rows), some_states(67, columns)
    states = nn.functional.gelu(states) if skewed else states
    made = skewed_layer(plain, skewed)
    together = made(states)
    for begin, end in ((0, 1), (5, 6), (3, 40), (60, 67)):
        assert torch.equal(made(states[begin:end]), together[begin:end])
    others = states.clone()
    others[1:] *= 1000
    assert torch.equal(made(others)[0], together[0])


@torch.inference_mode()
@pytest.mark.parametrize("columns", [64, 384, 1536])
def test_the_largest_numbers_there_are_overflow_nothing(columns: int) -> None:
    """Weights at the bound, both of a pair of one sign, and numbers that are all the largest."""
    plain = nn.Linear(columns, 32, bias=False)
    plain.weight.copy_(torch.where(torch.arange(32)[:, None] % 2 == 0, 1.0, -1.0))
    states = torch.full((40, columns), 3.0)
    torch.testing.assert_close(Int8Linear(plain)(states), plain(states), rtol=1e-6, atol=0)
    behind = skewed_layer(plain)
    torch.testing.assert_close(behind(states), plain(states), rtol=1e-6, atol=0)


@settings(max_examples=50)
@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 1000))
def test_no_two_neighbours_are_larger_together_than_16_bits_hold(
    rows: int, columns: int, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=random) ** 5
    whole, scales = quantized(weight)
    even = nn.functional.pad(whole.int().abs(), (0, columns % 2))
    assert int(even.view(rows, -1, 2).sum(2).max()) <= MAX_PAIR_SUM
    assert float((whole * scales[:, None] - weight).abs().sub(scales[:, None] / 2).max()) < 1e-4


@torch.inference_mode()
def test_zeros_stay_zeros_and_what_is_not_finite_is_not_hidden() -> None:
    plain = layer(64, 8)
    for made in (Int8Linear(plain), skewed_layer(plain)):
        states = torch.zeros(4, 64)
        states[1, 3], states[2, 3] = float("nan"), float("inf")
        found = made(states)
        assert torch.equal(found[0], plain.bias)
        assert torch.equal(found[3], plain.bias)
        assert not found[1].isfinite().any()
        assert not found[2].isfinite().any()


def test_a_weight_of_zeros_is_no_error() -> None:
    plain = nn.Linear(16, 4)
    nn.init.zeros_(plain.weight)
    with torch.inference_mode():
        found = Int8Linear(plain)(torch.ones(2, 3, 16))
        torch.testing.assert_close(found, plain.bias.expand(2, 3, 4))


@torch.inference_mode()
def test_layers_that_share_a_quantizer_output_what_each_does_alone() -> None:
    states, other = some_states(30, 64), some_states(7, 64, seed=1)
    spread = Spread.of(states, layer(64, 64).weight)
    quantizer = TokenQuantizer(64, spread=spread)
    plains = [layer(64, rows) for rows in (64, 24, 8)]
    shared = [Int8Linear(plain, quantizer=quantizer) for plain in plains]
    alone = [Int8Linear(plain, quantizer=TokenQuantizer(64, spread=spread)) for plain in plains]
    for each in (states, other, states):
        for one, another in zip(shared, alone, strict=True):
            assert torch.equal(one(each), another(each))
    assert torch.equal(shared[0](other), alone[0](other))
    assert torch.equal(shared[1](states), alone[1](states))


@torch.inference_mode()
def test_states_that_were_changed_in_place_are_quantized_again() -> None:
    quantizer = TokenQuantizer(64)
    first, second = (Int8Linear(layer(64, rows), quantizer=quantizer) for rows in (64, 24))
    states = some_states(30, 64)
    first(states), second(states)
    states *= 2
    alone = Int8Linear(layer(64, 64))
    assert torch.equal(first(states), alone(states))


@torch.inference_mode()
def test_quantized_states_are_not_copied_with_a_layer() -> None:
    made = Int8Linear(layer(64, 8))
    states = some_states(5, 64)
    output = made(states)
    assert copy.deepcopy(made.quantizer)._last is None
    assert torch.equal(made(states), output)
