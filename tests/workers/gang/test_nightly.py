"""Night after night: a fixed label set, the newest rows decide, and losers are deleted."""

from __future__ import annotations

from typing import Any

import pytest

from tests.workers.gang.trainer import Trainer, jsonl, labelled

pytestmark = pytest.mark.long

GOOD = {"epochs": 10, "learning_rate": 3e-3, "evaluate_steps": 100, "checkpoint_steps": 1000}
BAD = {"max_steps": 1, "learning_rate": 1e-6, "evaluate_steps": 1}
GATE = {
    "alias": "champion",
    "metric": "accuracy",
    "newest": 40,
    "min_rows": 40,
    "floors": {"recall_drop": 0.05},
    "keep_rejected": 1,
}


def night(trainer: Trainer, rows: list[tuple[str, str]], train: dict[str, Any]) -> dict[str, Any]:
    """The output of a fine-tune of these rows."""
    spec: dict[str, Any] = {
        "kind": "finetune",
        "model": "nightly",
        "base": str(trainer.installation.model),
        "labels": "nightly@champion",
        "promote": GATE,
        "train": {"batch_rows": 8, **train},
    }
    job_id = trainer.installation.submit(jsonl(rows), **spec)
    output = trainer.succeeded(job_id).job.output
    assert output is not None
    return dict(output)


def test_a_night_without_one_label_trains_and_is_compared(trainer: Trainer) -> None:
    rows = labelled(240)
    first = night(trainer, rows, BAD)["promotion"]
    assert (first["promoted"], first["split"], first["rows"]) == (True, "promotion", 40)

    of_two = [(text, label) for text, label in rows if label != "science"]
    second = night(trainer, of_two, GOOD)["promotion"]
    assert (second["promoted"], second["incumbent"]) == (True, "nightly@1"), second["reason"]
    assert second["floors"]["unchecked"] == ["science"]
    for _ in range(2):
        lost = night(trainer, rows, BAD)["promotion"]
        assert not lost["promoted"]
        assert lost["incumbent"] == "nightly@2"
    listed = trainer.versions("nightly")
    assert [(v.version, v.deleted_at is None) for v in listed] == [
        (1, True),
        (2, True),
        (3, False),
        (4, True),
    ]
    labels = [tuple((version.signature or {})["labels"]) for version in listed]
    assert set(labels) == {("business", "science", "sports")}
