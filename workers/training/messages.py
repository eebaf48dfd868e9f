"""What a training process tells its host's agent: one JSON object a line, in a file of its own.

Its types: ``phase``, ``progress``, ``points``, ``checkpoint``, ``fault``, ``stopped``, ``done``.
A line is written whole and at once, so that a reader never sees half a word of the last but one.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path

from jobs.errors import NightshiftError

SECONDS_BETWEEN = 0.5
"""Progress more often than this is left out."""


class Teller:
    """Appends to ``told/<name>.jsonl``."""

    def __init__(self, folder: Path, *, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._file = os.open(folder / f"{name}.jsonl", flags, 0o644)
        self._at = -math.inf
        self.step = 0
        self.steps_total: int | None = None

    def phase(self, phase: str) -> None:
        """Loading, tokenizing, training, evaluating or saving."""
        self._tell({"type": "phase", "phase": phase})

    def alive(self) -> None:
        """A sign of life: the step that the process is at, twice a second at most."""
        if time.monotonic() - self._at < SECONDS_BETWEEN:
            return
        self._at = time.monotonic()
        self._tell({"type": "progress", "step": self.step, "steps_total": self.steps_total})

    def points(self, values: Mapping[str, float]) -> None:
        """Numbers of the curve at this step; those that are not finite are left out."""
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        self._tell({"type": "points", "step": self.step, "values": finite})

    def checkpoint(self, folder: str, *, metric: float | None, best: bool) -> None:
        """A checkpoint's files of this host are complete under its name."""
        told = {"type": "checkpoint", "step": self.step, "folder": folder}
        self._tell(told | {"metric": metric, "best": best})

    def fault(self, error: NightshiftError) -> None:
        """The job itself is at fault: trying again would not help."""
        self._tell({"type": "fault", "code": error.code, "message": error.message})

    def unusable(self, reason: str) -> None:
        """The checkpoint in ``resume`` cannot be gone on from: another one must be taken."""
        self._tell({"type": "unusable", "reason": reason})

    def stopped(self) -> None:
        """It ends on request, after a checkpoint. Launchers hide the exit code, this line stays."""
        self._tell({"type": "stopped", "step": self.step})

    def done(self) -> None:
        """The result and its report are written."""
        self._tell({"type": "done"})

    def _tell(self, told: Mapping[str, object]) -> None:
        os.write(self._file, (json.dumps(told, ensure_ascii=False) + "\n").encode())
