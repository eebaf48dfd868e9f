"""Padding-free layers against the same layers over padded batches."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    CamembertConfig,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    PreTrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from workers.inference.kernels import unpadding
from workers.inference.kernels.varlen_attention import Packing

PAD = 1
LENGTHS = (198, 198, 9, 9, 7, 4, 4, 4, 1)
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    found.model_type: found
    for found in (
        config(vocab_size=50, initializer_range=0.3, pad_token_id=PAD, **sizes)
        for config, sizes in (
            (BertConfig, SIZES),
            (ElectraConfig, {**SIZES, "embedding_size": 16}),
            (DistilBertConfig, {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4}),
            (RobertaConfig, SIZES),
            (CamembertConfig, SIZES),
            (XLMRobertaConfig, SIZES),
        )
    )
}


def test_every_architecture_that_packs_is_tried_here() -> None:
    assert set(CONFIGS) == unpadding.POSITIONS_FROM_ZERO | unpadding.POSITIONS_AFTER_PADDING_ID


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("auto", [AutoModel, AutoModelForSequenceClassification])
def test_packed_layers_compute_what_padded_ones_compute(name: str, auto: Any) -> None:
    inputs = padded_inputs(LENGTHS)
    padded, packed = both(CONFIGS[name], auto, inputs)
    for key in set(padded) & set(packed):
        actual, expected = packed[key], padded[key]
        if key == "last_hidden_state":
            inside = inputs["attention_mask"].bool()
            actual, expected = actual[inside], expected[inside]
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("auto", [AutoModel, AutoModelForSequenceClassification])
def test_first_tokens_alone_have_the_states_that_they_have_among_others(
    name: str, auto: Any
) -> None:
    inputs = padded_inputs(LENGTHS)
    padded, packed = both(CONFIGS[name], auto, inputs, first_tokens_only=True)
    if auto is AutoModel:
        assert packed["last_hidden_state"].shape[:2] == (len(LENGTHS), 1)
        padded["last_hidden_state"] = padded["last_hidden_state"][:, :1]
    assert set(packed) == set(padded)
    for key, expected in padded.items():
        torch.testing.assert_close(packed[key], expected, rtol=0, atol=1e-9)


def test_single_precision_moves_the_last_bits_only() -> None:
    inputs = padded_inputs(LENGTHS)
    model = AutoModelForSequenceClassification
    padded, packed = both(CONFIGS["bert"], model, inputs, dtype=torch.float32)
    torch.testing.assert_close(packed["logits"], padded["logits"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_padding_token_inside_a_text_is_a_token_like_others(name: str) -> None:
    inputs = padded_inputs(LENGTHS)
    inputs["input_ids"][0, 3] = PAD
    padded, packed = both(CONFIGS[name], AutoModelForSequenceClassification, inputs)
    torch.testing.assert_close(packed["logits"], padded["logits"], rtol=0, atol=1e-9)


def test_neighbours_in_a_batch_do_not_see_each_other() -> None:
    inputs = padded_inputs(LENGTHS)
    _, packed = both(CONFIGS["bert"], AutoModelForSequenceClassification, inputs)
    others = {**inputs, "input_ids": inputs["input_ids"].clone()}
    others["input_ids"][1:] = 7
    _, again = both(CONFIGS["bert"], AutoModelForSequenceClassification, others)
    assert torch.equal(packed["logits"][0], again["logits"][0])
    assert not torch.equal(packed["logits"][1], again["logits"][1])


@pytest.mark.parametrize("config", [GPT2Config(), BertConfig(is_decoder=True)])
def test_a_model_whose_tokens_look_back_only_is_left_as_it_is(config: PreTrainedConfig) -> None:
    config.update({"num_hidden_layers": 1, "vocab_size": 50})
    auto: Any = AutoModel
    model = auto.from_config(config)
    assert not unpadding.supports(model)
    assert not unpadding.installed(model)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_indices_are_those_of_the_mask(lengths: list[int]) -> None:
    mask = padded_inputs(lengths)["attention_mask"]
    assert Packing.of(lengths).indices.tolist() == mask.flatten().nonzero().flatten().tolist()


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_runs_are_the_windows_in_order_and_no_two_neighbours_alike(lengths: list[int]) -> None:
    packed = Packing.of(lengths)
    runs = list(packed.runs())
    assert [length for _, count, length in runs for _ in range(count)] == lengths
    assert all(one[2] != other[2] for one, other in itertools.pairwise(runs))
    cu_seqlens = packed.cu_seqlens.tolist()
    windows = itertools.accumulate((count for _, count, _ in runs), initial=0)
    assert [start for start, _, _ in runs] == [cu_seqlens[first] for first in windows][:-1]


def padded_inputs(lengths: tuple[int, ...] | list[int]) -> dict[str, torch.Tensor]:
    """Random ids above the padding id, right-padded, with their mask."""
    chance = torch.Generator().manual_seed(0)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    ids = torch.randint(PAD + 1, 50, mask.shape, generator=chance)
    return {"input_ids": ids.where(mask, torch.tensor(PAD)), "attention_mask": mask.long()}


def both(
    config: PreTrainedConfig,
    auto: Any,
    inputs: dict[str, torch.Tensor],
    *,
    dtype: torch.dtype = torch.float64,
    first_tokens_only: bool = False,
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Outputs of the same random model, padded and then packed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = auto.from_config(copy.deepcopy(config)).to(dtype).eval()
    lengths = inputs["attention_mask"].sum(dim=1).tolist()
    with torch.inference_mode():
        padded = dict(model(**inputs).items())
        assert unpadding.supports(model)
        unpadding.install(model, first_tokens_only=first_tokens_only)
        return padded, dict(model(**inputs, packing=Packing.of(lengths)).items())
