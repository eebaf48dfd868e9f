"""Weights that cannot be loaded are refused by their headers."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest

from jobs.errors import ModelFailure
from jobs.models import weights
from tests.support.tiny_models import tiny_classifier


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_classifier(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "model")


def refusal(folder: Path) -> ModelFailure:
    with pytest.raises(ModelFailure) as caught:
        weights.tensors(folder)
    return caught.value


def test_pickled_weights_are_refused_with_advice_on_how_to_convert_them(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    error = refusal(folder)
    assert error.code == "model_not_safetensors"
    assert "safe_serialization=True" in error.message


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_truncated_weights_are_unreadable(folder: Path, kept: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert refusal(folder).code == "model_unreadable"


def test_a_pointer_file_in_place_of_weights_is_unreadable(folder: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 90\n"
    (folder / "model.safetensors").write_text(pointer)
    assert refusal(folder).code == "model_unreadable"


def test_every_shard_of_sharded_weights_must_exist(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    assert refusal(folder).code == "model_unreadable"


def test_a_header_longer_than_the_file_is_unreadable(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    assert refusal(folder).code == "model_unreadable"
