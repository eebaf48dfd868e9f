from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from jobs.errors import ModelFailure
from tests.support.tiny_models import LABELS, tiny_classifier, tiny_encoder
from tests.workers.evaluation.builders import adapter
from tests.workers.inference.builders import predictions, some_texts
from workers.inference import model_loader

CPU = torch.device("cpu")


def module(folder: Path) -> Any:
    auto: Any = AutoModelForSequenceClassification
    return model_loader.module(folder, auto=auto, dtype=torch.float32, device=CPU)


def same(one: Any, other: Any) -> bool:
    first, second = one.state_dict(), other.state_dict()
    assert set(first) == set(second)
    return all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_classifier(tmp_path_factory.mktemp("models") / "base-model", labels=("x", "y"))


def test_an_adapter_is_merged_into_its_base_in_memory(base: Path, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "adapter", base=base)
    merged = module(folder)
    assert type(merged).__name__ == "BertForSequenceClassification"
    assert same(merged, module(tmp_path / "adapter-merged"))
    assert tuple(merged.config.id2label.values()) == LABELS


def test_the_engine_classifies_with_an_adapter(base: Path, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "adapter", base=base)
    texts = some_texts(30)
    merged = predictions(folder, texts)
    whole = predictions(tmp_path / "adapter-merged", texts)
    assert [each.labels for each in merged] == [each.labels for each in whole]
    assert len({each.labels for each in merged}) > 1


def test_an_encoder_without_a_head_can_be_a_base(tmp_path: Path) -> None:
    encoder = tiny_encoder(tmp_path / "encoder", pooling=None)
    folder = adapter(tmp_path / "adapter", base=encoder)
    assert same(module(folder), module(tmp_path / "adapter-merged"))


@pytest.mark.parametrize("labels", [LABELS, ("p", "q", "r")])
def test_an_adapter_on_an_adapter_is_merged_into_both(
    labels: tuple[str, ...], base: Path, tmp_path: Path
) -> None:
    first = adapter(tmp_path / "first", base=base, seed=1)
    second = adapter(tmp_path / "second", base=first, labels=labels, seed=2)
    merged = module(second)
    assert same(merged, module(tmp_path / "second-merged"))
    assert not same(merged, module(tmp_path / "first-merged")) if labels == LABELS else True


def test_an_adapter_without_its_base_is_refused(base: Path, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "adapter", base=base)
    (folder / "base").unlink()
    with pytest.raises(ModelFailure, match="its base is not here") as raised:
        module(folder)
    assert raised.value.code == "model_missing"


def test_an_adapters_pickle_is_never_read(base: Path, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "adapter", base=base)
    (folder / "adapter_model.safetensors").unlink()

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"weight": Trap()}, folder / "adapter_model.bin")
    with pytest.raises(ModelFailure, match="safetensors") as raised:
        module(folder)
    assert raised.value.code == "model_not_safetensors"
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "model_unsupported"),
        ({}, "model_unsupported"),
        ([], "model_unreadable"),
    ],
)
def test_an_adapter_that_is_no_lora_is_refused(
    config: Any, code: str, base: Path, tmp_path: Path
) -> None:
    folder = adapter(tmp_path / "adapter", base=base)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFailure) as raised:
        module(folder)
    assert raised.value.code == code


def test_a_base_path_in_the_adapters_own_config_is_not_followed(base: Path, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "adapter", base=base)
    path = folder / "adapter_config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "/etc/nowhere"})
    )
    assert same(module(folder), module(tmp_path / "adapter-merged"))


def test_a_head_that_no_file_has_is_refused(tmp_path: Path) -> None:
    encoder = tiny_encoder(tmp_path / "encoder", pooling=None)
    with pytest.raises(ModelFailure, match="lacks"):
        module(encoder)
