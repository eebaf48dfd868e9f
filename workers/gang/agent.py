"""One rank of one run: claim, prepare, meet the others, train, finish, and say how it ended.

Whose fault it is decides what follows (``jobs.decisions.faults``): the job's own (data, base,
recipe) fails the job; anything else ends this rank, and control judges the run from all its ranks
together (``jobs.decisions.run_verdict``).
"""

from __future__ import annotations

import json
import shutil
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from jobs import database
from jobs.decisions import faults
from jobs.decisions.faults import Blame, Stage
from jobs.decisions.run_verdict import Outcome
from jobs.kinds import FinetuneSpec
from jobs.ledger import checkpoints, ranks
from jobs.ledger.ranks import READY, RankLease
from workers.context import Context
from workers.gang import host, publish, workfolder
from workers.gang.checkpoint_upload import Uploader
from workers.gang.monitor import UNUSABLE, Ending, Unfinished, Watch
from workers.gang.program import HOST, INCARNATION, Program
from workers.gang.rank_lease import Attendance, Stopped
from workers.gang.reporter import Report
from workers.step_lease import ENDINGS
from workers.threads import OPENMP
from workers.training import launch

log = structlog.get_logger()

PATIENCE = 20.0
TICK = 0.1
FINISHING = "finishing"

OUTCOMES = {
    Blame.JOB: Outcome.FAULT,
    Blame.ENGINE: Outcome.CRASHED,
    Blame.TRANSIENT: Outcome.UNREADY,
    Blame.LEASE: Outcome.ENDED,
}
"""How a rank ends that raised an exception, by whose fault it is."""


def run(run_id: str, rank: int, *, incarnation: str, context: Context) -> str:
    """Work as the rank, if it is to be had; what came of it, in words for the log and Flower."""
    held = database.patiently(
        context.sessions,
        lambda s: ranks.claim(
            s, run_id, rank, incarnation=incarnation, lease=context.settings.lease
        ),
        seconds=PATIENCE,
    )
    if held is None:
        return "not to be had"
    log.info("rank begins", job_id=held.job_id, run=held.fence, rank=rank)
    folder = workfolder.make(host.folder(context.settings), run_id=run_id, rank=rank)
    try:
        ending = _ending(held, folder=folder, incarnation=incarnation, context=context)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    log.info("rank ended", job_id=held.job_id, run=held.fence, rank=rank, outcome=ending.outcome)
    return f"{ending.outcome}: {ending.error}" if ending.error else ending.outcome


def _ending(held: RankLease, *, folder: Path, incarnation: str, context: Context) -> Ending:
    with Attendance(held, context=context) as attendance:
        ending = _tried(attendance, folder=folder, incarnation=incarnation, context=context)
        database.patiently(
            context.sessions,
            lambda session: ranks.end_rank(
                session,
                held,
                ending.outcome,
                exit_code=ending.exit_code,
                error_code=ending.code,
                error=ending.error,
            ),
            seconds=PATIENCE,
        )
    return ending


def _tried(attendance: Attendance, *, folder: Path, incarnation: str, context: Context) -> Ending:
    """Every way in which a rank can end, as an ``Ending``."""
    work = _Work(attendance, folder=folder, incarnation=incarnation, context=context)
    try:
        with workfolder.with_base(folder, attendance, context=context):
            work.do()
    except Unfinished as unfinished:
        return unfinished.ending
    except Stopped as stopped:
        return Ending(Outcome.STOPPED, error=stopped.message)
    except ENDINGS:
        raise
    except BaseException as error:  # panics of libraries are no Exceptions
        found = faults.diagnose(error, stage=Stage.HOST)
        if found.blame in {Blame.ENGINE, Blame.TRANSIENT}:
            log.exception("a rank could not do its work", job_id=attendance.held.job_id)
        code = found.code if found.blame is Blame.JOB else None
        return Ending(OUTCOMES[found.blame], code=code, error=found.message)
    return Ending(Outcome.DONE)


