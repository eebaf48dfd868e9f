"""Models over several devices: here CPU and disk, between which hooks move weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from jobs.errors import ModelFailure
from jobs.kinds import (
    ClassifyOptions,
    EmbedOptions,
    GenerateOptions,
    Options,
    PipelineOptions,
    Text2TextOptions,
)
from jobs.settings import Settings
from tests.support.tiny_models import tiny_classifier, tiny_encoder
from tests.support.tiny_pipelines import entity_finder
from tests.support.tiny_writers import tiny_generator, tiny_translator
from tests.workers.inference.builders import assert_near, no_beat, some_texts
from workers.inference import engine
from workers.inference.batching.forward import RowError
from workers.inference.kernels import device_map

LAYERS = 12
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def llama() -> Any:
    shape: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=300, num_hidden_layers=LAYERS, **shape)
    build: Any = LlamaForCausalLM
    return build(config).eval()


def size(model: Any) -> int:
    return sum(each.numel() * each.element_size() for each in model.parameters())


@pytest.mark.parametrize("count", [2, 3, 4])
def test_layers_are_whole_in_order_and_evenly_divided(llama: Any, count: int) -> None:
    places = device_map.device_map(llama, free=dict.fromkeys(range(count), size(llama)))
    layers: list[Any] = [places[f"model.layers.{index}"] for index in range(LAYERS)]
    assert layers == sorted(layers)
    shares = [layers.count(device) for device in range(count)]
    assert sum(shares) == LAYERS
    assert min(shares) >= LAYERS // count // 2


def test_no_device_is_given_more_than_its_room(llama: Any) -> None:
    free = {0: int(0.5 * size(llama)), 1: size(llama)}
    places = device_map.device_map(llama, free=free)
    for device, room in free.items():
        parts = [name for name, place in places.items() if place == device]
        assert (
            sum(size(llama.get_submodule(name)) for name in parts)
            <= device_map.WEIGHTS_SHARE * room
        )


def test_too_little_memory_on_all_devices_together_says_what_to_do(llama: Any) -> None:
    free = dict.fromkeys(range(2), size(llama) // 4)
    with pytest.raises(ModelFailure, match=r"2 accelerators .*NIGHTSHIFT_WORKER_DEVICES") as found:
        device_map.place(llama, device=torch.device("cuda", 0), free=free)
    assert found.value.code == "model_needs_devices"


@pytest.mark.parametrize("free", [{}, {0: 1}, {0: 2**30, 1: 2**30}])
def test_a_model_that_fits_or_has_one_device_is_not_spread(
    llama: Any, free: dict[int, int]
) -> None:
    assert not device_map.is_spread(device_map.place(llama, device=CPU, free=free))


KINDS: dict[str, tuple[Callable[[Path], Path], Options]] = {
    "classify": (tiny_classifier, ClassifyOptions(all_scores=True)),
    "embed": (tiny_encoder, EmbedOptions()),
    "generate": (tiny_generator, GenerateOptions(max_new_tokens=12)),
    "text2text": (tiny_translator, Text2TextOptions(max_new_tokens=12)),
    "pipeline": (entity_finder, PipelineOptions()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_spread_model_answers_as_on_one_device(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, options = KINDS[kind]
    folder = build(tmp_path / "model")
    alone = columns_of(folder, options)
    spread: list[Any] = []

    def place(model: Any, **_: Any) -> Any:
        spread.append(halved(model, tmp_path / "disk"))
        return spread[-1]

    monkeypatch.setattr(device_map, "place", place)
    assert_near(columns_of(folder, options), alone)
    assert all(map(device_map.is_spread, spread))
    assert spread


def columns_of(folder: Path, options: Options) -> list[dict[str, Any]]:
    """The output columns of some texts, vectors and JSON parsed."""
    model = engine.load(folder, options, settings=Settings(worker_threads=1))
    answers = model.answer(dict(enumerate(some_texts(20, longest=8))), beat=no_beat)
    columns = []
    for _, answer in sorted(answers.items()):
        assert not isinstance(answer, RowError)
        columns.append(each := answer.columns())
        if "embedding" in each:
            each["embedding"] = each["embedding"].tolist()
        if isinstance(options, PipelineOptions):
            each["output"] = json.loads(each["output"])
    return columns


def halved(model: Any, folder: Path) -> Any:
    """Every second layer on disk, all else on the CPU."""
    names = [name for name, part in model.named_modules() if _is_layer(model, part)]
    places = dict.fromkeys(names, "cpu") | dict.fromkeys(names[1::2], "disk")
    others = {
        name: "cpu"
        for name, part in model.named_modules()
        if name
        and not any(name == each or each.startswith(f"{name}.") for each in names)
        and not any(name.startswith(f"{each}.") for each in names)
    }
    return device_map.dispatch(model, places | others, offload=str(folder))


def _is_layer(model: Any, part: Any) -> bool:
    return type(part).__name__ in (model._no_split_modules or ())
