"""A model that lacks tensors is refused where its outputs depend on them, and only there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
)

from jobs.errors import ModelFailure
from tests.workers.training import heads
from workers.inference import model_loader

CLASSIFIER: Any = AutoModelForSequenceClassification
ENCODER: Any = AutoModel
IMAGES: Any = AutoModelForImageClassification


def saved(folder: Path, build: str, configure: str, **shape: Any) -> Path:
    """A random model of the class."""
    config = getattr(transformers, configure)(**shape)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        getattr(transformers, build)(config).save_pretrained(folder)
    return folder


def without(folder: Path, *prefixes: str) -> Path:
    """The folder, without the tensors whose names have one of these prefixes."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    kept = {name: each for name, each in weights.items() if not name.startswith(prefixes)}
    assert len(kept) < len(weights)
    save_file(kept, path, metadata={"format": "pt"})
    return folder


def loaded(folder: Path, auto: Any) -> Any:
    return model_loader.module(folder, auto=auto, dtype=torch.float32, device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("build", "configure", "shape", "lost"),
    [
        ("DebertaV2ForSequenceClassification", "DebertaV2Config", heads.SMALL, "pooler.dense"),
        ("BertForSequenceClassification", "BertConfig", heads.SMALL, "bert.pooler.dense"),
        (
            "RobertaForSequenceClassification",
            "RobertaConfig",
            heads.SMALL | heads.ENDS,
            "classifier.dense",
        ),
        ("XLNetForSequenceClassification", "XLNetConfig", heads.XLNET, "sequence_summary"),
        ("BartForSequenceClassification", "BartConfig", heads.BART, "classification_head.dense"),
    ],
)
def test_a_classifier_without_a_tensor_that_its_labels_depend_on_is_refused(
    build: str, configure: str, shape: dict[str, Any], lost: str, tmp_path: Path
) -> None:
    folder = without(saved(tmp_path, build, configure, num_labels=3, **shape), lost)
    with pytest.raises(ModelFailure, match=lost) as raised:
        loaded(folder, CLASSIFIER)
    assert raised.value.code == "model_unreadable"


@pytest.mark.parametrize(
    ("build", "configure", "shape"),
    [
        ("BertModel", "BertConfig", heads.SMALL),
        ("RobertaModel", "RobertaConfig", heads.SMALL | heads.ENDS),
        ("AlbertModel", "AlbertConfig", heads.SMALL | {"embedding_size": 16}),
    ],
)
def test_an_encoder_without_a_pooler_that_nothing_reads_is_loaded(
    build: str, configure: str, shape: dict[str, Any], tmp_path: Path
) -> None:
    folder = without(saved(tmp_path, build, configure, **shape), "pooler")
    assert type(loaded(folder, ENCODER)).__name__ == build


def test_an_encoder_without_a_layer_is_refused(tmp_path: Path) -> None:
    folder = without(saved(tmp_path, "BertModel", "BertConfig", **heads.SMALL), "encoder.layer.0.")
    with pytest.raises(ModelFailure, match=r"encoder\.layer\.0"):
        loaded(folder, ENCODER)


def test_an_expert_that_no_token_of_the_small_pass_chose_counts_as_needed(tmp_path: Path) -> None:
    shape = {
        "vocab_size": 44,
        "d_model": 16,
        "d_ff": 32,
        "d_kv": 8,
        "num_layers": 1,
        "num_sparse_encoder_layers": 1,
        "num_decoder_layers": 1,
        "num_sparse_decoder_layers": 1,
        "num_heads": 2,
        "num_experts": 64,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 1,
    }
    build, configure = "SwitchTransformersForConditionalGeneration", "SwitchTransformersConfig"
    folder = saved(tmp_path, build, configure, **shape)
    lost = "encoder.block.0.layer.1.mlp.experts"
    names = [name for name in load_file(folder / "model.safetensors") if name.startswith(lost)]
    folder = without(folder, names[-1])
    seq2seq: Any = transformers.AutoModelForSeq2SeqLM
    with pytest.raises(ModelFailure, match="lacks 1 of"):
        loaded(folder, seq2seq)


def test_a_model_of_images_without_its_pooler_is_judged_by_an_image(tmp_path: Path) -> None:
    shape = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
    }
    folder = without(saved(tmp_path, "ViTModel", "ViTConfig", **shape), "pooler")
    assert type(loaded(folder, ENCODER)).__name__ == "ViTModel"
    folder = without(folder, "layernorm")
    with pytest.raises(ModelFailure, match="layernorm"):
        loaded(folder, ENCODER)


def test_nothing_is_left_of_the_small_pass(tmp_path: Path) -> None:
    folder = without(saved(tmp_path, "BertModel", "BertConfig", **heads.SMALL), "pooler")
    model = loaded(folder, ENCODER)
    assert all(each.requires_grad and each.grad is None for each in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
