"""A training process that is done leaves at once: it tears nothing down that could wait for ever.

Torn down, a model in ranks made about one of forty runs of three ranks hang (`shutdown.leave`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.workers.training.building import Work, labelled, wait_until, work
from workers.training import shutdown

UNWILLING = """
import atexit, contextlib, sys, threading, time
from pathlib import Path
from workers.training import shutdown, train

def wait(*_):
    time.sleep(600)

train.Training.__del__ = wait
atexit.register(wait)
threading.Thread(target=wait).start()
with contextlib.suppress(OSError):
    print("printed", end="")
train.main(Path(sys.argv[1]))
"""
"""A process in which whatever is torn down waits."""


def started(run: Work, *, out: Path, err: Path) -> subprocess.Popen[bytes]:
    with out.open("wb") as stdout, err.open("wb") as stderr:
        return subprocess.Popen(
            [sys.executable, "-c", UNWILLING, run.run_file], stdout=stdout, stderr=stderr
        )


def stop(run: Work) -> None:
    wait_until(lambda: bool(run.told("checkpoint")))
    (run.folder / "stop").touch()


def spoil(run: Work) -> None:
    """Let it crash where it writes its first checkpoint."""
    (run.folder / "checkpoints").write_text("in the way")


def mislead(run: Work) -> None:
    """Let it find its first row's label unknown."""
    order = json.loads(run.run_file.read_bytes())
    order["dataset"]["labels"] = ["poetry"]
    run.run_file.write_text(json.dumps(order))


CASES = [
    pytest.param(lambda _: None, shutdown.DONE, id="done"),
    pytest.param(stop, shutdown.STOPPED, id="stopped"),
    pytest.param(mislead, shutdown.FAULT, id="at fault"),
    pytest.param(spoil, shutdown.CRASHED, id="crashed"),
]


def status_of(run: Work, disturb: Callable[[Work], None], *, out: Path, err: Path) -> int:
    if disturb is not stop:  # what is wrong is wrong from the beginning
        disturb(run)
    process = started(run, out=out, err=err)
    try:
        if disturb is stop:
            stop(run)
        return process.wait(timeout=120)
    finally:
        process.kill()


def made(folder: Path, *, epochs: int) -> Work:
    train = {"epochs": epochs, "batch_rows": 12, "checkpoint_steps": 2}
    data = {"train": labelled(130), "test": labelled(30)}
    return work(folder / "W", data=data, train=train)


@pytest.mark.parametrize(("disturb", "status"), CASES)
def test_it_leaves_at_once(tmp_path: Path, disturb: Callable[[Work], None], status: int) -> None:
    run = made(tmp_path, epochs=1 if status == shutdown.DONE else 400)
    out, err = tmp_path / "out", tmp_path / "err"
    assert status_of(run, disturb, out=out, err=err) == status, err.read_text()
    assert out.read_text().startswith("printed")
    assert bool(run.told("done")) == (status == shutdown.DONE)
    assert bool(run.told("stopped")) == (status == shutdown.STOPPED)
    assert bool(run.told("fault")) == (status == shutdown.FAULT)
    assert ("Traceback" in err.read_text()) == (status == shutdown.CRASHED)


@pytest.mark.parametrize(("disturb", "status"), [CASES[0], CASES[3]])
def test_it_leaves_though_nothing_can_be_printed(
    tmp_path: Path, disturb: Callable[[Work], None], status: int
) -> None:
    full = Path("/dev/full")
    assert status_of(made(tmp_path, epochs=1), disturb, out=full, err=full) == status
