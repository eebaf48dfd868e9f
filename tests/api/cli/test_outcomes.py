"""How a job ended, as exit codes and JSON tell it apart."""

from __future__ import annotations

from typing import Any

import pytest

from api.cli import outcomes
from api.cli.failures import Failure
from api.cli.outcomes import Outcome

LOST = {"promoted": False, "reason": "accuracy 0.8 of news@4 does not beat 0.9 of news@3"}


def job(state: str = "succeeded", **facts: Any) -> dict[str, Any]:
    return {
        "id": "job_1",
        "state": state,
        "error": None,
        "training": None,
        "rows": {"total": 8},
        "output": None,
        **facts,
    }


def error(code: str) -> dict[str, str]:
    return {"code": code, "message": "in words"}


@pytest.mark.parametrize(
    ("ended", "outcome", "code"),
    [
        (job(), Outcome.SUCCEEDED, 0),
        (job(training={}, output={"promotion": None}), Outcome.SUCCEEDED, 0),
        (job(training={}, output={"promotion": {"promoted": True}}), Outcome.SUCCEEDED, 0),
        (job(training={}, output={"model": "news@4", "promotion": LOST}), Outcome.NOT_PROMOTED, 4),
        (job("failed", error=error("corpus_empty")), Outcome.EMPTY, 5),
        (job(rows={"total": 0}), Outcome.EMPTY, 5),
        (job("failed", error=error("model_missing")), Outcome.FAILED, 1),
        (job("cancelled"), Outcome.CANCELLED, 1),
        (job("expired"), Outcome.EXPIRED, 1),
        (job("running"), None, 1),
    ],
)
def test_each_ending_has_its_word_and_its_exit_code(
    ended: dict[str, Any], outcome: Outcome | None, code: int
) -> None:
    assert outcomes.told(ended)["outcome"] == outcome
    if code == 0:
        outcomes.check(ended)
        return
    with pytest.raises(Failure) as caught:
        outcomes.check(ended)
    assert caught.value.code == code


def test_what_was_not_promoted_says_why() -> None:
    with pytest.raises(Failure, match=r"^news@4 was not promoted: accuracy 0\.8 of news@4 does"):
        outcomes.check(job(training={}, output={"model": "news@4", "promotion": LOST}))
