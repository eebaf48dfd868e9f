"""The facts of a folder that holds LoRA weights, with a link to the model that they adapt."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from jobs.errors import ModelFailure
from jobs.models import inspection
from tests.support.tiny_models import LABELS, MAX_TOKENS, tiny_classifier, tiny_encoder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_encoder(tmp_path / "base", pooling="mean")


@pytest.fixture
def adapter(tmp_path: Path, base: Path) -> Path:
    folder = tiny_classifier(tmp_path / "adapter", seed=1)
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (folder / "base").symlink_to(base)
    return folder


def digest(folder: Path) -> str:
    return inspection.inspect(folder).digest


def refusal(folder: Path) -> ModelFailure:
    with pytest.raises(ModelFailure) as caught:
        inspection.inspect(folder)
    return caught.value


def test_head_and_labels_are_the_adapters_and_pooling_is_the_bases(adapter: Path) -> None:
    facts = inspection.inspect(adapter)
    assert (facts.id2label, facts.has_head) == (LABELS, True)
    assert (facts.max_tokens, facts.pooling) == (MAX_TOKENS, "mean")


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_the_digest_covers_the_adapter(adapter: Path, name: str) -> None:
    before = digest(adapter)
    content = (adapter / name).read_bytes()
    changed = content[:-1] + bytes([content[-1] ^ 1])
    (adapter / name).write_bytes(changed)
    assert digest(adapter) != before


def test_the_digest_covers_the_base(adapter: Path, tmp_path: Path) -> None:
    before = digest(adapter)
    (adapter / "base").unlink()
    (adapter / "base").symlink_to(tiny_encoder(tmp_path / "other", seed=2))
    assert digest(adapter) != before


def test_the_location_of_the_base_does_not_change_the_digest(
    adapter: Path, base: Path, tmp_path: Path
) -> None:
    before = digest(adapter)
    (adapter / "base").unlink()
    (adapter / "base").symlink_to(shutil.copytree(base, tmp_path / "copy"))
    assert digest(adapter) == before


def test_an_adapter_without_its_base_is_refused_with_advice(adapter: Path) -> None:
    (adapter / "base").unlink()
    failure = refusal(adapter)
    assert failure.code == "model_missing"
    assert "merge it into its base" in failure.message


def test_an_adapter_as_pickle_is_refused(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    assert refusal(adapter).code == "model_not_safetensors"


def test_an_adapter_with_an_unusable_base_is_refused(adapter: Path, base: Path) -> None:
    (base / "model.safetensors").unlink()
    assert refusal(adapter).code == "model_not_safetensors"
