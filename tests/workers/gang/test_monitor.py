"""The monitor reads how a program ended, and ends a program that must stop."""

from __future__ import annotations

import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from jobs.decisions.run_verdict import RankOutcome
from jobs.errors import LeaseLost
from jobs.ledger.ranks import RankLease
from jobs.tables import LogLine, Point
from tests.jobs.ledger.training import LOST
from tests.support.waiting import wait_until
from tests.workers.gang.gang_setup import GangSetup
from workers.gang.checkpoint_upload import CheckpointUploader
from workers.gang.monitor import UNUSABLE, ProgramMonitor, RankEnding
from workers.gang.program import Program
from workers.gang.rank_lease import HeldRank
from workers.gang.reporter import Reporter

MESSAGES = """
import json, os, pathlib, sys, time
messages = open("told/0.jsonl", "a")
def message(type, **fields):
    messages.write(json.dumps({"type": type, **fields}) + "\\n")
    messages.flush()
"""


@dataclass
class MonitoredProgram:
    """A program, its folder, and a function that waits for its end."""

    program: Program
    folder: Path
    finish: Callable[[], RankEnding]


Start = Callable[..., MonitoredProgram]


@pytest.fixture
def start(setup: GangSetup) -> Iterator[Start]:
    """Starts a small program that writes messages, and a thread that monitors it as its rank."""
    threads: list[threading.Thread] = []

    def start(
        lease: RankLease, source: str, *, uploads: bool = True, log: str = "log", **options: Any
    ) -> MonitoredProgram:
        folder, context = setup.folder(lease), setup.context(**options)
        script = folder / "program.py"
        script.write_text(MESSAGES + textwrap.dedent(source))
        command = [sys.executable, str(script)]
        program = Program(command, variables={}, folder=folder, log=folder / log)
        ended: list[RankEnding | BaseException] = []

        def monitor() -> None:
            uploader = (
                CheckpointUploader(lease, keep=3, folder=folder, context=context)
                if uploads
                else None
            )
            with HeldRank(lease, context=context) as held:
                reporter = Reporter(lease, context=context)
                monitor = ProgramMonitor(
                    program,
                    held,
                    folder=folder,
                    reporter=reporter,
                    uploader=uploader,
                    context=context,
                )
                try:
                    ended.append(monitor.run())
                except BaseException as error:  # noqa: BLE001 - the test looks at it
                    ended.append(error)
            if uploader is not None:
                uploader.finish(until=time.monotonic() + 20)
                uploader.give_up()

        def finish() -> RankEnding:
            threads[-1].join(30)
            (ending,) = ended
            if isinstance(ending, BaseException):
                raise ending
            return ending

        threads.append(threading.Thread(target=monitor))
        threads[-1].start()
        return MonitoredProgram(program, folder, finish)

    yield start
    for thread in threads:
        thread.join(30)


@pytest.fixture
def lease(setup: GangSetup) -> RankLease:
    return setup.gang()[0]


@pytest.mark.parametrize(
    ("source", "ending"),
    [
        ("message('done')", RankEnding(RankOutcome.DONE, 0)),
        ("", RankEnding(RankOutcome.DONE, 0)),
        ("print('odd data'); sys.exit(3)", RankEnding(RankOutcome.CRASHED, 3, error="odd data")),
        ("sys.exit('odd data')", RankEnding(RankOutcome.CRASHED, 1, error="odd data")),
        ("os.kill(os.getpid(), 9)", RankEnding(RankOutcome.CRASHED, -9, error="")),
        (
            "message('fault', code='one_label', message='one label only'); sys.exit(65)",
            RankEnding(RankOutcome.FAULT, 65, code="one_label", error="one label only"),
        ),
        (  # as through a launcher, which exits with 1 for every failure
            "message('fault', code='one_label', message='one label only'); sys.exit(1)",
            RankEnding(RankOutcome.FAULT, 1, code="one_label", error="one label only"),
        ),
        (
            "message('unusable', reason='no rank 1'); sys.exit(1)",
            RankEnding(RankOutcome.UNREADY, 1, code=UNUSABLE, error="no rank 1"),
        ),
        ("message('stopped', step=3); sys.exit(75)", RankEnding(RankOutcome.STOPPED, 75)),
        ("message('stopped', step=3); sys.exit(1)", RankEnding(RankOutcome.STOPPED, 1)),
    ],
)
def test_the_end_of_a_program_is_read_as_an_outcome(
    start: Start, lease: RankLease, source: str, ending: RankEnding
) -> None:
    assert start(lease, source).finish() == ending


