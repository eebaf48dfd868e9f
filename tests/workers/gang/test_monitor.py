"""How a program's end is read, and how one that must end is ended."""

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

from jobs.decisions.run_verdict import Outcome
from jobs.errors import LeaseLost
from jobs.ledger.ranks import RankLease
from jobs.tables import LogLine, Point
from tests.jobs.ledger.building import Ledger
from tests.jobs.ledger.training import LOST
from tests.support.servers import Databases
from tests.support.waiting import wait_until
from tests.workers.gang.standing import Standing
from workers.gang.checkpoint_upload import Uploader
from workers.gang.monitor import Ending, Watch
from workers.gang.program import Program
from workers.gang.rank_lease import Attendance
from workers.gang.reporter import Report

TELL = """
import json, os, pathlib, sys, time
told = open("told/0.jsonl", "a")
def tell(type, **facts):
    told.write(json.dumps({"type": type, **facts}) + "\\n")
    told.flush()
"""


@pytest.fixture(scope="module")
def ledger(fresh_database: Databases) -> Iterator[Ledger]:
    ledger = Ledger(fresh_database())
    yield ledger
    ledger.engine.dispose()


@pytest.fixture
def standing(ledger: Ledger, tmp_path: Path) -> Standing:
    return Standing(ledger, tmp_path)


@dataclass
class Watched:
    """A program that is watched."""

    program: Program
    folder: Path
    finish: Callable[[], Ending]


Begin = Callable[..., Watched]


@pytest.fixture
def begin(standing: Standing) -> Iterator[Begin]:
    """Starts a small program that can ``tell``, and a thread that watches it as its rank."""
    threads: list[threading.Thread] = []

    def begin(
        held: RankLease, source: str, *, uploads: bool = True, log: str = "log", **options: Any
    ) -> Watched:
        folder, context = standing.folder(held), standing.context(**options)
        script = folder / "program.py"
        script.write_text(TELL + textwrap.dedent(source))
        command = [sys.executable, str(script)]
        program = Program(command, environment={}, folder=folder, log=folder / log)
        ended: list[Ending | BaseException] = []

        def watch() -> None:
            uploader = Uploader(held, folder=folder, context=context) if uploads else None
            with Attendance(held, context=context) as attendance:
                report = Report(held, context=context)
                watch = Watch(
                    program,
                    attendance,
                    folder=folder,
                    report=report,
                    uploader=uploader,
                    context=context,
                )
                try:
                    ended.append(watch.run())
                except BaseException as error:  # noqa: BLE001 - the test looks at it
                    ended.append(error)
            if uploader is not None:
                uploader.finish(until=time.monotonic() + 20)
                uploader.give_up()

        def finish() -> Ending:
            threads[-1].join(30)
            (what,) = ended
            if isinstance(what, BaseException):
                raise what
            return what

        threads.append(threading.Thread(target=watch))
        threads[-1].start()
        return Watched(program, folder, finish)

    yield begin
    for thread in threads:
        thread.join(30)


@pytest.fixture
def held(standing: Standing) -> RankLease:
    return standing.gang()[0]


@pytest.mark.parametrize(
    ("source", "ending"),
    [
        ("tell('done')", Ending(Outcome.DONE, 0)),
        ("", Ending(Outcome.DONE, 0)),
        ("print('odd data'); sys.exit(3)", Ending(Outcome.CRASHED, 3, error="odd data")),
        ("sys.exit('odd data')", Ending(Outcome.CRASHED, 1, error="odd data")),
        ("os.kill(os.getpid(), 9)", Ending(Outcome.CRASHED, -9, error="")),
        (
            "tell('fault', code='one_label', message='one label only'); sys.exit(65)",
            Ending(Outcome.FAULT, 65, code="one_label", error="one label only"),
        ),
        (  # as through a launcher, which says 1 whatever the program said
            "tell('fault', code='one_label', message='one label only'); sys.exit(1)",
            Ending(Outcome.FAULT, 1, code="one_label", error="one label only"),
        ),
        ("tell('stopped', step=3); sys.exit(75)", Ending(Outcome.STOPPED, 75)),
        ("tell('stopped', step=3); sys.exit(1)", Ending(Outcome.STOPPED, 1)),
    ],
)
def test_the_end_of_a_program_says_what_became_of_it(
    begin: Begin, held: RankLease, source: str, ending: Ending
) -> None:
    assert begin(held, source).finish() == ending


