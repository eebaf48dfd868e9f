"""One program of a rank, from its start to its end: told, logged, stopped, or found hung."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from jobs.decisions.run_verdict import Outcome
from workers.context import Context
from workers.gang.checkpoint_upload import Uploader, Written
from workers.gang.program import Program, Told
from workers.gang.rank_lease import Attendance
from workers.gang.reporter import Report

TICK = 0.1

UNUSABLE = "checkpoint_unusable"
"""The code of a rank that could not go on from its checkpoint."""


@dataclass(frozen=True)
class Ending:
    """How a program ended."""

    outcome: Outcome
    exit_code: int | None = None
    code: str | None = None
    error: str | None = None


class Unfinished(Exception):
    """A program of a rank ended in another way than well."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.outcome)
        self.ending = ending


class Watch:
    """Watches a program. ``uploader`` takes its checkpoints; without one it makes none."""

    def __init__(
        self,
        program: Program,
        attendance: Attendance,
        *,
        folder: Path,
        report: Report,
        uploader: Uploader | None,
        context: Context,
    ) -> None:
        self._program = program
        self._attendance = attendance
        self._folder = folder
        self._report = report
        self._uploader = uploader
        self._settings = context.settings
        self._fault: Told | None = None
        self._progress_at = time.monotonic()
        self._kill_at: float | None = None
        self._stopped = False
        self._unusable: str | None = None

    def run(self) -> Ending:
        """Return when the program has ended. Raises ``LeaseLost``, with the program killed."""
        try:
            while (ending := self._look()) is None:
                time.sleep(TICK)
        finally:
            self._program.kill()
            self._listen()
            self._report.write(now=True)
        return ending

    def _look(self) -> Ending | None:
        code = self._program.ended()
        self._listen()
        self._report.write()
        if code is not None:
            return self._ending(code)
        self._attendance.beat()
        if self._attendance.orders.stop == "now" or self._is_past_grace():
            return Ending(Outcome.ENDED, error=self._attendance.orders.stop_reason)
        if self._attendance.orders.stop == "checkpoint" and self._kill_at is None:
            if self._uploader is None:
                return Ending(Outcome.STOPPED)
            (self._folder / "stop").touch()
            self._kill_at = time.monotonic() + self._settings.train_grace_seconds
        silent = time.monotonic() - self._progress_at
        if silent > self._settings.train_stall_seconds:
            return Ending(Outcome.STALLED, error=self._tail())
        return None

    def _listen(self) -> None:
        self._report.log(self._program.log_lines())
        facts = self._program.told()
        self._report.take(facts)
        for fact in facts:
            self._progress_at = time.monotonic()
            self._attendance.progress()
            match fact["type"]:
                case "phase":
                    self._attendance.phase = str(fact["phase"])
                case "fault":
                    self._fault = fact
                case "unusable":
                    self._unusable = str(fact["reason"])
                case "stopped":
                    self._stopped = True
                case "checkpoint" if self._uploader is not None:
                    self._uploader.add(_written(fact, self._folder))

    def _ending(self, code: int) -> Ending:
        if self._fault is not None:
            words = str(self._fault["message"])
            return Ending(Outcome.FAULT, code, code=str(self._fault["code"]), error=words)
        if self._unusable is not None:
            return Ending(Outcome.UNREADY, code, code=UNUSABLE, error=self._unusable)
        if code == 0:
            return Ending(Outcome.DONE, code)
        if self._stopped:  # told, because a launcher reports any failure of its processes as 1
            return Ending(Outcome.STOPPED, code)
        return Ending(Outcome.CRASHED, code, error=self._tail())

    def _is_past_grace(self) -> bool:
        return self._kill_at is not None and time.monotonic() > self._kill_at

    def _tail(self) -> str:
        return "\n".join(self._program.tail)


def _written(fact: Told, folder: Path) -> Written:
    return Written(
        step=int(fact["step"]),
        folder=folder / "checkpoints" / str(fact["folder"]),
        metric=fact.get("metric"),
        best=bool(fact.get("best")),
    )
