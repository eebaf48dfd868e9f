"""Monitoring of one program of a rank: reads its messages and log, stops it, detects a stall."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from jobs.decisions.run_verdict import RankOutcome
from jobs.errors import ControlFlow
from workers.context import Context
from workers.gang.checkpoint_upload import CheckpointUploader, WrittenCheckpoint
from workers.gang.program import Message, Program
from workers.gang.rank_lease import HeldRank
from workers.gang.reporter import Reporter

POLL_SECONDS = 0.1

UNUSABLE = "checkpoint_unusable"
"""The code of a rank that could not resume from its checkpoint."""


@dataclass(frozen=True)
class RankEnding:
    """How a rank, or one of its programs, ended."""

    outcome: RankOutcome
    exit_code: int | None = None
    code: str | None = None
    error: str | None = None


class ProgramUnfinished(ControlFlow):
    """A program of a rank failed, stalled or was stopped."""

    def __init__(self, ending: RankEnding) -> None:
        super().__init__(ending.outcome)
        self.ending = ending


class ProgramMonitor:
    """Monitors one program. ``uploader`` takes its checkpoints; ``None``: it writes none."""

    def __init__(
        self,
        program: Program,
        held: HeldRank,
        *,
        folder: Path,
        reporter: Reporter,
        uploader: CheckpointUploader | None,
        context: Context,
    ) -> None:
        self._program = program
        self._held = held
        self._folder = folder
        self._reporter = reporter
        self._uploader = uploader
        self._settings = context.settings
        self._fault: Message | None = None
        self._progress_at = time.monotonic()
        self._kill_at: float | None = None
        self._stopped = False
        self._unusable: str | None = None

    def run(self) -> RankEnding:
        """Return when the program has ended. Raises ``LeaseLost`` once the program is killed."""
        try:
            while (ending := self._poll()) is None:
                time.sleep(POLL_SECONDS)
        finally:
            self._program.kill()
            self._read_messages()
            self._reporter.write(now=True)
        return ending

    def _poll(self) -> RankEnding | None:
        code = self._program.ended()
        self._read_messages()
        self._reporter.write()
        if code is not None:
            return self._ending(code)
        self._held.beat()
        if self._held.orders.stop == "now" or self._is_past_grace():
            return RankEnding(RankOutcome.ABORTED, error=self._held.orders.stop_reason)
        if self._held.orders.stop == "checkpoint" and self._kill_at is None:
            if self._uploader is None:
                return RankEnding(RankOutcome.STOPPED)
            (self._folder / "stop").touch()
            self._kill_at = time.monotonic() + self._settings.train_grace_seconds
        silent_seconds = time.monotonic() - self._progress_at
        if silent_seconds > self._settings.train_stall_seconds:
            return RankEnding(RankOutcome.STALLED, error=self._tail())
        return None

    def _read_messages(self) -> None:
        self._reporter.log(self._program.log_lines())
        messages = self._program.messages()
        self._reporter.take(messages)
        for message in messages:
            self._progress_at = time.monotonic()
            self._held.progress()
            match message["type"]:
                case "phase":
                    self._held.phase = str(message["phase"])
                case "fault":
                    self._fault = message
                case "unusable":
                    self._unusable = str(message["reason"])
                case "stopped":
                    self._stopped = True
                case "checkpoint" if self._uploader is not None:
                    self._uploader.add(_checkpoint(message, self._folder))

    def _ending(self, code: int) -> RankEnding:
        if self._fault is not None:
            text = str(self._fault["message"])
            return RankEnding(RankOutcome.FAULT, code, code=str(self._fault["code"]), error=text)
        if self._unusable is not None:
            return RankEnding(RankOutcome.UNREADY, code, code=UNUSABLE, error=self._unusable)
        if code == 0:
            return RankEnding(RankOutcome.DONE, code)
        if self._stopped:  # by message, because a launcher reports every failure as exit code 1
            return RankEnding(RankOutcome.STOPPED, code)
        return RankEnding(RankOutcome.CRASHED, code, error=self._tail())

    def _is_past_grace(self) -> bool:
        return self._kill_at is not None and time.monotonic() > self._kill_at

    def _tail(self) -> str:
        return "\n".join(self._program.tail)


def _checkpoint(message: Message, folder: Path) -> WrittenCheckpoint:
    return WrittenCheckpoint(
        step=int(message["step"]),
        folder=folder / "checkpoints" / str(message["folder"]),
        metric=message.get("metric"),
        best=bool(message.get("best")),
    )
