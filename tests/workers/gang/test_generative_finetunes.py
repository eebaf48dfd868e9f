"""Each kind of fine-tune is paused and resumed, and ends as a model that a bulk job uses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.states import JobState
from tests.support.tiny_writers import tiny_generator, tiny_translator
from tests.workers.gang.trainer import Trainer, jsonl, labelled

pytestmark = pytest.mark.long

ANSWERS = {"team": "sport", "galaxy": "planet", "bank": "money"}
"""The target of a text with this word."""


def pairs(count: int) -> list[tuple[str, str]]:
    words = list(ANSWERS)
    return [(f"{words[at % 3]} {at % 7}: ", ANSWERS[words[at % 3]]) for at in range(count)]


def corpus(rows: list[tuple[str, str]]) -> bytes:
    lines = (json.dumps({"text": text, "target": target}) for text, target in rows)
    return "".join(f"{line}\n" for line in lines).encode()


def paused_once(trainer: Trainer, job_id: str) -> str:
    """Pause the job after its first checkpoint and resume it; returns its version's reference."""
    trainer.wait_for_checkpoint(job_id)
    trainer.pause(job_id)
    trainer.wait_until_idle(job_id)
    assert trainer.installation.job(job_id).job.state is JobState.PAUSED
    trainer.resume(job_id)
    trainer.succeeded(job_id)
    assert len(trainer.runs(job_id)) == 2
    assert trainer.first_step_of(trainer.runs(job_id)[-1]) > 0
    version = trainer.version(job_id)
    return f"{version.name}@{version.version}"


def bulk_results(trainer: Trainer, rows: bytes, **spec: Any) -> list[dict[str, Any]]:
    """The results of a bulk job."""
    installation = trainer.installation
    job_id = installation.submit(rows, **spec)
    view = installation.wait(job_id)
    assert view.job.state is JobState.SUCCEEDED, trainer.logs()
    assert installation.verify(job_id).ok
    return installation.results(job_id)


@pytest.fixture(scope="module")
def pool(hosts: Trainer) -> Trainer:
    """The hosts, and a pool for bulk work beside them."""
    hosts.installation.start_role("pool")
    return hosts


@pytest.mark.parametrize(
    ("kind", "lora"),
    [("generate", None), ("generate", {"r": 16, "alpha": 32}), ("text2text", None)],
    ids=["causal", "causal with LoRA", "seq2seq"],
)
def test_a_fine_tuned_generator_generates_in_bulk(
    pool: Trainer, kind: str, lora: dict[str, Any] | None, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    if kind == "generate":
        tiny_generator(base)
    else:
        tiny_translator(base, family="bart")
    recipe = {
        "epochs": 20,
        "batch_rows": 8,
        "learning_rate": 3e-3,
        "checkpoint_steps": 20,
        "evaluate_steps": 100,
    }
    job_id = pool.installation.submit(
        corpus(pairs(240)),
        kind="finetune",
        task=kind,
        base=str(base),
        model=f"{kind}-{'full' if lora is None else 'lora'}",
        train=recipe,
        lora=lora,
    )
    model = paused_once(pool, job_id)
    prompts = pairs(30)
    texts = "".join(f"{json.dumps({'text': text})}\n" for text, _ in prompts).encode()
    results = bulk_results(pool, texts, kind=kind, model=model, **{kind: {"max_new_tokens": 16}})
    correct = sum(
        row["output"] == target and row["finish_reason"] == "stop"
        for row, (_, target) in zip(results, prompts, strict=True)
    )
    assert correct > 20, [row["output"] for row in results]


def test_an_adapter_on_a_classifier_classifies_in_bulk(pool: Trainer) -> None:
    recipe = {"epochs": 10, "learning_rate": 3e-3, "checkpoint_steps": 20}
    model = paused_once(pool, pool.submit(train=recipe, lora={"r": 4}, model="adapted"))
    rows = labelled(60)
    results = bulk_results(pool, jsonl(rows), model=model)
    correct = sum(row["label"] == label for row, (_, label) in zip(results, rows, strict=True))
    assert correct > 40
