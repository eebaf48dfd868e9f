"""One rank of one run: claim, prepare, rendezvous, train, publish, and record the outcome.

``jobs.decisions.faults`` classifies each fault. A fault of the job (data, base, recipe) fails the
job. Any other fault ends this rank, and control decides about the run from the outcomes of all its
ranks (``jobs.decisions.run_verdict``).
"""

from __future__ import annotations

import json
import shutil
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

import structlog

from jobs import database
from jobs.decisions import faults
from jobs.decisions.faults import Blame, Stage
from jobs.decisions.run_verdict import RankOutcome
from jobs.kinds import EvaluateSpec, FinetuneSpec
from jobs.ledger import checkpoints, ranks
from jobs.ledger.ranks import READY, RankLease
from jobs.queries.unclaimed import Unclaimed
from workers import outcomes
from workers.context import Context
from workers.gang import host, publish, step_meter, workfolder
from workers.gang.checkpoint_upload import CheckpointUploader
from workers.gang.monitor import UNUSABLE, ProgramMonitor, ProgramUnfinished, RankEnding
from workers.gang.program import HOST, INCARNATION, INSTALLATION, Program
from workers.gang.rank_lease import HeldRank, RunStopped
from workers.gang.reporter import Reporter
from workers.outcomes import Outcome, TaskState
from workers.step_lease import PROCESS_EXITS
from workers.threads import OPENMP
from workers.training import launch

log = structlog.get_logger()

POSTGRES_SECONDS = 20.0
POLL_SECONDS = 0.1
FINISHING = "finishing"

OUTCOME_OF_BLAME = {
    Blame.JOB: RankOutcome.FAULT,
    Blame.ENGINE: RankOutcome.CRASHED,
    Blame.TRANSIENT: RankOutcome.UNREADY,
    Blame.LEASE: RankOutcome.ABORTED,
}
"""The outcome of a rank whose work raised an exception, by whose fault that is."""

TASK_STATE_OF = {
    RankOutcome.DONE: TaskState.DONE,
    RankOutcome.STOPPED: TaskState.STOPPED,
    RankOutcome.ABORTED: TaskState.STOPPED,
    RankOutcome.UNREADY: TaskState.POSTPONED,
}
"""What Celery and Flower show of a rank's task; any other outcome is a failure."""


def run(run_id: str, rank: int, *, incarnation: str, context: Context) -> Outcome:
    """Claim the rank and run it; the outcome is for the log and for Flower."""
    lease = database.patiently(
        context.sessions,
        lambda s: ranks.claim(
            s, run_id, rank, incarnation=incarnation, duration=context.settings.lease_duration
        ),
        seconds=POSTGRES_SECONDS,
    )
    if lease is None:
        return outcomes.unclaimed(
            Unclaimed("the run has ended, or another agent has the rank", superseded=True)
        )
    log.info("rank begins", job_id=lease.job_id, run=lease.fence, rank=rank)
    folder = workfolder.make(host.folder(context), run_id=run_id, rank=rank)
    try:
        ending = _run_and_record(lease, folder=folder, incarnation=incarnation, context=context)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        step_meter.no_run()
    log.info("rank ended", job_id=lease.job_id, run=lease.fence, rank=rank, outcome=ending.outcome)
    words = f"{ending.outcome}: {ending.error}" if ending.error else str(ending.outcome)
    return Outcome(TASK_STATE_OF.get(ending.outcome, TaskState.FAILED), words)


def _run_and_record(
    lease: RankLease, *, folder: Path, incarnation: str, context: Context
) -> RankEnding:
    with HeldRank(lease, context=context) as held:
        ending = _run_rank(held, folder=folder, incarnation=incarnation, context=context)
        database.patiently(
            context.sessions,
            lambda session: ranks.end_rank(
                session,
                lease,
                ending.outcome,
                exit_code=ending.exit_code,
                error_code=ending.code,
                error=ending.error,
            ),
            seconds=POSTGRES_SECONDS,
        )
    return ending


def _run_rank(held: HeldRank, *, folder: Path, incarnation: str, context: Context) -> RankEnding:
    """Run the rank's work; every exception becomes a ``RankEnding``."""
    work = _RankWork(held, folder=folder, incarnation=incarnation, context=context)
    try:
        with workfolder.with_base(folder, held, context=context):
            work.do()
    except ProgramUnfinished as unfinished:
        return unfinished.ending
    except RunStopped as stopped:
        return RankEnding(RankOutcome.STOPPED, error=stopped.message)
    except PROCESS_EXITS:
        raise
    except BaseException as error:  # a panic of a Rust library is no Exception
        diagnosis = faults.diagnose(error, stage=Stage.HOST)
        if diagnosis.blame in {Blame.ENGINE, Blame.TRANSIENT}:
            log.exception("a rank could not do its work", job_id=held.lease.job_id)
        code = diagnosis.code if diagnosis.blame is Blame.JOB else None
        return RankEnding(OUTCOME_OF_BLAME[diagnosis.blame], code=code, error=diagnosis.message)
    return RankEnding(RankOutcome.DONE)


