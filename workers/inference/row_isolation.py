"""Which exceptions are a row's fault: those of a batch are traced to its rows, within one lease.

Keeps promise P4: a row for which the model or its tokenizer raises becomes an error row with the
code ``row_failed``. Where all rows raise alike the fault is the model's, and ends the job.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from jobs.corpora.batches import clipped
from jobs.decisions import faults
from jobs.decisions.faults import Blame, Stage
from jobs.errors import ControlFlow, ModelFailure, NightshiftError

MIN_EQUAL_ERRORS = 16
"""Rows that may raise the same error, each alone, before the fault can be the model's."""

MIN_SUCCEEDED_RATIO = 20
"""Then it is the model's, unless at least one row in this many succeeded."""

DEVICE_ERRORS = ("CUDA error", "HIP error", "device-side assert", "illegal memory access")
"""In the messages of exceptions after which the process cannot use its accelerator."""


class DeviceFailed(ControlFlow):
    """The accelerator's context is lost: only a new process can use the device again."""


def check(error: BaseException) -> None:
    """Return if the exception may be a row's fault; otherwise raise it, or ``DeviceFailed``.

    Libraries raise more than ``Exception``: a panic in Rust derives from ``BaseException``, and a
    template may call ``exit``. A ``SystemExit`` with a negative code comes from a signal. An
    exception with the attribute ``ends_work`` ends the work and is not a fault.
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
    """The exception in one line: its type, and the first line of its message."""
    lines = str(error).strip().splitlines()
    name = type(error).__name__
    return clipped(f"{name}: {lines[0].strip()}" if lines else name)


def ends_work(beat: Callable[[], None]) -> Callable[[], None]:
    """``beat``, with its exceptions marked so that they end the work through any library."""

    def marked() -> None:
        try:
            beat()
        except BaseException as error:
            error.ends_work = True  # type: ignore[attr-defined]
            raise

    return marked


class FaultTally:
    """Counts rows that succeeded and rows that raised alone, since the model was loaded."""

    def __init__(self, who: str) -> None:
        """``who`` raises, as error messages name it."""
        self._who = who
        self._succeeded = 0
        self._raised: Counter[str] = Counter()

    def succeeded(self, rows: int) -> None:
        """Count rows that have a result."""
        self._succeeded += rows

    def raised(self, why: str) -> str:
        """The error message of a row that raised alone. Raises ``ModelFailure`` if all rows do."""
        kind = re.sub(r"\d+", "0", why)
        self._raised[kind] += 1
        count = self._raised[kind]
        if count >= MIN_EQUAL_ERRORS and self._succeeded * MIN_SUCCEEDED_RATIO < count:
            raise ModelFailure(
                f"{self._who} raises the same for {count} of {count + self._succeeded} rows, "
                f"each alone: {why}",
                code="model_raises",
            )
        return f"{self._who} raises for this row: {why}"
