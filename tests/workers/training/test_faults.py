"""A fault of the job is a message with a code and a sentence, and exit status 65."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed

from jobs import kinds
from jobs.errors import CorpusFailure, ModelFailure
from jobs.kinds import FinetuneSpec
from tests.support.tiny_models import tiny_encoder
from tests.workers.training import heads
from tests.workers.training.fork_server import ForkServer
from tests.workers.training.models import tiny_causal_lm
from tests.workers.training.work_folder import Row, WorkFolder, labelled, work_folder, write_shards
from workers.training import forward_faults, shutdown, tokenized_dataset


def fault(run: WorkFolder, fork_server: ForkServer) -> dict[str, Any]:
    assert run.run(fork_server) == shutdown.FAULT, run.log
    [message] = run.messages("fault")
    assert not run.messages("done")
    assert not (run.folder / "result").exists()
    return message


def made(folder: Path, *, base: Path | None = None, **spec: Any) -> WorkFolder:
    return work_folder(folder / "W", data={"train": labelled(24)}, base=base, **spec)


def test_a_base_without_a_tokenizer(tmp_path: Path, fork_server: ForkServer) -> None:
    base = tiny_encoder(tmp_path / "base")
    for path in base.glob("tokenizer*"):
        path.unlink()
    assert fault(made(tmp_path, base=base), fork_server)["code"] == "model_no_tokenizer"


def test_a_base_with_pickled_weights(tmp_path: Path, fork_server: ForkServer) -> None:
    base = tiny_encoder(tmp_path / "base")
    (base / "model.safetensors").unlink()
    torch.save({}, base / "pytorch_model.bin")
    assert fault(made(tmp_path, base=base), fork_server)["code"] == "model_not_safetensors"


def test_a_base_that_lacks_weights_other_than_a_head(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    message = fault(
        made(tmp_path, base=tiny_encoder(tmp_path / "base"), task="generate"), fork_server
    )
    assert message["code"] == "model_unreadable"
    assert "lacks" in message["message"]


def test_a_base_that_cannot_do_the_task(tmp_path: Path, fork_server: ForkServer) -> None:
    rows: Sequence[Row] = [(text, text) for text, _ in labelled(24)]
    run = work_folder(
        tmp_path / "W",
        data={"train": rows},
        base=tiny_causal_lm(tmp_path / "base"),
        labels=None,
        task="text2text",
    )
    assert fault(run, fork_server)["code"] == "model_unreadable"


def test_a_label_that_validation_has_and_training_lacks(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    data: dict[str, Sequence[Row]] = {
        "train": labelled(24),
        "validation": [("a text", "poetry")],
    }
    message = fault(work_folder(tmp_path / "W", data=data), fork_server)
    assert message["code"] == "unknown_label"
    assert "'poetry'" in message["message"]


@pytest.mark.parametrize("data", [{"train": labelled(4)}, {"train": labelled(8), "validation": []}])
def test_no_validation_rows(
    tmp_path: Path, fork_server: ForkServer, data: Mapping[str, Sequence[Row]]
) -> None:
    message = fault(work_folder(tmp_path / "W", data=data), fork_server)
    assert message["code"] == "split_empty"
    assert "validation" in message["message"]


def test_half_precision_without_an_accelerator(tmp_path: Path, fork_server: ForkServer) -> None:
    message = fault(made(tmp_path, train={"mixed_precision": "fp16"}), fork_server)
    assert message["code"] == "fp16_needs_accelerator"


def test_adapters_that_fit_nothing(tmp_path: Path, fork_server: ForkServer) -> None:
    message = fault(made(tmp_path, lora={"target_modules": ["nowhere"]}), fork_server)
    assert message["code"] == "lora_unsupported"


def test_a_training_that_diverges(tmp_path: Path, fork_server: ForkServer) -> None:
    recipe = {"learning_rate": 9.9, "max_grad_norm": 1e9, "epochs": 200, "schedule": "constant"}
    message = fault(
        made(tmp_path, train=recipe | {"weight_decay": 1e6, "batch_rows": 4}), fork_server
    )
    assert message["code"] == "diverged"


def test_a_crash_is_no_fault_of_the_job(tmp_path: Path, fork_server: ForkServer) -> None:
    run = made(tmp_path)
    (run.folder / "data" / "train" / "000000.parquet").write_bytes(b"torn")
    assert run.run(fork_server) not in (shutdown.DONE, shutdown.FAULT, shutdown.STOPPED)
    assert not run.messages("fault")


WORDS: Sequence[Row] = [(f"w{place % 2} w{2 + place % 30}", "ab"[place % 2]) for place in range(40)]


def test_tokens_beyond_the_table_of_embeddings(tmp_path: Path, fork_server: ForkServer) -> None:
    base = heads.base(tmp_path / "base", "bert", vocab_size=20)
    run = work_folder(tmp_path / "W", data={"train": WORDS}, base=base, labels=("a", "b"))
    message = fault(run, fork_server)
    assert message["code"] == "model_few_embeddings"
    assert "token ids up to 43" in message["message"]
    assert "has 20 rows" in message["message"]
    assert not run.curve()


def test_a_base_that_raises_for_every_row(tmp_path: Path, fork_server: ForkServer) -> None:
    base = heads.base(tmp_path / "base", "bert", type_vocab_size=0)
    run = work_folder(tmp_path / "W", data={"train": WORDS}, base=base, labels=("a", "b"))
    message = fault(run, fork_server)
    assert message["code"] == "model_raises"
    assert "would at every try: " in message["message"]
    assert not run.curve()


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_end_tokens_in_texts_are_no_fault(
    name: str, tmp_path: Path, fork_server: ForkServer
) -> None:
    rows = [
        ("was <s> w1 </s> now w2" if place % 10 in (3, 4) else text, label)
        for place, (text, label) in enumerate(WORDS)
    ]
    base = heads.base(tmp_path / "base", name)
    run = work_folder(
        tmp_path / "W", data={"train": rows, "test": rows}, base=base, labels=("a", "b")
    )
    assert run.run(fork_server) == shutdown.DONE, run.log
    report = json.loads((run.folder / "report.json").read_bytes())
    assert report["test"]["rows"] == 40


def test_a_text_without_the_end_token_that_the_head_reads(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    base = heads.base(tmp_path / "base", "bart")
    path = base / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"post_processor": None}))
    run = work_folder(tmp_path / "W", data={"train": WORDS}, base=base, labels=("a", "b"))
    message = fault(run, fork_server)
    assert message["code"] == "no_end_token"
    assert "has 0 in 2 tokens" in message["message"]


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (IndexError("index out of range in self"), False),
        (ValueError("All examples must have the same number of <eos> tokens."), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), False),
        (RuntimeError("The size of tensor a (7) must match the size of tensor b (5)"), False),
        (TypeError("forward() got an unexpected keyword argument"), False),
        (RuntimeError("CUDA error: device-side assert triggered"), True),
        (
            RuntimeError("DefaultCPUAllocator: not enough memory"),
            True,
        ),
        (RuntimeError("Connection closed by peer [10.0.0.2]:4711"), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (torch.distributed.DistBackendError("NCCL"), True),
        (OSError("No space left on device"), True),
        (MemoryError(), True),
    ],
)
def test_only_a_permanent_error_is_a_fault_of_the_job(error: Exception, *, transient: bool) -> None:
    assert forward_faults.is_transient(error) is transient
    with pytest.raises(type(error) if transient else ModelFailure), forward_faults.of_model():
        raise error


class TokenizerPanic(BaseException):
    """As a panic of Rust is raised."""


def test_a_row_for_which_the_tokenizer_panics_is_skipped(tmp_path: Path) -> None:
    class PanickingEncoder:
        def encode(
            self, texts: Sequence[str], targets: Sequence[str | None]
        ) -> list[tuple[list[int], list[int]]]:
            del targets
            if "bad" in texts:
                raise TokenizerPanic("index out of bounds")
            return [([1], [0]) for _ in texts]

    spec = kinds.parse(
        {"kind": "finetune", "base": "/m", "model": "m", "corpus": {"uri": "file:///c.jsonl"}}
    )
    assert isinstance(spec, FinetuneSpec)

    def written(name: str, texts: Sequence[str]) -> Path:
        write_shards(tmp_path / name / "data" / "train", [(text, "a") for text in texts])
        to = tmp_path / name / "tokens"
        data = to.with_name("data")
        tokenized_dataset.write(
            data, to=to, encoder=PanickingEncoder(), spec=spec, beat=lambda: None
        )
        return to

    to = written("some", ["bad" if place == 29 else "good" for place in range(50)])
    assert (
        sum(len(tokenized_dataset.required(to, split)) for split in ("train", "validation")) == 49
    )
    with pytest.raises(CorpusFailure, match="TokenizerPanic: index out of bounds") as raised:
        written("all", ["bad"] * 3)
    assert raised.value.code == "row_failed"
