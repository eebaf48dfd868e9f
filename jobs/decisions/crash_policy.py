"""What happens to a chunk whose worker died: retry, split, condemn, or fail its job.

A condemned chunk is a single row that kills its workers (a poison row): it becomes an error row.
"""

from __future__ import annotations

from enum import StrEnum

MAX_DEATHS = 2
"""Workers that a chunk may kill before it is split."""


class CrashVerdict(StrEnum):
    """What to do with a chunk whose worker died; the values are stored in events."""

    RETRY = "again"
    SPLIT = "split"
    CONDEMN = "condemn"
    FAIL_JOB = "fail"  # the model killed its workers before the first row


class Phase(StrEnum):
    """What a worker does with a model before the first row."""

    LOAD = "load"
    TEMPLATE = "template"  # a first text through the chat template
    TOKENIZER = "tokenizer"  # a first text through the tokenizer


def judge(*, rows: int, crashes: int) -> CrashVerdict:
    """The verdict on a chunk of ``rows`` rows after its ``crashes``-th worker died.

    A half inherits one crash, so that finding a poison row among n costs at most ``log2 n + 3``
    workers and not twice as many. A single row inherits none: it must kill two workers itself.
    """
    if crashes < MAX_DEATHS:
        return CrashVerdict.RETRY
    return CrashVerdict.SPLIT if rows > 1 else CrashVerdict.CONDEMN


def judge_load(phase: Phase, *, crashes: int) -> CrashVerdict:
    """The verdict on a chunk whose worker died in this phase, for the ``crashes``-th time.

    A first text needs hardly any time or memory, so a death there is no accident. Loading depends
    on the machine and gets a second try.
    """
    is_certain = phase is not Phase.LOAD
    return CrashVerdict.FAIL_JOB if is_certain or crashes >= MAX_DEATHS else CrashVerdict.RETRY


def load_failure(phase: Phase, *, timed_out: bool, reason: str) -> tuple[str, str]:
    """The code and message of a job whose model killed its workers in this phase."""
    activity = {
        Phase.LOAD: "loading the model",
        Phase.TEMPLATE: "a first text in the model's chat template",
        Phase.TOKENIZER: "a first text through the model's tokenizer",
    }[phase]
    if timed_out:
        code = "model_load_timeout" if phase is Phase.LOAD else f"{phase}_timeout"
        return code, f"{activity} did not finish within its time limit: {reason}"
    return "model_ends_worker", f"{activity} ended the worker's process: {reason}"


def went_silent(owner: str) -> str:
    """Why a crash is counted against a chunk whose lease ran out."""
    return f"its worker {owner} went silent"


def came_back(owner: str) -> str:
    """Why that crash is taken back."""
    return f"its worker {owner} went silent and came back"


def inherited_crashes(*, rows: int) -> int:
    """The crashes that a half of ``rows`` rows starts with."""
    return MAX_DEATHS - 1 if rows > 1 else 0


def halves(*, first_row: int, rows: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Two ranges ``(first_row, rows)`` that together are exactly the given one."""
    left = rows // 2
    return (first_row, left), (first_row + left, rows - left)
