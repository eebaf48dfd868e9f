"""`nightshift nightly` as a user runs it: every process is the real one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from api.cli.failures import TERMINATED
from api.cli.nightly.nights import NIGHTS
from api.stack import record, up
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[4]


@pytest.fixture
def folder() -> Iterator[Path]:
    parent = Path(tempfile.mkdtemp(prefix="nightshift-nightly-"))
    parent.chmod(0o755)
    yield parent / "example"
    up.remove(parent / "example" / "stack")
    shutil.rmtree(parent)


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "api.cli", "nightly", "--folder", str(folder)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_seven_nights_end_as_they_must(folder: Path) -> None:
    process = start(folder)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert "all 14 hold" in said
    found = json.loads((folder / "report.json").read_text())
    assert not any(found["broken"].values())
    fires = found["facts"]["training"]
    assert [fire["state"] for fire in fires].count("succeeded") == len(NIGHTS) - 1
    assert fires[1]["state"] == "skipped"
    promoted = [fire["job"]["decision"] and fire["job"]["decision"]["promoted"] for fire in fires]
    assert (promoted[1], promoted[2]) == (None, False)
    assert True in promoted
    assert len(fires[4]["job"]["runs"]) > 1
    assert up.info(folder / "stack") is None


def test_a_signal_ends_every_process_of_it(folder: Path) -> None:
    process = start(folder)
    home = folder / "stack"
    wait_until(lambda: process.poll() is not None or up.info(home), seconds=120)
    wait_until((folder / "sources.json").exists, seconds=120)
    stack = record.read(home)
    assert stack is not None
    everyone = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(stack.pid)]
    everyone += psutil.Process(stack.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == TERMINATED
    assert "all its processes have ended" in said
    wait_until(lambda: not any(each.is_running() for each in everyone))
