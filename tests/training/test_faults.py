"""What is wrong with the job itself is told in a sentence with a code, and ends with 65."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.tiny_models import tiny_encoder
from tests.training.building import Row, Work, labelled, work
from tests.training.models import tiny_writer
from tests.training.nursery import Nursery
from workers.training import ending


def fault(run: Work, nursery: Nursery) -> dict[str, Any]:
    assert run.run(nursery) == ending.FAULT, run.log
    [told] = run.told("fault")
    assert not run.told("done")
    assert not (run.folder / "result").exists()
    return told


def made(folder: Path, *, base: Path | None = None, **spec: Any) -> Work:
    return work(folder / "W", data={"train": labelled(24)}, base=base, **spec)


def test_a_base_without_a_tokenizer(tmp_path: Path, nursery: Nursery) -> None:
    base = tiny_encoder(tmp_path / "base")
    for path in base.glob("tokenizer*"):
        path.unlink()
    assert fault(made(tmp_path, base=base), nursery)["code"] == "model_no_tokenizer"


def test_a_base_with_pickled_weights(tmp_path: Path, nursery: Nursery) -> None:
    base = tiny_encoder(tmp_path / "base")
    (base / "model.safetensors").unlink()
    torch.save({}, base / "pytorch_model.bin")
    assert fault(made(tmp_path, base=base), nursery)["code"] == "model_not_safetensors"


def test_a_base_that_lacks_weights_other_than_a_head(tmp_path: Path, nursery: Nursery) -> None:
    told = fault(made(tmp_path, base=tiny_encoder(tmp_path / "base"), task="generate"), nursery)
    assert told["code"] == "model_unreadable"
    assert "lacks" in told["message"]


def test_a_base_that_cannot_do_the_task(tmp_path: Path, nursery: Nursery) -> None:
    rows: Sequence[Row] = [(text, text) for text, _ in labelled(24)]
    run = work(
        tmp_path / "W",
        data={"train": rows},
        base=tiny_writer(tmp_path / "base"),
        labels=None,
        task="text2text",
    )
    assert fault(run, nursery)["code"] == "model_unreadable"


def test_a_label_that_validation_has_and_training_lacks(tmp_path: Path, nursery: Nursery) -> None:
    data: dict[str, Sequence[Row]] = {
        "train": labelled(24),
        "validation": [("a text", "poetry")],
    }
    told = fault(work(tmp_path / "W", data=data), nursery)
    assert told["code"] == "unknown_label"
    assert "'poetry'" in told["message"]


@pytest.mark.parametrize("data", [{"train": labelled(4)}, {"train": labelled(8), "validation": []}])
def test_no_validation_rows(
    tmp_path: Path, nursery: Nursery, data: Mapping[str, Sequence[Row]]
) -> None:
    told = fault(work(tmp_path / "W", data=data), nursery)
    assert told["code"] == "split_empty"
    assert "validation" in told["message"]


def test_half_precision_without_an_accelerator(tmp_path: Path, nursery: Nursery) -> None:
    told = fault(made(tmp_path, train={"mixed_precision": "fp16"}), nursery)
    assert told["code"] == "fp16_needs_accelerator"


def test_adapters_that_fit_nothing(tmp_path: Path, nursery: Nursery) -> None:
    told = fault(made(tmp_path, lora={"target_modules": ["nowhere"]}), nursery)
    assert told["code"] == "lora_unsupported"


def test_a_training_that_diverges(tmp_path: Path, nursery: Nursery) -> None:
    recipe = {"learning_rate": 9.9, "max_grad_norm": 1e9, "epochs": 200, "schedule": "constant"}
    told = fault(made(tmp_path, train=recipe | {"weight_decay": 1e6, "batch_rows": 4}), nursery)
    assert told["code"] == "diverged"


def test_a_crash_is_no_fault_of_the_jobs(tmp_path: Path, nursery: Nursery) -> None:
    run = made(tmp_path)
    (run.folder / "data" / "train" / "000000.parquet").write_bytes(b"torn")
    assert run.run(nursery) not in (ending.DONE, ending.FAULT, ending.STOPPED)
    assert not run.told("fault")