def test_a_crash_comes_with_the_end_of_its_log_however_long_that_is(
    start: Start, lease: RankLease
) -> None:
    source = """
        for number in range(40_000):
            print("x" * 80)
        raise ValueError("the last word")
        """
    ending = start(lease, source, train_log_lines=10).finish()
    assert (ending.error or "").endswith("ValueError: the last word")


def test_a_stop_is_asked_for_by_a_file_and_waited_for(
    setup: GangSetup, start: Start, lease: RankLease
) -> None:
    monitored = start(
        lease,
        """
        message("phase", phase="training")
        while not pathlib.Path("stop").exists():
            time.sleep(0.01)
        time.sleep(0.5)
        message("stopped", step=3)
        sys.exit(75)
        """,
    )
    setup.training.stop(lease.run_id, "checkpoint")
    assert monitored.finish() == RankEnding(RankOutcome.STOPPED, 75)


def test_a_program_that_does_not_stop_within_the_grace_is_ended(
    setup: GangSetup, start: Start, lease: RankLease
) -> None:
    monitored = start(lease, "time.sleep(600)", train_grace_seconds=0.5)
    setup.training.stop(lease.run_id, "checkpoint", "the job was paused")
    assert monitored.finish() == RankEnding(RankOutcome.ABORTED, error="the job was paused")
    assert (monitored.folder / "stop").exists()
    assert monitored.program.ended() == -9


def test_a_stop_now_kills_the_program_without_asking_it_to_stop(
    setup: GangSetup, start: Start, lease: RankLease
) -> None:
    monitored = start(lease, "time.sleep(600)")
    setup.training.stop(lease.run_id, "now", "another rank failed")
    assert monitored.finish() == RankEnding(RankOutcome.ABORTED, error="another rank failed")
    assert not (monitored.folder / "stop").exists()
    assert monitored.program.ended() == -9


def test_a_stop_now_cuts_the_grace_short(setup: GangSetup, start: Start, lease: RankLease) -> None:
    monitored = start(lease, "time.sleep(600)")
    setup.training.stop(lease.run_id, "checkpoint", "paused")
    wait_until((monitored.folder / "stop").exists)
    setup.training.stop(lease.run_id, "now", "cancelled")
    assert monitored.finish() == RankEnding(RankOutcome.ABORTED, error="cancelled")


def test_a_program_that_makes_no_checkpoints_is_stopped_at_once(
    setup: GangSetup, start: Start, lease: RankLease
) -> None:
    monitored = start(lease, "time.sleep(600)", uploads=False)
    setup.training.stop(lease.run_id, "checkpoint")
    assert monitored.finish() == RankEnding(RankOutcome.STOPPED)


def test_a_program_without_messages_for_too_long_is_stalled(start: Start, lease: RankLease) -> None:
    source = (
        "print('about to hang', flush=True); message('phase', phase='loading'); time.sleep(600)"
    )
    monitored = start(lease, source, train_stall_seconds=1)
    assert monitored.finish() == RankEnding(RankOutcome.STALLED, error="about to hang")
    assert monitored.program.ended() == -9


def test_a_program_that_only_writes_to_its_log_is_stalled(start: Start, lease: RankLease) -> None:
    source = """
        while True:
            print("still waiting", flush=True)
            time.sleep(0.1)
        """
    ending = start(lease, source, train_stall_seconds=1).finish()
    assert ending.outcome is RankOutcome.STALLED


def test_a_program_that_reports_progress_goes_on(start: Start, lease: RankLease) -> None:
    source = """
        for step in range(12):
            message("progress", step=step, steps_total=12)
            time.sleep(0.2)
        """
    assert start(lease, source, train_stall_seconds=1.5).finish().outcome is RankOutcome.DONE


def test_a_rank_that_has_lost_its_lease_ends_its_program(
    setup: GangSetup, start: Start, lease: RankLease
) -> None:
    monitored = start(lease, "time.sleep(600)")
    setup.training.end(lease, RankOutcome.SILENT)
    setup.training.conclude(lease.run_id, LOST)
    with pytest.raises(LeaseLost):
        monitored.finish()
    assert monitored.program.ended() == -9