def test_a_crash_comes_with_the_end_of_its_log_however_long_that_is(
    begin: Begin, held: RankLease
) -> None:
    source = """
        for number in range(40_000):
            print("x" * 80)
        raise ValueError("the last word")
        """
    ending = begin(held, source, train_log_lines=10).finish()
    assert (ending.error or "").endswith("ValueError: the last word")


def test_a_stop_is_asked_for_by_a_file_and_waited_for(
    standing: Standing, begin: Begin, held: RankLease
) -> None:
    watched = begin(
        held,
        """
        tell("phase", phase="training")
        while not pathlib.Path("stop").exists():
            time.sleep(0.01)
        time.sleep(0.5)
        tell("stopped", step=3)
        sys.exit(75)
        """,
    )
    standing.training.stop(held.run_id, "checkpoint")
    assert watched.finish() == Ending(Outcome.STOPPED, 75)


def test_a_program_that_does_not_stop_within_the_grace_is_ended(
    standing: Standing, begin: Begin, held: RankLease
) -> None:
    watched = begin(held, "time.sleep(600)", train_grace_seconds=0.5)
    standing.training.stop(held.run_id, "checkpoint", "the job was paused")
    assert watched.finish() == Ending(Outcome.ENDED, error="the job was paused")
    assert (watched.folder / "stop").exists()
    assert watched.program.ended() == -9


def test_a_stop_now_ends_the_program_without_a_word_to_it(
    standing: Standing, begin: Begin, held: RankLease
) -> None:
    watched = begin(held, "time.sleep(600)")
    standing.training.stop(held.run_id, "now", "another rank failed")
    assert watched.finish() == Ending(Outcome.ENDED, error="another rank failed")
    assert not (watched.folder / "stop").exists()
    assert watched.program.ended() == -9


def test_a_stop_now_cuts_the_grace_short(standing: Standing, begin: Begin, held: RankLease) -> None:
    watched = begin(held, "time.sleep(600)")
    standing.training.stop(held.run_id, "checkpoint", "paused")
    wait_until((watched.folder / "stop").exists)
    standing.training.stop(held.run_id, "now", "cancelled")
    assert watched.finish() == Ending(Outcome.ENDED, error="cancelled")


def test_a_program_that_makes_no_checkpoints_is_stopped_at_once(
    standing: Standing, begin: Begin, held: RankLease
) -> None:
    watched = begin(held, "time.sleep(600)", uploads=False)
    standing.training.stop(held.run_id, "checkpoint")
    assert watched.finish() == Ending(Outcome.STOPPED)


def test_a_program_that_tells_nothing_for_too_long_has_hung(begin: Begin, held: RankLease) -> None:
    source = "print('about to hang', flush=True); tell('phase', phase='loading'); time.sleep(600)"
    watched = begin(held, source, train_stall_seconds=1)
    assert watched.finish() == Ending(Outcome.STALLED, error="about to hang")
    assert watched.program.ended() == -9


def test_a_program_that_only_writes_to_its_log_has_hung_as_well(
    begin: Begin, held: RankLease
) -> None:
    source = """
        while True:
            print("still waiting", flush=True)
            time.sleep(0.1)
        """
    ending = begin(held, source, train_stall_seconds=1).finish()
    assert ending.outcome is Outcome.STALLED


def test_a_program_that_tells_of_progress_goes_on(begin: Begin, held: RankLease) -> None:
    source = """
        for step in range(12):
            tell("progress", step=step, steps_total=12)
            time.sleep(0.2)
        """
    assert begin(held, source, train_stall_seconds=1.5).finish().outcome is Outcome.DONE


def test_a_rank_that_has_lost_its_lease_ends_its_program(
    standing: Standing, begin: Begin, held: RankLease
) -> None:
    watched = begin(held, "time.sleep(600)")
    standing.training.end(held, Outcome.SILENT)
    standing.training.conclude(held.run_id, LOST)
    with pytest.raises(LeaseLost):
        watched.finish()
    assert watched.program.ended() == -9


