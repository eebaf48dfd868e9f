"""Each task and method of training, from a base to a result that loads; killed once (P7)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
)

from jobs.kinds import Task
from jobs.models import inspection, signatures
from jobs.models.signatures import Signature
from tests.support.tiny_models import LABELS, MAX_TOKENS, tiny_encoder
from tests.workers.training.fork_server import ForkServer
from tests.workers.training.models import tiny_causal_lm, tiny_seq2seq, without_dropout
from tests.workers.training.work_folder import (
    Row,
    WorkFolder,
    labelled,
    wait_until,
    weights,
    work_folder,
)
from workers.training import shutdown

RECIPE = {"epochs": 2, "batch_rows": 8, "checkpoint_steps": 2, "learning_rate": 3e-3}
LORA = {"r": 4, "dropout": 0.1}

WORDS = "abcdefgh"
COPIES: list[Row] = [(WORDS[place % 5 :], WORDS[place % 5 :][:3]) for place in range(48)]
TEXTS: list[Row] = [(text, None) for text, _ in labelled(48)]
SEVERAL: list[Row] = [
    (text, json.dumps([label, LABELS[0]] if label != LABELS[0] else []))
    for text, label in labelled(48)
]

KINDS: dict[str, dict[str, Any]] = {
    "lora": {"lora": LORA},
    "merged lora": {"lora": LORA | {"merge": True}},
    "several labels": {"multi_label": True, "rows": SEVERAL},
    "class weights": {"train": RECIPE | {"class_weights": "balanced"}},
    "bfloat16": {"train": RECIPE | {"mixed_precision": "bf16"}},
    "texts": {"task": "generate", "rows": TEXTS, "base": "writer"},
    "completions with lora": {"task": "generate", "rows": COPIES, "base": "writer", "lora": LORA},
    "text2text": {"task": "text2text", "rows": COPIES, "base": "translator"},
    "textcnn": {"architecture": "textcnn"},
    "lstm": {"architecture": "lstm", "task": "generate", "rows": TEXTS},
}


def made(
    folder: Path, *, rows: Sequence[Row] = (), base: str = "encoder", **spec: Any
) -> WorkFolder:
    build = {"encoder": tiny_encoder, "writer": tiny_causal_lm, "translator": tiny_seq2seq}[base]
    rows = rows or labelled(48)
    labels = LABELS if spec.get("task", "classify") == "classify" else None
    return work_folder(
        folder / "W",
        data={"train": rows},
        base=build(folder / "base"),
        labels=labels,
        **{"train": RECIPE} | spec,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_has_the_result_of_an_undisturbed_one(
    kind: str, tmp_path: Path, fork_server: ForkServer
) -> None:
    alone = made(tmp_path / "alone", **KINDS[kind])
    assert alone.run(fork_server) == shutdown.DONE, alone.log
    run = made(tmp_path / "killed", **KINDS[kind])
    [child] = run.start(fork_server)
    wait_until(lambda: 5 in run.curve() or child.poll() is not None)
    child.kill()
    run.resume_from(run.checkpoints[-1])
    assert run.run(fork_server) == shutdown.DONE, run.log
    assert run.curve() == alone.curve()
    assert weights(run.folder / "result") == weights(alone.folder / "result")


def result(tmp_path: Path, fork_server: ForkServer, **spec: Any) -> Path:
    run = made(tmp_path, **spec)
    assert run.run(fork_server) == shutdown.DONE, run.log
    return run.folder


def test_a_classifier_learns_and_loads_with_transformers(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    recipe = RECIPE | {"epochs": 4, "learning_rate": 5e-3}
    folder = result(tmp_path, fork_server, rows=labelled(300), train=recipe)
    facts = inspection.inspect(folder / "result")
    assert facts.has_head
    assert facts.id2label == LABELS
    assert facts.problem_type == "single_label_classification"
    auto: Any = AutoModelForSequenceClassification
    assert auto.from_pretrained(folder / "result").config.label2id[LABELS[3]] == 3
    report = json.loads((folder / "report.json").read_bytes())["validation"]
    assert report["rows"] == 32  # 8 of each label's 75
    assert report["accuracy"] > 0.9
    trained = signatures.read(folder / "result")
    assert trained == Signature(task=Task.CLASSIFY, labels=LABELS, max_tokens=MAX_TOKENS)


def test_an_adapter_has_the_config_of_the_whole_model_and_names_its_base(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    folder = result(tmp_path, fork_server, lora=LORA) / "result"
    names = {path.name for path in folder.iterdir()}
    assert names >= {"adapter_config.json", "adapter_model.safetensors", "config.json"}
    assert "model.safetensors" not in names
    config = json.loads((folder / "config.json").read_bytes())
    assert config["id2label"] == {str(place): label for place, label in enumerate(LABELS)}
    assert config["architectures"] == ["BertForSequenceClassification"]
    adapter = json.loads((folder / "adapter_config.json").read_bytes())
    assert adapter["base_model_name_or_path"] == "tiny@1"


def test_a_merged_adapter_answers_like_the_adapter_on_its_base(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    import peft  # noqa: PLC0415 - takes seconds

    apart = result(tmp_path / "apart", fork_server, lora=LORA)
    merged = result(tmp_path / "merged", fork_server, lora=LORA | {"merge": True})
    auto: Any = AutoModelForSequenceClassification
    base = auto.from_pretrained(apart / "base", num_labels=len(LABELS))
    ours = auto.from_pretrained(merged / "result").eval()
    theirs = peft.PeftModel.from_pretrained(base, apart / "result").eval()
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, rtol=1e-4, atol=1e-4)


def test_a_language_model_learns_completions(tmp_path: Path, fork_server: ForkServer) -> None:
    recipe = RECIPE | {"epochs": 20, "learning_rate": 1e-2}
    rows = [(f"{place % 4}:", "abc") for place in range(64)]
    folder = result(tmp_path, fork_server, task="generate", rows=rows, base="writer", train=recipe)
    auto: Any = AutoModelForCausalLM
    model = auto.from_pretrained(folder / "result")
    report = json.loads((folder / "report.json").read_bytes())["validation"]
    assert report["perplexity"] < 1.5
    assert report["tokens"] == 4 * report["rows"]
    assert model.config.model_type == "gpt2"


def test_a_translators_report_has_bleu_and_chrf(tmp_path: Path, fork_server: ForkServer) -> None:
    folder = result(tmp_path, fork_server, task="text2text", rows=COPIES, base="translator")
    report = json.loads((folder / "report.json").read_bytes())["validation"]
    assert {"bleu", "chrf", "perplexity", "loss"} <= report.keys()
    auto: Any = AutoModelForSeq2SeqLM
    assert auto.from_pretrained(folder / "result").config.model_type == "t5"


def test_training_stops_early_when_the_metric_does_not_improve(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    stubborn = {"epochs": 50, "learning_rate": 1e-12, "evaluate_steps": 3, "patience": 2}
    folder = result(tmp_path, fork_server, train=RECIPE | stubborn)
    lines = (folder / "told" / "0.jsonl").read_text().splitlines()
    checkpoints = [each for each in map(json.loads, lines) if each["type"] == "checkpoint"]
    assert checkpoints[-1]["step"] == 9  # the first was the best, and the next two were not
    assert [each["best"] for each in checkpoints if each["metric"] is not None] == [
        True,
        False,
        False,
    ]


def test_the_result_has_the_weights_of_the_best_evaluation(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    wild = {"epochs": 6, "learning_rate": 2e-2, "schedule": "constant", "metric": "loss"}
    run = made(tmp_path, train=RECIPE | wild | {"evaluate_steps": 2})
    assert run.run(fork_server) == shutdown.DONE, run.log
    losses = run.curve("validation/loss")
    report = json.loads((run.folder / "report.json").read_bytes())["validation"]
    assert report["loss"] == min(losses.values())
    assert report["loss"] < losses[max(losses)]


def test_two_ranks_learn_the_same_as_one(tmp_path: Path, fork_server: ForkServer) -> None:
    """Up to rounding, and without dropout, whose draws differ between ranks."""
    base = without_dropout(tiny_encoder(tmp_path / "base"))
    recipe = RECIPE | {"batch_rows": 7, "class_weights": "balanced"}
    data = {"train": labelled(50)}
    one = work_folder(tmp_path / "one", data=data, base=base, train=recipe)
    two = work_folder(tmp_path / "two", data=data, base=base, train=recipe, processes=2)
    assert [one.run(fork_server), two.run(fork_server)] == [shutdown.DONE] * 2, two.log
    assert list(two.curve().values()) == pytest.approx(list(one.curve().values()), rel=1e-3)
    reports = [json.loads((each.folder / "report.json").read_bytes()) for each in (one, two)]
    loss = [each["validation"]["loss"] for each in reports]
    assert loss[0] == pytest.approx(loss[1], rel=1e-3)
