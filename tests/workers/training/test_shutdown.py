"""A training process ends at once, without tearing anything down that could hang.

Tearing a distributed model down made about one of forty runs of three ranks hang
(`shutdown.leave`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.workers.training.work_folder import WorkFolder, labelled, wait_until, work_folder
from workers.training import shutdown

UNWILLING = """
import atexit, contextlib, sys, threading, time
from pathlib import Path
from workers.training import shutdown, train

def wait(*_):
    time.sleep(600)

train.TrainingRun.__del__ = wait
atexit.register(wait)
threading.Thread(target=wait).start()
with contextlib.suppress(OSError):
    print("printed", end="")
train.main(Path(sys.argv[1]))
"""
"""A process that hangs if anything is torn down."""


def started(run: WorkFolder, *, out: Path, err: Path) -> subprocess.Popen[bytes]:
    with out.open("wb") as stdout, err.open("wb") as stderr:
        return subprocess.Popen(
            [sys.executable, "-c", UNWILLING, run.run_file], stdout=stdout, stderr=stderr
        )


def stop(run: WorkFolder) -> None:
    wait_until(lambda: bool(run.messages("checkpoint")))
    (run.folder / "stop").touch()


def spoil(run: WorkFolder) -> None:
    """Make it crash at its first checkpoint."""
    (run.folder / "checkpoints").write_text("in the way")


def mislead(run: WorkFolder) -> None:
    """Make the label of its first row unknown."""
    config = json.loads(run.run_file.read_bytes())
    config["dataset"]["labels"] = ["poetry"]
    run.run_file.write_text(json.dumps(config))


CASES = [
    pytest.param(lambda _: None, shutdown.DONE, id="done"),
    pytest.param(stop, shutdown.STOPPED, id="stopped"),
    pytest.param(mislead, shutdown.FAULT, id="at fault"),
    pytest.param(spoil, shutdown.CRASHED, id="crashed"),
]


def status_of(
    run: WorkFolder, disturb: Callable[[WorkFolder], None], *, out: Path, err: Path
) -> int:
    if disturb is not stop:  # the others are disturbed before they start
        disturb(run)
    process = started(run, out=out, err=err)
    try:
        if disturb is stop:
            stop(run)
        return process.wait(timeout=120)
    finally:
        process.kill()


def made(folder: Path, *, epochs: int) -> WorkFolder:
    train = {"epochs": epochs, "batch_rows": 12, "checkpoint_steps": 2}
    data = {"train": labelled(130), "test": labelled(30)}
    return work_folder(folder / "W", data=data, train=train)


@pytest.mark.parametrize(("disturb", "status"), CASES)
def test_the_process_ends_at_once(
    tmp_path: Path, disturb: Callable[[WorkFolder], None], status: int
) -> None:
    run = made(tmp_path, epochs=1 if status == shutdown.DONE else 400)
    out, err = tmp_path / "out", tmp_path / "err"
    assert status_of(run, disturb, out=out, err=err) == status, err.read_text()
    assert out.read_text().startswith("printed")
    assert bool(run.messages("done")) == (status == shutdown.DONE)
    assert bool(run.messages("stopped")) == (status == shutdown.STOPPED)
    assert bool(run.messages("fault")) == (status == shutdown.FAULT)
    assert ("Traceback" in err.read_text()) == (status == shutdown.CRASHED)


@pytest.mark.parametrize(("disturb", "status"), [CASES[0], CASES[3]])
def test_the_process_ends_even_if_nothing_can_be_printed(
    tmp_path: Path, disturb: Callable[[WorkFolder], None], status: int
) -> None:
    full = Path("/dev/full")
    assert status_of(made(tmp_path, epochs=1), disturb, out=full, err=full) == status
