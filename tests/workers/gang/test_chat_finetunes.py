"""A fine-tune of a chat model, and a bulk job that uses it as it was trained (promise P13)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jobs.kinds import Task
from jobs.models.signatures import RowForm, Signature
from jobs.states import JobState
from jobs.tables import Job
from tests.support.installation import jsonl as texts
from tests.support.tiny_writers import tiny_generator
from tests.workers.gang.trainer import Trainer, jsonl, labelled

ANSWERS = {"one": "un", "two": "deux", "three": "trois", "four": "quatre"}
RECIPE = {"epochs": 40, "batch_rows": 8, "learning_rate": 1e-2, "evaluate_steps": 80}


def conversations(repeats: int) -> bytes:
    """Questions with their answers, and one row that is no conversation."""
    rows: list[Any] = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        for q, a in ANSWERS.items()
    ] * repeats
    return "".join(json.dumps(row) + "\n" for row in [*rows, {"messages": "Hi"}]).encode()


def ended(trainer: Trainer, job_id: str) -> Job:
    return trainer.installation.wait(job_id).job


def outputs(trainer: Trainer, **fields: Any) -> tuple[list[str | None], Job]:
    """The outputs of a bulk job, in order, and the job."""
    options = {"max_new_tokens": 12, **fields}
    job_id = trainer.installation.submit(
        texts(ANSWERS), kind="generate", model="chatty@1", generate=options
    )
    job = ended(trainer, job_id)
    assert job.state is JobState.SUCCEEDED, f"{job.error_message} {trainer.logs()}"
    return [row["output"] for row in trainer.installation.results(job_id)], job


def test_a_version_is_used_as_it_was_trained(trainer: Trainer, tmp_path: Path) -> None:
    installation = trainer.installation
    base = tiny_generator(tmp_path / "base", chat=True)
    job_id = installation.submit(
        conversations(12),
        kind="finetune",
        model="chatty",
        base=str(base),
        task="generate",
        system="Translate.",
        train=RECIPE,
    )
    view = trainer.succeeded(job_id)
    assert view.job.dataset is not None
    assert view.job.dataset["splits"]["train"]["rejected"] == 1
    signature = Signature.model_validate(trainer.version(job_id).signature)
    assert (signature.task, signature.rows) == (Task.GENERATE, RowForm.MESSAGES)
    assert (signature.chat, signature.system) == (True, "Translate.")

    pool = installation.start_role("pool")
    try:
        answers, job = outputs(trainer)
        assert answers == list(ANSWERS.values())
        assert job.reading is not None
        assert job.reading["model"] == "chatty@1"
        assert job.reading["warnings"] == []
        answers, job = outputs(trainer, chat=False)
        assert answers != list(ANSWERS.values())
        assert job.reading is not None
        assert [warning.split()[0] for warning in job.reading["warnings"]] == ["chat"]
    finally:
        pool.stop()

    judged = installation.submit(conversations(1), kind="evaluate", model="chatty@1")
    output = trainer.succeeded(judged).job.output
    assert output is not None
    assert output["report"]["loss"] < 0.1
    other = installation.submit(
        conversations(1), kind="evaluate", model="chatty@1", task="classify"
    )
    assert ended(trainer, other).error_code == "model_other_task"


def test_labels_that_a_versions_head_lacks_are_refused(trainer: Trainer) -> None:
    trainer.succeeded(trainer.submit(model="headed"))
    job_id = trainer.installation.submit(
        jsonl(labelled(3)), model="headed@1", classify={"labels": ["sports", "weather"]}
    )
    job = ended(trainer, job_id)
    assert job.error_code == "model_other_labels"
    assert "'weather'" in (job.error_message or "")