@dataclass
class _RankWork:
    """The steps of one rank's work. A step that fails raises, and ``_run_rank`` reads the cause."""

    held: HeldRank
    folder: Path
    incarnation: str
    context: Context

    def __post_init__(self) -> None:
        self.reporter = Reporter(self.held.lease, context=self.context)

    def do(self) -> None:
        """Do what the job's spec asks for."""
        workfolder.prepare(self.folder, self.held, context=self.context)
        spec = self.held.lease.spec
        match spec:
            case FinetuneSpec():
                self.finetune(spec)
            case EvaluateSpec():
                self.held.phase = READY
                publish.finish_evaluation(
                    self.folder, self.held, evaluate=self.evaluate, context=self.context
                )
            case _:
                assert_never(spec)

    def finetune(self, spec: FinetuneSpec) -> None:
        """Train with the other ranks; rank 0 then publishes the result."""
        publish.check_name(self.held.lease, spec, context=self.context)
        self.train(spec, port=self.rendezvous())
        if self.held.lease.rank == 0:
            self.held.phase = FINISHING
            publish.finish_training(
                self.folder, self.held, spec, evaluate=self.evaluate, context=self.context
            )

    def rendezvous(self) -> int:
        """Wait until every rank is ready; returns the port that rank 0 has chosen.

        Raises ``RunStopped`` for a run that is asked to stop while its gang forms.
        """
        lease = self.held.lease
        if lease.rank == 0:
            port = _free_port()
            with self.context.sessions.begin() as session:
                ranks.choose_port(session, lease, port)
        self.held.phase = READY
        while True:
            orders = self.held.orders  # a renewal replaces them at any moment
            if orders.stop is None and orders.all_ready and orders.port is not None:
                return orders.port
            self.held.check()
            time.sleep(POLL_SECONDS)

    def train(self, spec: FinetuneSpec, *, port: int) -> None:
        """Run the training program to its end and upload its checkpoints meanwhile."""
        lease = self.held.lease
        processes = host.processes(self.context.settings)
        recipe = spec.train
        command, environment = launch.command(
            machines=lease.machines,
            rank=lease.rank,
            processes=processes,
            address=lease.address,
            port=port,
            mixed_precision=recipe.mixed_precision,
            accelerate=recipe.accelerate,
            run=workfolder.write_run(self.folder, self.held, processes=processes),
            cpu=host.accelerators() == 0,
        )
        uploader = CheckpointUploader(
            lease, keep=recipe.keep_checkpoints, folder=self.folder, context=self.context
        )
        try:
            ending = self.monitor(command, environment, log_name="train.log", uploader=uploader)
            if ending.outcome is RankOutcome.STOPPED:
                self._store_last_checkpoint(uploader)
        finally:
            uploader.give_up()
        if ending.code == UNUSABLE:
            self._mark_unusable(ending)
        if ending.outcome is not RankOutcome.DONE:
            raise ProgramUnfinished(ending)

    def evaluate(self, split: str, models: dict[str, Path]) -> dict[str, Any]:
        """Run the evaluation program; returns a report for each model."""
        config = workfolder.write_evaluation(self.folder, self.held, split=split, models=models)
        command = [sys.executable, "-m", "workers.training.evaluate", str(config)]
        ending = self.monitor(command, {}, log_name="evaluate.log", uploader=None)
        if ending.outcome is not RankOutcome.DONE:
            raise ProgramUnfinished(ending)
        reports: dict[str, Any] = json.loads((self.folder / "reports.json").read_bytes())
        return reports

    def monitor(
        self,
        command: list[str],
        environment: dict[str, str],
        *,
        log_name: str,
        uploader: CheckpointUploader | None,
    ) -> RankEnding:
        """Start a program for this rank and monitor it to its end."""
        program = Program(
            command,
            variables={
                **_thread_limits(self.context),
                **environment,
                HOST: host.name(self.context.settings),
                INCARNATION: self.incarnation,
                INSTALLATION: self.context.installation,
            },
            folder=self.folder,
            log=self.folder / log_name,
        )
        return ProgramMonitor(
            program,
            self.held,
            folder=self.folder,
            reporter=self.reporter,
            uploader=uploader,
            context=self.context,
        ).run()

    def _mark_unusable(self, ending: RankEnding) -> None:
        """The checkpoint's bytes are whole, but no run can resume from it."""
        lease = self.held.lease
        assert lease.checkpoint_id is not None
        with self.context.sessions.begin() as session:
            checkpoints.mark_damaged(
                session, lease, lease.checkpoint_id, reason=ending.error or UNUSABLE
            )

    def _store_last_checkpoint(self, uploader: CheckpointUploader) -> None:
        """Wait for the last checkpoint's upload, for at most the grace period."""
        end = time.monotonic() + self.context.settings.train_grace_seconds
        while time.monotonic() < end:
            self.held.beat()
            if uploader.finish(until=time.monotonic() + POLL_SECONDS):
                return
            if self.held.orders.stop == "now":
                return


def _thread_limits(context: Context) -> dict[str, str]:
    """Environment variables that limit a program's threads, if a setting limits them."""
    threads = context.settings.worker_threads
    return {OPENMP: str(threads)} if threads else {}


def _free_port() -> int:
    """A port that is free at this moment on all addresses; each run has a new one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
