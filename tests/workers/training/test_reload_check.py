"""What is saved answers as what was evaluated, whatever head stands beside the adapters."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.errors import JobFailure
from tests.workers.evaluation.building import order, report_here, write_split
from tests.workers.training import heads
from tests.workers.training.building import Row, Work, work
from tests.workers.training.nursery import Nursery
from workers.inference import model_loader
from workers.training import evaluation, model_init, reload_check, run_config, shutdown, tasks
from workers.training.reload_check import Means, Sample

ROWS: list[Row] = [(f"w{place % 2} w{2 + place % 30}", "ab"[place % 2]) for place in range(40)]
WRITTEN: list[Row] = [(f"w{place % 8}", f"w{8 + place % 8}") for place in range(32)]
RECIPE = {"epochs": 2, "batch_rows": 8, "learning_rate": 1e-2}


def trained(
    folder: Path, nursery: Nursery, *, base: Path, ends: int = shutdown.DONE, **spec: Any
) -> Work:
    """A work folder whose run has ended so."""
    writes = spec.get("task", "classify") != "classify"
    run = work(
        folder / "W",
        data={"train": WRITTEN if writes else ROWS, "test": WRITTEN if writes else ROWS},
        base=base,
        labels=None if writes else ("a", "b"),
        **{"train": RECIPE} | spec,
    )
    assert run.run(nursery) == ends, run.log
    return run


def evaluated(run: Work, *, folder: Path, task: str = "classify") -> float:
    """The loss of the test rows by the files, as the evaluate program has it."""
    result = run.folder / "result"
    if (result / "adapter_config.json").exists():
        (result / "base").symlink_to((run.folder / "base").resolve())
    write_split(folder, WRITTEN if task != "classify" else ROWS)
    found = report_here(order(folder, task=task, models={"it": result}))["it"]
    return float(found["loss"])


def reported(run: Work) -> float:
    report = json.loads((run.folder / "report.json").read_bytes())
    return float(report["test"]["loss"])


COMMON = {("bert", False), ("deberta", False), ("deberta", True), ("bart", False)}
EVERY = [
    pytest.param(name, merge, marks=() if (name, merge) in COMMON else pytest.mark.long)
    for name in heads.BASES
    for merge in (False, True)
]


@pytest.mark.parametrize(("name", "merge"), EVERY)
def test_an_adapter_with_any_head_gives_its_evaluation_again(
    name: str, *, merge: bool, tmp_path: Path, nursery: Nursery
) -> None:
    base = heads.base(tmp_path / "base", name)
    run = trained(tmp_path, nursery, base=base, lora={"r": 2, "merge": merge})
    assert evaluated(run, folder=tmp_path / "again") == pytest.approx(reported(run), abs=1e-5)


@pytest.mark.parametrize(
    ("name", "task", "target", "tied"),
    [
        ("gpt2", "generate", "wte", "lm_head"),
        ("gpt2", "generate", "lm_head", "wte"),
        ("t5", "text2text", "shared", "embed_tokens"),
        ("bart", "text2text", "lm_head", "shared"),
        ("bart", "text2text", "embed_tokens", "shared"),
    ],
)
def test_an_adapter_on_tied_weights_is_refused_before_training(
    name: str, task: str, target: str, tied: str, tmp_path: Path, nursery: Nursery
) -> None:
    base = heads.base(tmp_path / "base", name)
    lora = {"r": 2, "target_modules": [target]}
    run = trained(tmp_path, nursery, base=base, ends=shutdown.FAULT, task=task, lora=lora)
    [told] = run.told("fault")
    assert told["code"] == "lora_unsupported"
    assert target in told["message"]
    assert tied in told["message"]
    assert not run.curve()


@pytest.mark.parametrize("target", ["wte", "lm_head", "c_attn"])
def test_an_adapter_on_untied_embeddings_gives_its_evaluation_again(
    target: str, tmp_path: Path, nursery: Nursery
) -> None:
    base = heads.base(tmp_path / "base", "gpt2", tie_word_embeddings=False)
    run = trained(tmp_path, nursery, base=base, task="generate", lora={"target_modules": [target]})
    again = evaluated(run, folder=tmp_path / "again", task="generate")
    assert again == pytest.approx(reported(run), abs=1e-5)


def other_weights(result: Path) -> None:
    weights = load_file(result / "model.safetensors")
    weights["classifier.bias"] += torch.tensor([0.1, 0.0])
    save_file(weights, result / "model.safetensors", metadata={"format": "pt"})


def other_words(result: Path) -> None:
    path = result / "tokenizer.json"
    words = json.loads(path.read_text())
    known = words["model"]["vocab"]
    known["w3"], known["w9"] = known["w9"], known["w3"]
    path.write_text(json.dumps(words))


def other_labels(result: Path) -> None:
    path = result / "config.json"
    config = json.loads(path.read_text()) | {"id2label": {"0": "b", "1": "a"}}
    path.write_text(json.dumps(config))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Work:
    folder = tmp_path_factory.mktemp("run")
    return trained(folder, nursery, base=heads.base(folder / "base", "bert"))


MEANS = Means(
    device=torch.device("cpu"), autocast=nullcontext, budget=512, max_tokens=60, beat=lambda: None
)


def first_losses(order: run_config.Order, sample: Sample) -> Any:
    """Of the sample, by the files as they are now."""
    auto = model_init.AUTO[order.spec.task]
    model = model_loader.module(order.result, auto=auto, dtype=torch.float32, device=MEANS.device)
    family = tasks.of(
        order.signature,
        tokenizer=model_loader.tokenizer(order.result),
        model=model,
        labels=order.labels,
        max_tokens=60,
    )
    rows = range(len(sample.texts))
    return evaluation.losses(model, family, sample.rows, rows=rows, budget=512, beat=lambda: None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_weights, r"over the first 40 test rows the loss was \S+ when .* and is \S+ loaded"),
        (other_words, r"tokenizer made \d tokens \(.*\) of row 1 of the test rows in training"),
        (other_labels, r"trained for the 2 labels a, b …, and its files have the 2 labels b, a"),
    ],
)
def test_files_that_answer_otherwise_are_not_registered(
    change: Callable[[Path], None], said: str, run: Work, tmp_path: Path
) -> None:
    copy = Work(shutil.copytree(run.folder, tmp_path / "copy", symlinks=True))
    order = run_config.read(copy.run_file)
    sample = Sample.of(order)
    losses = first_losses(order, sample)
    reload_check.check(order, sample, losses=losses, means=MEANS)
    change(order.result)
    with pytest.raises(JobFailure, match=said) as raised:
        reload_check.check(order, sample, losses=losses, means=MEANS)
    assert raised.value.code == "version_not_reproducible"


def test_what_is_compared_is_the_rows_and_not_their_mean() -> None:
    first, second = np.array([0.2, 0.8, math.nan]), np.array([0.8, 0.2, math.nan])
    assert reload_check.distances(first, second) == pytest.approx([0.5, 0.6 / 1.8, 0.0])
    assert np.isnan(reload_check.distances(np.array([1.0]), np.array([math.nan])))