def test_what_is_told_reaches_the_ledger(standing: Standing, begin: Begin, held: RankLease) -> None:
    watched = begin(
        held,
        """
        print("hello", flush=True)
        tell("phase", phase="training")
        tell("progress", step=7, steps_total=20)
        tell("points", step=7, values={"loss": 0.5})
        while not pathlib.Path("go").exists():
            time.sleep(0.01)
        print("good bye")
        """,
    )
    wait_until(lambda: standing.training.rank(held).phase == "training")
    wait_until(lambda: standing.training.run(held.run_id).step == 7)
    assert standing.training.run(held.run_id).steps_total == 20
    assert _points(standing, held) == [("loss", 7, 0.5)]
    assert _lines(standing, held) == ["hello"]
    (watched.folder / "go").touch()
    watched.finish()
    assert _lines(standing, held) == ["hello", "good bye"]


def test_rank_0_speaks_for_the_run_and_every_rank_has_a_log(
    standing: Standing, begin: Begin
) -> None:
    _, other = standing.gang(2)
    source = (
        "print('hello'); tell('points', step=7, values={'loss': 0.5}); tell('progress', step=7)"
    )
    begin(other, source).finish()
    assert _lines(standing, other) == ["hello"]
    assert _points(standing, other) == []
    assert standing.training.run(other.run_id).step == 0


def test_the_last_words_of_a_rank_that_is_over_are_kept(
    standing: Standing, begin: Begin, held: RankLease
) -> None:
    watched = begin(
        held,
        """
        while not pathlib.Path("go").exists():
            time.sleep(0.01)
        print("last words", flush=True)
        tell("points", step=7, values={"loss": 0.5})
        time.sleep(600)
        """,
    )
    standing.training.end(held, Outcome.SILENT)
    (watched.folder / "go").touch()
    with pytest.raises(LeaseLost):
        watched.finish()
    assert _lines(standing, held) == ["last words"]
    assert _points(standing, held) == []


def test_no_more_log_lines_are_kept_than_the_limit(
    standing: Standing, begin: Begin, held: RankLease
) -> None:
    begin(held, "for number in range(9): print(number)", train_log_lines=3).finish()
    assert _lines(standing, held)[:3] == ["0", "1", "2"]
    assert len(_lines(standing, held)) == 4  # and one that says so


def test_checkpoints_are_stored_beside_the_training(
    standing: Standing, begin: Begin, held: RankLease
) -> None:
    watched = begin(
        held,
        """
        for step in (10, 20):
            folder = pathlib.Path(f"checkpoints/step-{step:09d}")
            folder.mkdir(parents=True)
            (folder / "weights").write_text(str(step))
            tell("checkpoint", step=step, folder=folder.name, metric=0.5, best=step == 20)
        while not pathlib.Path("go").exists():
            time.sleep(0.01)
        """,
    )
    wait_until(lambda: standing.training.newest(held.job_id) == 20, seconds=20)
    assert watched.program.ended() is None
    (watched.folder / "go").touch()
    assert watched.finish().outcome is Outcome.DONE


def test_a_second_program_of_the_rank_is_not_taken_for_the_first(
    standing: Standing, begin: Begin, held: RankLease
) -> None:
    """The evaluate program tells and logs in the folder where the training program did."""
    first = "print('one'); tell('points', step=1, values={'validation/loss': 1}); tell('stopped')"
    begin(held, f"{first}; sys.exit(1)").finish()
    ending = begin(held, "print('two'); sys.exit(1)", uploads=False).finish()
    assert ending == Ending(Outcome.CRASHED, 1, error="two")
    assert len(standing.training.told(held.job_id, "evaluation")) == 1
    assert _lines(standing, held) == ["one", "two"]


def _lines(standing: Standing, held: RankLease) -> list[str]:
    with standing.ledger.sessions.begin() as session:
        query = sa.select(LogLine.text).where(LogLine.job_id == held.job_id).order_by(LogLine.id)
        return list(session.scalars(query))


def _points(standing: Standing, held: RankLease) -> list[tuple[str, int, float]]:
    with standing.ledger.sessions.begin() as session:
        query = sa.select(Point.name, Point.step, Point.value).where(Point.job_id == held.job_id)
        return [(name, step, value) for name, step, value in session.execute(query)]
