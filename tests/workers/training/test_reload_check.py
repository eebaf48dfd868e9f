"""The exported files repeat the evaluation, for adapters beside any kind of head (P13)."""

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
from tests.workers.evaluation.builders import config_file, report_here, write_split
from tests.workers.training import heads
from tests.workers.training.fork_server import ForkServer
from tests.workers.training.work_folder import Row, WorkFolder, work_folder
from workers.inference import model_loader
from workers.training import evaluation, model_init, reload_check, run_config, shutdown
from workers.training.objectives.objective import objective_for
from workers.training.reload_check import EvaluationSettings, ReloadSample

ROWS: list[Row] = [(f"w{place % 2} w{2 + place % 30}", "ab"[place % 2]) for place in range(40)]
TARGET_ROWS: list[Row] = [(f"w{place % 8}", f"w{8 + place % 8}") for place in range(32)]
RECIPE = {"epochs": 2, "batch_rows": 8, "learning_rate": 1e-2}


def trained(
    folder: Path, fork_server: ForkServer, *, base: Path, ends: int = shutdown.DONE, **spec: Any
) -> WorkFolder:
    """A work folder whose run has ended with this status."""
    generates = spec.get("task", "classify") != "classify"
    run = work_folder(
        folder / "W",
        data={
            "train": TARGET_ROWS if generates else ROWS,
            "test": TARGET_ROWS if generates else ROWS,
        },
        base=base,
        labels=None if generates else ("a", "b"),
        **{"train": RECIPE} | spec,
    )
    assert run.run(fork_server) == ends, run.log
    return run


def evaluated(run: WorkFolder, *, folder: Path, task: str = "classify") -> float:
    """The loss of the test rows, computed from the files by the evaluation program."""
    result = run.folder / "result"
    if (result / "adapter_config.json").exists():
        (result / "base").symlink_to((run.folder / "base").resolve())
    write_split(folder, TARGET_ROWS if task != "classify" else ROWS)
    report = report_here(config_file(folder, task=task, models={"it": result}))["it"]
    return float(report["loss"])


def reported(run: WorkFolder) -> float:
    report = json.loads((run.folder / "report.json").read_bytes())
    return float(report["test"]["loss"])


COMMON = {("bert", False), ("deberta", False), ("deberta", True), ("bart", False)}
EVERY = [
    pytest.param(name, merge, marks=() if (name, merge) in COMMON else pytest.mark.long)
    for name in heads.BASES
    for merge in (False, True)
]


@pytest.mark.parametrize(("name", "merge"), EVERY)
def test_an_adapter_with_any_head_repeats_its_evaluation(
    name: str, *, merge: bool, tmp_path: Path, fork_server: ForkServer
) -> None:
    base = heads.base(tmp_path / "base", name)
    run = trained(tmp_path, fork_server, base=base, lora={"r": 2, "merge": merge})
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
    name: str, task: str, target: str, tied: str, tmp_path: Path, fork_server: ForkServer
) -> None:
    base = heads.base(tmp_path / "base", name)
    lora = {"r": 2, "target_modules": [target]}
    run = trained(tmp_path, fork_server, base=base, ends=shutdown.FAULT, task=task, lora=lora)
    [fault] = run.messages("fault")
    assert fault["code"] == "lora_unsupported"
    assert target in fault["message"]
    assert tied in fault["message"]
    assert not run.curve()


@pytest.mark.parametrize("target", ["wte", "lm_head", "c_attn"])
def test_an_adapter_on_untied_embeddings_repeats_its_evaluation(
    target: str, tmp_path: Path, fork_server: ForkServer
) -> None:
    base = heads.base(tmp_path / "base", "gpt2", tie_word_embeddings=False)
    run = trained(
        tmp_path, fork_server, base=base, task="generate", lora={"target_modules": [target]}
    )
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
def run(tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer) -> WorkFolder:
    folder = tmp_path_factory.mktemp("run")
    return trained(folder, fork_server, base=heads.base(folder / "base", "bert"))


SETTINGS = EvaluationSettings(
    device=torch.device("cpu"), autocast=nullcontext, budget=512, max_tokens=60, beat=lambda: None
)


def first_losses(config: run_config.RunConfig, sample: ReloadSample) -> Any:
    """The losses of the sample, from the current files."""
    auto = model_init.AUTO[config.spec.task]
    model = model_loader.module(
        config.result, auto=auto, dtype=torch.float32, device=SETTINGS.device
    )
    objective = objective_for(
        config.signature,
        tokenizer=model_loader.tokenizer(config.result),
        model=model,
        labels=config.labels,
        max_tokens=60,
    )
    rows = range(len(sample.texts))
    return evaluation.losses(
        model, objective, sample.rows, rows=rows, budget=512, beat=lambda: None
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_weights, r"over the first 40 test rows the loss was \S+ when .* and is \S+ loaded"),
        (other_words, r"tokenizer made \d tokens \(.*\) of row 1 of the test rows in training"),
        (other_labels, r"trained for the 2 labels a, b …, and its files have the 2 labels b, a"),
    ],
)
def test_files_that_do_not_repeat_the_evaluation_are_not_registered(
    change: Callable[[Path], None], message: str, run: WorkFolder, tmp_path: Path
) -> None:
    copy = WorkFolder(shutil.copytree(run.folder, tmp_path / "copy", symlinks=True))
    config = run_config.read(copy.run_file)
    sample = ReloadSample.of(config)
    losses = first_losses(config, sample)
    reload_check.check(config, sample, losses=losses, settings=SETTINGS)
    change(config.result)
    with pytest.raises(JobFailure, match=message) as raised:
        reload_check.check(config, sample, losses=losses, settings=SETTINGS)
    assert raised.value.code == "version_not_reproducible"


def test_losses_are_compared_by_row_and_not_by_their_mean() -> None:
    first, second = np.array([0.2, 0.8, math.nan]), np.array([0.8, 0.2, math.nan])
    assert reload_check.distances(first, second) == pytest.approx([0.5, 0.6 / 1.8, 0.0])
    assert np.isnan(reload_check.distances(np.array([1.0]), np.array([math.nan])))
