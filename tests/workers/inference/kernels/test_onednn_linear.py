"""Layers laid out for oneDNN against the plain ones that they replace."""

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
from tests.workers.inference.building import loaded
from tests.workers.inference.kernels.test_unpadding import CONFIGS, LENGTHS, filled_up
from workers.inference.kernels import linear_layouts, onednn_linear, optimization
from workers.inference.kernels.first_token_layer import Firsts
from workers.inference.kernels.linear_layouts import InPlaceGELU, Layout
from workers.inference.kernels.onednn_linear import Laid
from workers.inference.kernels.varlen_attention import Packing

LABELS = ("sport", "film")
WIDE = BertConfig(
    hidden_size=256, intermediate_size=512, num_hidden_layers=1, num_attention_heads=4, vocab_size=9
)
"""Large enough for its layouts to race."""


def made(config: PreTrainedConfig, *, auto: Any = AutoModel) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return auto.from_config(copy.deepcopy(config)).eval()


def chosen(layout: Layout) -> Any:
    """Within, no layouts race: it is this one."""
    return patch.object(linear_layouts, "choice", return_value=layout)


def layers(model: nn.Module, kind: type[nn.Module]) -> int:
    return sum(type(module) is kind for module in model.modules())


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_laid_layers_say_what_plain_ones_say(name: str, activation: str) -> None:
    config = copy.deepcopy(CONFIGS[name])
    config.update({"activation" if name == "distilbert" else "hidden_act": activation})
    model, inputs = made(config), filled_up(LENGTHS)
    linear = layers(model, nn.Linear)
    with torch.inference_mode():
        plain = model(**inputs).last_hidden_state
        assert onednn_linear.fits(model)
        onednn_linear.install(model)
        laid = model(**inputs).last_hidden_state
    assert layers(model, nn.Linear) + layers(model, Laid) == linear
    assert layers(model, Laid) >= 6 * config.num_hidden_layers
    fused = sum(each.then == "gelu" for each in model.modules() if isinstance(each, Laid))
    assert fused == (config.num_hidden_layers if activation == "gelu" else 0)
    inside = inputs["attention_mask"].bool()
    torch.testing.assert_close(laid[inside], plain[inside], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("layout", Layout)
def test_a_tuned_classifier_says_what_the_plain_one_says(name: str, layout: Layout) -> None:
    auto, inputs = AutoModelForSequenceClassification, filled_up(LENGTHS)
    model = made(CONFIGS[name], auto=auto)
    packing = Packing.of(LENGTHS)
    with torch.inference_mode():
        plain = model(**inputs).logits
        with chosen(layout):
            optimization.tune(model, firsts=True, settings=Settings())
        tuned = model(**inputs, packing=packing).logits
    assert layers(model, Firsts) == 1
    assert (layers(model, Laid) > 0) is (layout is Layout.LAID_OUT)
    assert (layers(model, InPlaceGELU) > 0) is (layout is Layout.PLAIN)
    torch.testing.assert_close(tuned, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_numbers_are_left_to_plain_layers(dtype: torch.dtype) -> None:
    model = made(WIDE).to(dtype)
    optimization.tune(model, firsts=False, settings=Settings())
    assert layers(model, Laid) == 0


@pytest.mark.parametrize("labels", [None, LABELS])
def test_a_model_that_is_asked_for_gradients_keeps_its_layers(
    tmp_path: Path, labels: tuple[str, ...] | None
) -> None:
    make = tiny_classifier if labels is None else tiny_encoder
    folder = make(tmp_path / "model")
    with chosen(Layout.LAID_OUT):
        explained: Any = loaded(folder, labels=labels, explain={"every": 1})._meter.family
        plain: Any = loaded(folder, labels=labels)._meter.family
    assert layers(explained.model, Laid) == 0
    assert layers(plain.model, Laid) > 0