def test_messages_reach_the_ledger(setup: GangSetup, start: Start, lease: RankLease) -> None:
    monitored = start(
        lease,
        """
        print("hello", flush=True)
        message("phase", phase="training")
        message("progress", step=7, steps_total=20)
        message("points", step=7, values={"loss": 0.5})
        while not pathlib.Path("go").exists():
            time.sleep(0.01)
        print("good bye")
        """,
    )
    wait_until(lambda: setup.training.rank(lease).phase == "training")
    wait_until(lambda: setup.training.run(lease.run_id).step == 7)
    assert setup.training.run(lease.run_id).steps_total == 20
    assert _points(setup, lease) == [("loss", 7, 0.5)]
    assert _lines(setup, lease) == ["hello"]
    (monitored.folder / "go").touch()
    monitored.finish()
    assert _lines(setup, lease) == ["hello", "good bye"]


def test_rank_0_reports_the_run_and_every_rank_has_a_log(setup: GangSetup, start: Start) -> None:
    _, other = setup.gang(2)
    source = """
        print('hello')
        message('points', step=7, values={'loss': 0.5})
        message('progress', step=7)
        """
    start(other, source).finish()
    assert _lines(setup, other) == ["hello"]
    assert _points(setup, other) == []
    assert setup.training.run(other.run_id).step == 0


def test_the_last_log_lines_of_a_rank_that_is_over_are_kept(
    setup: GangSetup, start: Start, lease: RankLease
) -> None:
    monitored = start(
        lease,
        """
        while not pathlib.Path("go").exists():
            time.sleep(0.01)
        print("last words", flush=True)
        message("points", step=7, values={"loss": 0.5})
        time.sleep(600)
        """,
    )
    setup.training.end(lease, RankOutcome.SILENT)
    (monitored.folder / "go").touch()
    with pytest.raises(LeaseLost):
        monitored.finish()
    assert _lines(setup, lease) == ["last words"]
    assert _points(setup, lease) == []


def test_no_more_log_lines_are_kept_than_the_limit(
    setup: GangSetup, start: Start, lease: RankLease
) -> None:
    start(lease, "for number in range(9): print(number)", train_log_lines=3).finish()
    assert _lines(setup, lease)[:3] == ["0", "1", "2"]
    assert len(_lines(setup, lease)) == 4  # and one about the limit


def test_checkpoints_are_stored_while_the_program_runs(
    setup: GangSetup, start: Start, lease: RankLease
) -> None:
    monitored = start(
        lease,
        """
        for step in (10, 20):
            folder = pathlib.Path(f"checkpoints/step-{step:09d}")
            folder.mkdir(parents=True)
            (folder / "weights").write_text(str(step))
            message("checkpoint", step=step, folder=folder.name, metric=0.5, best=step == 20)
        while not pathlib.Path("go").exists():
            time.sleep(0.01)
        """,
    )
    wait_until(lambda: setup.training.newest(lease.job_id) == 20, seconds=20)
    assert monitored.program.ended() is None
    (monitored.folder / "go").touch()
    assert monitored.finish().outcome is RankOutcome.DONE


def test_messages_of_a_second_program_are_not_those_of_the_first(
    setup: GangSetup, start: Start, lease: RankLease
) -> None:
    """The evaluation program writes messages and log in the training program's folder."""
    first = (
        "print('one'); message('points', step=1, values={'validation/loss': 1}); message('stopped')"
    )
    start(lease, f"{first}; sys.exit(1)").finish()
    ending = start(lease, "print('two'); sys.exit(1)", uploads=False).finish()
    assert ending == RankEnding(RankOutcome.CRASHED, 1, error="two")
    assert len(setup.training.told(lease.job_id, "evaluation")) == 1
    assert _lines(setup, lease) == ["one", "two"]


def _lines(setup: GangSetup, lease: RankLease) -> list[str]:
    with setup.ledger.sessions.begin() as session:
        query = sa.select(LogLine.text).where(LogLine.job_id == lease.job_id).order_by(LogLine.id)
        return list(session.scalars(query))


def _points(setup: GangSetup, lease: RankLease) -> list[tuple[str, int, float]]:
    with setup.ledger.sessions.begin() as session:
        query = sa.select(Point.name, Point.step, Point.value).where(Point.job_id == lease.job_id)
        return [(name, step, value) for name, step, value in session.execute(query)]
