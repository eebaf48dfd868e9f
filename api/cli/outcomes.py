"""How a job that was watched ended, as a script tells it apart: a word in JSON and an exit code."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from api.cli.failures import EMPTY, FAILED, NOT_PROMOTED, Failure
from api.client import FINAL

Job = Mapping[str, Any]

EMPTY_CODES = frozenset({"corpus_empty"})
"""Codes of jobs that had no rows."""


class Outcome(StrEnum):
    """How a job ended."""

    SUCCEEDED = "succeeded"
    NOT_PROMOTED = "not_promoted"  # a fine-tune succeeded, and its alias stayed where it was
    EMPTY = "empty"  # there were no rows, or a job that it needs had none
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


CODES = {Outcome.SUCCEEDED: 0, Outcome.NOT_PROMOTED: NOT_PROMOTED, Outcome.EMPTY: EMPTY}
"""Exit codes that are not those of a failure."""


def of(job: Job) -> Outcome | None:
    """How the job ended; ``None``: it has not."""
    if job["state"] not in FINAL:
        return None
    if job.get("skipped") or (job["error"] or {}).get("code") in EMPTY_CODES:
        return Outcome.EMPTY
    if job["state"] != "succeeded":
        return Outcome(job["state"])
    if job["training"] is None and job["rows"]["total"] == 0:
        return Outcome.EMPTY
    promotion = _promotion(job)
    if promotion is not None and not promotion["promoted"]:
        return Outcome.NOT_PROMOTED
    return Outcome.SUCCEEDED


def told(job: Job) -> dict[str, Any]:
    """The job with its ``outcome``, for JSON."""
    return {**job, "outcome": of(job)}


def check(job: Job) -> None:
    """Raise the ``Failure`` of a job that ended in any other way than it was meant to."""
    outcome = of(job)
    if outcome is Outcome.SUCCEEDED:
        return
    code = FAILED if outcome is None else CODES.get(outcome, FAILED)
    raise Failure(_sentence(job, outcome), code=code)


def ended(state: str) -> str:
    """A final state as it follows the id of a job in a sentence."""
    passive = {"cancelled": "was cancelled", "expired": "passed its deadline"}
    return passive.get(state, state if state in FINAL else f"is {state}")


def _sentence(job: Job, outcome: Outcome | None) -> str:
    promotion = _promotion(job)
    if outcome is Outcome.NOT_PROMOTED and promotion is not None:
        return f"{job['output']['model']} was not promoted: {promotion['reason']}"
    error = job["error"]
    if error:
        return f"{job['id']} {ended(job['state'])}: {error['message']} ({error['code']})"
    if outcome is Outcome.EMPTY:
        return f"{job['id']} " + (
            f"was skipped: {job['skipped']}" if job.get("skipped") else "had no rows"
        )
    return f"{job['id']} {ended(job['state'])}"


def _promotion(job: Job) -> Mapping[str, Any] | None:
    """The decision about an alias; ``None``: none was asked for."""
    found: Mapping[str, Any] | None = (job["output"] or {}).get("promotion")
    return found
