"""Which exceptions are a row's: those of a batch are traced to its rows, within one lease.

Keeps promise P4: a row that makes the model or its tokenizer raise becomes an error row with the
code ``row_failed``. Where all rows raise alike the fault is the model's, and ends the job.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from jobs.corpora.batches import clipped
from jobs.decisions import faults
from jobs.decisions.faults import Blame, Stage
from jobs.errors import ModelFailure, NightshiftError

ALIKE = 16
"""Rows that may raise the same, each alone, before the fault can be the model's."""

SHARE = 20
"""It is, unless at least one row in this many was answered."""

DEVICE_ERRORS = ("CUDA error", "HIP error", "device-side assert", "illegal memory access")
"""In the messages of exceptions after which the process cannot use its accelerator any more."""


class DeviceFailed(Exception):
    """The accelerator's context is void: only a new process can use the device again."""


def check(error: BaseException) -> None:
    """Return if the exception may be a row's fault; raise it, or ``DeviceFailed``, if it cannot.

    Libraries raise more than ``Exception``: a panic in Rust derives from ``BaseException``, and a
    template may call ``exit``. A ``SystemExit`` below zero is that of a signal. What has an
    attribute ``ends_work`` is nobody's fault and ends the work.
    """
    if isinstance(error, NightshiftError | KeyboardInterrupt | GeneratorExit | DeviceFailed):
        raise error
    if isinstance(error, SystemExit) and isinstance(error.code, int) and error.code < 0:
        raise error
    if getattr(error, "ends_work", False):
        raise error
    if is_of_device(error):
        raise DeviceFailed(reason(error)) from error
    if faults.diagnose(error, stage=Stage.ROW).blame is not Blame.ROW:
        raise error


def is_of_device(error: BaseException) -> bool:
    """Whether the exception leaves this process without its accelerator."""
    return isinstance(error, RuntimeError) and any(part in str(error) for part in DEVICE_ERRORS)


def reason(error: BaseException) -> str:
    """The exception in a line: its type, and the first line of its message."""
    lines = str(error).strip().splitlines()
    name = type(error).__name__
    return clipped(f"{name}: {lines[0].strip()}" if lines else name)


def ending(beat: Callable[[], None]) -> Callable[[], None]:
    """``beat``, whose exceptions end the work also where they come out of a library."""

    def marked() -> None:
        try:
            beat()
        except BaseException as error:
            error.ends_work = True  # type: ignore[attr-defined]
            raise

    return marked


class Tally:
    """Rows that were answered and rows that raised, each alone, since the model was loaded."""

    def __init__(self, who: str) -> None:
        """``who`` raises, as messages name it."""
        self._who = who
        self._answered = 0
        self._raised: Counter[str] = Counter()

    def answered(self, rows: int) -> None:
        """So many rows have an answer."""
        self._answered += rows

    def raised(self, why: str) -> str:
        """A row raised alone: the message of its error. Raises ``ModelFailure`` if all do so."""
        kind = re.sub(r"\d+", "0", why)
        self._raised[kind] += 1
        count = self._raised[kind]
        if count >= ALIKE and self._answered * SHARE < count:
            raise ModelFailure(
                f"{self._who} raises the same for {count} of {count + self._answered} rows, "
                f"each alone: {why}",
                code="model_raises",
            )
        return f"{self._who} raises for this row: {why}"
