"""One cell: settle, submit, wait for the moment, make the fault, wait for the end, judge."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

from benchmarks.fault_matrix import faults, timeline, works
from benchmarks.fault_matrix.cells import HOSTS, PLANNERS, SERVERS, Cell, Target, Work
from benchmarks.fault_matrix.stage import NotInTime, Stage
from benchmarks.fault_matrix.timeline import Watch
from benchmarks.fault_matrix.works import Outcome
from jobs.ledger import controls
from tests.support.installation import PROJECT

MOMENT_SECONDS = 90.0
"""How long a moment may take to come; the programs that train take seconds to start."""

END_SECONDS = 150.0
"""How long the job may take to end after the fault."""

FIRST_HOST = "alpha"
"""Control gives a run to the first idle host by name."""

TRAPS: dict[Target, tuple[bytes, int]] = {
    Target.PLANNING: (rb"(PUT|POST) \S*/(shards/000001|data/train-000000)-", 1),
    Target.FINALIZING: (rb"(PUT|POST) \S*/output/", 1),
    Target.WORKER: (rb"(PUT|POST) \S*/parts/", works.CHUNKS_BEFORE),
    Target.HOST_FORMING: (rb"(GET|HEAD) \S*/data/", 1),
    Target.HOST_UPLOADING: (rb"(PUT|POST) \S*/checkpoints/0*100-", 1),
}
"""The request to the object store in which a fault is made, and which of them it is."""

SERVER_NAMES = {Target.VALKEY: "valkey", Target.POSTGRES: "postgres", Target.STORE: "store"}

Record = dict[str, Any]


class Runner:
    """Runs cells on one stage."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._job = works.job_of(stage)
        self._undisturbed: Outcome | None = None

    def undisturbed(self) -> Record:
        """Run the job without a fault; of bulk jobs the second, whose worker has its model."""
        for _ in range(2 if self._stage.work is Work.BULK else 1):
            self._stage.settle()
            began = time.monotonic()
            with self._watched(self._job.submit()) as watch:
                self._end(watch)
                job_id = watch.job_id
        seconds = time.monotonic() - began
        self._undisturbed = outcome = self._job.outcome(job_id, None)
        if outcome.problems:
            raise NotInTime(f"the undisturbed job: {outcome.problems}")
        return {
            **_now(),
            "seconds": round(seconds, 2),
            "pause_seconds": round(timeline.pause(watch.samples, since=began), 2),
        }

    def cell(self, cell: Cell) -> Record:
        """Run one cell; its record."""
        assert self._undisturbed is not None
        self._stage.settle()
        record: Record = {**_now(), "fault_seconds": cell.seconds}
        with contextlib.ExitStack() as stack:
            watch, began, over = self._disturbed(cell, stack)
            try:
                self._end(watch)
            except NotInTime as late:
                self._cancel(watch.job_id)
                return {**record, "holds": False, "problems": [str(late)], "waste": {}}
        samples = watch.samples
        recovery = timeline.recovery(samples, since=over)
        outcome = self._job.outcome(watch.job_id, cell)
        judged = works.differences(outcome, self._undisturbed)
        try:
            self._stage.settle()
        except NotInTime as late:
            judged |= {"holds": False, "problems": [*judged["problems"], f"afterwards: {late}"]}
        return {
            **record,
            "recovery_seconds": None if recovery is None else round(recovery, 2),
            "pause_seconds": round(timeline.pause(samples, since=began), 2),
            "seconds_to_the_end": round(max(0.0, samples[-1].at - over), 2),
            **judged,
        }

    def _disturbed(self, cell: Cell, stack: contextlib.ExitStack) -> tuple[Watch, float, float]:
        """The job after the fault; when the fault began and was over."""
        if cell.target is Target.HOST_IDLE:
            began = over = time.monotonic()
            with self._fault(cell):
                watch = stack.enter_context(self._watched(self._job.submit()))
                self._stage.pass_time(began + cell.seconds - time.monotonic())
                over = time.monotonic() if cell.seconds else began
            return watch, began, over
        trap = TRAPS.get(cell.target)
        link = self._stage.units[self._unit_name(cell)].links["store"] if trap else None
        with link.trap(trap[0], count=trap[1]) if link and trap else _no_trap() as held:
            watch = stack.enter_context(self._watched(self._job.submit()))
            moment = held.sprung.is_set if held else self._moment(cell, watch)
            self._stage.wait(moment, seconds=MOMENT_SECONDS, what="the moment of the fault")
            if watch.ended:
                raise NotInTime("the job ended before the fault")
            began = over = time.monotonic()
            with self._fault(cell):
                if held:
                    held.release()
                self._stage.pass_time(cell.seconds)
                over = time.monotonic() if cell.seconds else began
        return watch, began, over

    def _fault(self, cell: Cell) -> AbstractContextManager[None]:
        if cell.target in SERVERS:
            return faults.of_server(self._stage, SERVER_NAMES[cell.target], cell.fault)
        return faults.of_process(self._stage.units[self._unit_name(cell)], cell.fault)

    def _unit_name(self, cell: Cell) -> str:
        if cell.target is Target.LEADER:
            return self._stage.leader().name
        if cell.target in PLANNERS:
            return "planner"
        return FIRST_HOST if cell.target in HOSTS else "worker"

    def _moment(self, cell: Cell, watch: Watch) -> Callable[[], bool]:
        """Whether the moment has come, of targets without a trap."""

        def running() -> bool:
            return watch.reached(chunks=self._job.chunks_before, steps=self._job.steps_before)

        if cell.target is not Target.HOST_DRAINING:
            return running
        self._stage.wait(running, seconds=MOMENT_SECONDS, what="the run is under way")
        unit = self._stage.units[FIRST_HOST]
        unit.process.send(signal.SIGTERM)
        return lambda: bool(
            self._stage.ask("SELECT 1 FROM hosts WHERE draining AND name = %s", unit.name)
        )

    @contextlib.contextmanager
    def _watched(self, job_id: str) -> Iterator[Watch]:
        watch = Watch(self._stage.database_url, job_id)
        try:
            yield watch
        finally:
            watch.close()

    def _end(self, watch: Watch) -> None:
        self._stage.wait(lambda: watch.ended, seconds=END_SECONDS, what="the end of the job")

    def _cancel(self, job_id: str) -> None:
        with self._stage.installation.sessions.begin() as session:
            controls.cancel(session, job_id, project_id=PROJECT)


@contextlib.contextmanager
def _no_trap() -> Iterator[None]:
    yield


def _now() -> Record:
    """When, and how busy the machine was: the mean of the last minute."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return {"at": at, "load": round(os.getloadavg()[0], 1)}
