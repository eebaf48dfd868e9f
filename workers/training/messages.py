"""Messages of a training process to its host's agent: one JSON object a line, a file per process.

Types: ``phase``, ``progress``, ``points``, ``checkpoint``, ``fault``, ``unusable``, ``stopped``,
``done``. Each line is one write, so that a reader sees at most one incomplete line, the last.
``workers.gang.program`` reads them.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path

from jobs.errors import NightshiftError

HEARTBEAT_SECONDS = 0.5
"""Time between two heartbeats at least; more frequent ones are dropped."""


class MessageWriter:
    """Appends to ``<name>.jsonl`` in the folder."""

    def __init__(self, folder: Path, *, name: str, has_steps: bool = True) -> None:
        """``has_steps``: the program trains; one that only evaluates has rows and no steps."""
        self.has_steps = has_steps
        folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._file = os.open(folder / f"{name}.jsonl", flags, 0o644)
        self._heartbeat_at = -math.inf
        self.step = 0
        self.steps_total: int | None = None
        self._evaluated: tuple[int, int] | None = None

    def phase(self, phase: str) -> None:
        """The phase: loading, tokenizing, training, evaluating or saving."""
        self._write({"type": "phase", "phase": phase})

    def heartbeat(self) -> None:
        """The current step, and the rows of an evaluation under way, at most twice a second."""
        if time.monotonic() - self._heartbeat_at >= HEARTBEAT_SECONDS:
            self._progress()

    def evaluated(self, rows: int, *, total: int) -> None:
        """``rows`` of an evaluation's ``total`` rows are done."""
        first_or_last = rows in {0, total} and self._evaluated != (rows, total)
        self._evaluated = (rows, total)
        if first_or_last:
            self._progress()
        else:
            self.heartbeat()

    def points(self, values: Mapping[str, float]) -> None:
        """Values of metrics at this step; those that are not finite are left out."""
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        self._write({"type": "points", "step": self.step, "values": finite})

    def checkpoint(self, folder: str, *, metric: float | None, best: bool) -> None:
        """The files of a checkpoint are complete on this host, in the named folder."""
        message = {"type": "checkpoint", "step": self.step, "folder": folder}
        self._write(message | {"metric": metric, "best": best})

    def fault(self, error: NightshiftError) -> None:
        """The job itself is at fault: another run would fail too."""
        self._write({"type": "fault", "code": error.code, "message": error.message})

    def unusable(self, reason: str) -> None:
        """No run can resume from the checkpoint in ``resume``."""
        self._write({"type": "unusable", "reason": reason})

    def stopped(self) -> None:
        """The process stops on request, after a checkpoint. A launcher hides its exit code."""
        self._write({"type": "stopped", "step": self.step})

    def done(self) -> None:
        """The result and its report are complete."""
        self._write({"type": "done"})

    def _progress(self) -> None:
        self._heartbeat_at = time.monotonic()
        message: dict[str, object] = {"type": "progress"}
        if self.has_steps:
            message |= {"step": self.step, "steps_total": self.steps_total}
        if self._evaluated is not None:
            message["rows"], message["rows_total"] = self._evaluated
        self._write(message)

    def _write(self, message: Mapping[str, object]) -> None:
        os.write(self._file, (json.dumps(message, ensure_ascii=False) + "\n").encode())