@dataclass
class _Work:
    """What one rank does, piece by piece; each raises how it ends when it does not end well."""

    attendance: Attendance
    folder: Path
    incarnation: str
    context: Context

    def __post_init__(self) -> None:
        self.report = Report(self.attendance.held, context=self.context)

    def do(self) -> None:
        """All of it."""
        workfolder.prepare(self.folder, self.attendance, context=self.context)
        if not isinstance(self.attendance.held.spec, FinetuneSpec):
            self.attendance.phase = READY
            publish.finish_evaluation(
                self.folder, self.attendance, evaluate=self.evaluate, context=self.context
            )
            return
        publish.check_name(self.attendance.held, context=self.context)
        self.train(port=self.meet())
        if self.attendance.held.rank == 0:
            self.attendance.phase = FINISHING
            publish.finish_training(
                self.folder, self.attendance, evaluate=self.evaluate, context=self.context
            )

    def meet(self) -> int:
        """Wait until every rank has what it needs; the rendezvous's port, which rank 0 chooses."""
        held = self.attendance.held
        if held.rank == 0:
            port = _free_port()
            with self.context.sessions.begin() as session:
                ranks.choose_port(session, held, port)
        self.attendance.phase = READY
        while not (self.attendance.orders.all_ready and self.attendance.orders.port):
            self.attendance.check()
            time.sleep(TICK)
        return self.attendance.orders.port

    def train(self, *, port: int) -> None:
        """Run the training program to its end, its checkpoints uploaded beside it."""
        held = self.attendance.held
        assert isinstance(held.spec, FinetuneSpec)
        processes = host.processes(self.context.settings)
        recipe = held.spec.train
        command, environment = launch.command(
            machines=held.machines,
            rank=held.rank,
            processes=processes,
            address=held.address,
            port=port,
            mixed_precision=recipe.mixed_precision,
            accelerate=recipe.accelerate,
            run=workfolder.write_run(self.folder, self.attendance, processes=processes),
            cpu=host.accelerators() == 0,
        )
        uploader = Uploader(held, folder=self.folder, context=self.context)
        try:
            ending = self.watch(command, environment, log_name="train.log", uploader=uploader)
            if ending.outcome is Outcome.STOPPED:
                self._store_last(uploader)
        finally:
            uploader.give_up()
        if ending.code == UNUSABLE:
            self._pass_over(ending)
        if ending.outcome is not Outcome.DONE:
            raise Unfinished(ending)

    def evaluate(self, split: str, models: dict[str, Path]) -> dict[str, Any]:
        """Run the evaluate program; a report for each model."""
        order = workfolder.write_evaluation(
            self.folder, self.attendance, split=split, models=models
        )
        command = [sys.executable, "-m", "workers.training.evaluate", str(order)]
        ending = self.watch(command, {}, log_name="evaluate.log", uploader=None)
        if ending.outcome is not Outcome.DONE:
            raise Unfinished(ending)
        found: dict[str, Any] = json.loads((self.folder / "reports.json").read_bytes())
        return found

    def watch(
        self,
        command: list[str],
        environment: dict[str, str],
        *,
        log_name: str,
        uploader: Uploader | None,
    ) -> Ending:
        """Start a program in this rank's name, and stay with it to its end."""
        program = Program(
            command,
            environment={
                **_surroundings(self.context),
                **environment,
                HOST: host.name(self.context.settings),
                INCARNATION: self.incarnation,
            },
            folder=self.folder,
            log=self.folder / log_name,
        )
        return Watch(
            program,
            self.attendance,
            folder=self.folder,
            report=self.report,
            uploader=uploader,
            context=self.context,
        ).run()

    def _pass_over(self, ending: Ending) -> None:
        """The checkpoint's bytes are whole, and yet nobody can go on from it."""
        held = self.attendance.held
        assert held.checkpoint_id is not None
        with self.context.sessions.begin() as session:
            checkpoints.mark_damaged(
                session, held, held.checkpoint_id, reason=ending.error or UNUSABLE
            )

    def _store_last(self, uploader: Uploader) -> None:
        """The checkpoint that was asked for must be stored before the host is given up."""
        end = time.monotonic() + self.context.settings.train_grace_seconds
        while time.monotonic() < end:
            self.attendance.beat()
            if uploader.finish(until=time.monotonic() + TICK):
                return
            if self.attendance.orders.stop == "now":
                return


def _surroundings(context: Context) -> dict[str, str]:
    """Variables of a program: its share of threads, where the settings name one."""
    threads = context.settings.worker_threads
    return {OPENMP: str(threads)} if threads else {}


def _free_port() -> int:
    """A port that is free at this moment on all addresses; a new one for every run."""
    with socket.socket() as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        found.bind(("", 0))
        return int(found.getsockname()[1])
