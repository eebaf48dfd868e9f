"""A better model takes the alias, a worse one does not, and a bulk job uses the alias."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.states import JobState
from tests.workers.gang.trainer import Trainer, jsonl, labelled

pytestmark = pytest.mark.long

GOOD = {"epochs": 10, "learning_rate": 3e-3, "evaluate_steps": 100, "checkpoint_steps": 1000}
BAD = {"max_steps": 1, "learning_rate": 1e-6, "evaluate_steps": 1}


def promotion(trainer: Trainer, train: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The promotion that the output of a fine-tune with this recipe reports."""
    promote = {"alias": "champion", "metric": "accuracy"}
    job_id = trainer.submit(train=train, model="contest", promote=promote, **fields)
    output = trainer.succeeded(job_id).job.output
    assert output is not None
    decision: dict[str, Any] = output["promotion"]
    return decision


def test_only_a_better_model_takes_the_alias_and_a_bulk_job_uses_it(trainer: Trainer) -> None:
    first = promotion(trainer, BAD)
    assert first["promoted"]
    assert first["incumbent"] is None
    better = promotion(trainer, GOOD, lora={"r": 4})
    assert better["promoted"]
    assert better["incumbent"] == "contest@1"
    assert better["value"] > better["incumbent_value"] == first["value"]
    worse = promotion(trainer, BAD)
    assert not worse["promoted"]
    assert worse["incumbent"] == "contest@2"
    assert worse["value"] < worse["incumbent_value"] == better["value"]
    assert f"{worse['value']:.6g}" in worse["reason"]
    assert f"{worse['incumbent_value']:.6g}" in worse["reason"]

    installation = trainer.installation
    installation.start_role("pool")
    rows = labelled(60)
    job_id = installation.submit(jsonl(rows), model="contest@champion")
    view = installation.wait(job_id)
    assert view.job.state is JobState.SUCCEEDED, trainer.logs()
    assert view.job.model_pinned == "contest@2"
    answers = [row["label"] for row in installation.results(job_id)]
    correct = sum(answer == label for answer, (_, label) in zip(answers, rows, strict=True))
    assert correct > 40
