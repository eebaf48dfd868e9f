"""Models that cannot embed, or not with the job's options, are refused before the first row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import OPTConfig, OPTModel, T5Config, T5Model

from jobs.errors import ModelFailure
from tests.support.tiny_models import (
    sentence_files,
    tiny_encoder,
)
from tests.support.tiny_writers import tiny_translator
from tests.workers.inference.embedders import WIDTH, embeddings, refusal, vectors
from workers.inference.heads.pooling import PooledEncoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder whose files name mean pooling and nothing else."""
    return tiny_encoder(tmp_path_factory.mktemp("models") / "plain")


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """An encoder of its own for each test, whose files may be changed."""
    return tiny_encoder(tmp_path / "own")


def test_more_dimensions_than_the_model_has_are_refused(folder: Path) -> None:
    failure = refusal(folder, dimensions=WIDTH + 1)
    assert failure.code == "model_too_narrow"
    assert "at most 32" in failure.message
    assert len(vectors(folder, ["the team"], dimensions=WIDTH)[0]) == WIDTH


def test_a_model_that_does_not_pool_its_prompt_is_refused_with_one(own_folder: Path) -> None:
    sentence_files(own_folder, include_prompt=False)
    assert refusal(own_folder, prompt="find: ").code == "model_unsupported"
    sentence_files(
        own_folder, include_prompt=False, default_prompt_name="a", prompts={"a": "find: "}
    )
    assert "include_prompt" in refusal(own_folder).message


@pytest.mark.parametrize(
    "modules",
    [
        ("Transformer", "Pooling", "Dense"),
        ("Transformer", "Pooling", "Dense", "Normalize"),
        ("Transformer", "Normalize", "Pooling"),
        ("Transformer",),
        ("StaticEmbedding",),
    ],
)
def test_modules_that_are_not_supported_are_refused(
    own_folder: Path, modules: tuple[str, ...]
) -> None:
    failure = refusal(sentence_files(own_folder, modules=modules))
    assert failure.code == "model_unsupported"
    assert ", ".join(modules) in failure.message


def test_a_prompt_that_leaves_no_room_for_a_text_is_refused(folder: Path) -> None:
    failure = refusal(folder, prompt="the team won the final match ", max_tokens=8)
    assert failure.code == "model_too_short"
    assert "window of 8 tokens" in failure.message
    [found] = embeddings(folder, ["the team"], prompt="the team won the final ", max_tokens=8)
    assert (found.tokens, found.truncated) == (8, True)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_an_encoder_with_a_decoder_is_refused(family: str, tmp_path: Path) -> None:
    folder = tiny_translator(tmp_path / "model", family=family)
    assert refusal(folder).code == "model_not_an_encoder"
    sentence_files(folder)
    assert refusal(folder).code == "model_not_an_encoder"


def test_a_model_that_needs_more_than_a_text_is_a_failure_of_the_model() -> None:
    shape: dict[str, Any] = {
        "vocab_size": 10,
        "d_model": 8,
        "d_kv": 4,
        "d_ff": 8,
        "num_layers": 1,
        "num_heads": 2,
    }
    model: Any = T5Model(T5Config(**shape))
    inputs = dict.fromkeys(("input_ids", "attention_mask"), torch.ones((1, 2), dtype=torch.long))
    with pytest.raises(ModelFailure, match="T5Model") as caught:
        PooledEncoder(model, pooling="mean").width(inputs)
    assert caught.value.code == "model_not_an_encoder"


def test_vectors_of_another_width_than_the_config_says_are_refused(own_folder: Path) -> None:
    shape: dict[str, Any] = {"hidden_size": 32, "word_embed_proj_dim": 16, "ffn_dim": 32}
    shape |= {"num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 500}
    OPTModel(OPTConfig(**shape)).save_pretrained(own_folder)
    failure = refusal(own_folder)
    assert failure.code == "model_unsupported"
    assert "16" in failure.message
    assert "32" in failure.message
