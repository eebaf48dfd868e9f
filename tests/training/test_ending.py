"""A training process that is done leaves at once: it tears nothing down that could wait for ever.

Torn down, a model in ranks made about one of forty runs of three ranks hang (`ending.leave`).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.building import Work, labelled, wait_until, work
from workers.training import ending

UNWILLING = """
import atexit, sys, threading, time
from pathlib import Path
from workers.training import ending, script

def wait(*_):
    time.sleep(600)

script.Training.__del__ = wait
atexit.register(wait)
threading.Thread(target=wait).start()
print("printed", end="")
script.main(Path(sys.argv[1]))
"""
"""A process in which whatever is torn down waits."""


def started(run: Work) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", UNWILLING, run.run_file], stdout=subprocess.PIPE, text=True
    )


def stop(run: Work) -> None:
    wait_until(lambda: bool(run.told("checkpoint")))
    (run.folder / "stop").touch()


def spoil(run: Work) -> None:
    """Let it crash where it writes its first checkpoint."""
    (run.folder / "checkpoints").write_text("in the way")


@pytest.mark.parametrize(
    ("disturb", "status"),
    [
        pytest.param(lambda _: None, ending.DONE, id="done"),
        pytest.param(stop, ending.STOPPED, id="stopped"),
        pytest.param(spoil, ending.CRASHED, id="crashed"),
    ],
)
def test_it_leaves_at_once(tmp_path: Path, disturb: Callable[[Work], None], status: int) -> None:
    epochs = 1 if status == ending.DONE else 400
    train = {"epochs": epochs, "batch_rows": 12, "checkpoint_steps": 2}
    run = work(tmp_path / "W", data={"train": labelled(130), "test": labelled(30)}, train=train)
    process = started(run)
    try:
        disturb(run)
        printed, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == status
    assert printed.startswith("printed")
    assert bool(run.told("done")) == (status == ending.DONE)
    assert bool(run.told("stopped")) == (status == ending.STOPPED)
