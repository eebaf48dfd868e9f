"""Layers prepacked for oneDNN against the plain ones that they replace."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    PreTrainedConfig,
)

from jobs.settings import Settings
from tests.support.tiny_models import tiny_classifier, tiny_encoder
from tests.workers.inference.builders import loaded
from tests.workers.inference.kernels.test_unpadding import CONFIGS, LENGTHS, padded_inputs
from workers.inference.kernels import linear_layouts, onednn_linear, optimization
from workers.inference.kernels.first_token_layer import FirstTokenLayer
from workers.inference.kernels.linear_layouts import InPlaceGELU, LinearLayout
from workers.inference.kernels.onednn_linear import PrepackedLinear
from workers.inference.kernels.varlen_attention import Packing

LABELS = ("sport", "film")
WIDE = BertConfig(
    hidden_size=256, intermediate_size=512, num_hidden_layers=1, num_attention_heads=4, vocab_size=9
)
"""A model with enough weights for a race of layouts."""


def made(config: PreTrainedConfig, *, auto: Any = AutoModel) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return auto.from_config(copy.deepcopy(config)).eval()


def chosen(layout: LinearLayout) -> Any:
    """Within, this layout is used without a race."""
    return patch.object(linear_layouts, "choice", return_value=layout)


def layers(model: nn.Module, kind: type[nn.Module]) -> int:
    return sum(type(module) is kind for module in model.modules())


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_prepacked_layers_compute_what_plain_ones_compute(name: str, activation: str) -> None:
    config = copy.deepcopy(CONFIGS[name])
    config.update({"activation" if name == "distilbert" else "hidden_act": activation})
    model, inputs = made(config), padded_inputs(LENGTHS)
    linear = layers(model, nn.Linear)
    with torch.inference_mode():
        plain = model(**inputs).last_hidden_state
        assert onednn_linear.supports(model)
        onednn_linear.install(model)
        prepacked = model(**inputs).last_hidden_state
    assert layers(model, nn.Linear) + layers(model, PrepackedLinear) == linear
    assert layers(model, PrepackedLinear) >= 6 * config.num_hidden_layers
    fused = sum(
        each.activation == "gelu" for each in model.modules() if isinstance(each, PrepackedLinear)
    )
    assert fused == (config.num_hidden_layers if activation == "gelu" else 0)
    inside = inputs["attention_mask"].bool()
    torch.testing.assert_close(prepacked[inside], plain[inside], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("layout", LinearLayout)
def test_an_optimized_classifier_computes_what_the_plain_one_computes(
    name: str, layout: LinearLayout
) -> None:
    auto, inputs = AutoModelForSequenceClassification, padded_inputs(LENGTHS)
    model = made(CONFIGS[name], auto=auto)
    packing = Packing.of(LENGTHS)
    with torch.inference_mode():
        plain = model(**inputs).logits
        with chosen(layout):
            optimization.optimize(model, first_tokens_only=True, settings=Settings())
        optimized = model(**inputs, packing=packing).logits
    assert layers(model, FirstTokenLayer) == 1
    assert (layers(model, PrepackedLinear) > 0) is (layout is LinearLayout.PREPACKED)
    assert (layers(model, InPlaceGELU) > 0) is (layout is LinearLayout.PLAIN)
    torch.testing.assert_close(optimized, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_keep_plain_layers(dtype: torch.dtype) -> None:
    model = made(WIDE).to(dtype)
    optimization.optimize(model, first_tokens_only=False, settings=Settings())
    assert layers(model, PrepackedLinear) == 0


@pytest.mark.parametrize("labels", [None, LABELS])
def test_a_model_that_needs_gradients_keeps_its_layers(
    tmp_path: Path, labels: tuple[str, ...] | None
) -> None:
    make = tiny_classifier if labels is None else tiny_encoder
    folder = make(tmp_path / "model")
    with chosen(LinearLayout.PREPACKED):
        explained: Any = loaded(folder, labels=labels, explain={"every": 1})._runner.head
        plain: Any = loaded(folder, labels=labels)._runner.head
    assert layers(explained.model, PrepackedLinear) == 0
    assert layers(plain.model, PrepackedLinear) > 0
