"""What becomes of a chunk whose worker died: again, split, or condemned; or its job fails."""

from __future__ import annotations

from enum import StrEnum

DEATHS = 2
"""Workers that a chunk may kill before it is cut in two."""


class Verdict(StrEnum):
    """What to do with a chunk whose worker died."""

    AGAIN = "again"
    SPLIT = "split"
    CONDEMN = "condemn"
    FAIL = "fail"  # the job: the model ended its workers before the first row


class Phase(StrEnum):
    """What a worker does with a model before the first row."""

    LOAD = "load"
    TEMPLATE = "template"  # a first text through the chat template
    TOKENIZER = "tokenizer"  # a first text through the tokenizer


def judge(*, rows: int, crashes: int) -> Verdict:
    """The verdict on a chunk of ``rows`` rows after its ``crashes``-th worker died.

    A half inherits one crash, so that a deadly row among n costs about ``log2 n + 2`` workers and
    not twice as many; a single row starts afresh and must kill two on its own account.
    """
    if crashes < DEATHS:
        return Verdict.AGAIN
    return Verdict.SPLIT if rows > 1 else Verdict.CONDEMN


def judge_load(phase: Phase, *, crashes: int) -> Verdict:
    """The verdict on a chunk whose worker died in this phase, for the ``crashes``-th time.

    A first text takes no time and no memory, so that its end is no chance. Loading depends on the
    machine: a second try is made.
    """
    sure = phase is not Phase.LOAD
    return Verdict.FAIL if sure or crashes >= DEATHS else Verdict.AGAIN


def load_failure(phase: Phase, *, timed_out: bool, reason: str) -> tuple[str, str]:
    """The code and message of a job whose model ended its workers in this phase."""
    what = {
        Phase.LOAD: "loading the model",
        Phase.TEMPLATE: "a first text in the model's chat template",
        Phase.TOKENIZER: "a first text through the model's tokenizer",
    }[phase]
    if timed_out:
        code = "model_load_timeout" if phase is Phase.LOAD else f"{phase}_timeout"
        return code, f"{what} came to no end within its time limit: {reason}"
    return "model_ends_worker", f"{what} ended the worker's process: {reason}"


def inherited(*, rows: int) -> int:
    """The crashes that a half of ``rows`` rows starts with."""
    return DEATHS - 1 if rows > 1 else 0


def halves(*, first_row: int, rows: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Two ranges ``(first_row, rows)`` that together are exactly the one given."""
    left = rows // 2
    return (first_row, left), (first_row + left, rows - left)
