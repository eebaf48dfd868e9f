"""The thread that renews a lease ends a process that hangs, also after the lease is lost."""

from __future__ import annotations

import subprocess
import sys

import pytest

from workers.lease_renewer import STALLED

HANGING = """
import sys, threading, time
from datetime import timedelta
from workers.lease_renewer import LeaseRenewer

answers = {"renewed": lambda: None, "lost": lambda: "the job is cancelling"}
limits = {"duration": timedelta(seconds=0.3), "stall": timedelta(seconds=1)}
with LeaseRenewer(answers[sys.argv[1]], **limits):
    print("hanging", flush=True)
    threading.Event().wait()
"""

WORKING = """
import time
from datetime import timedelta
from workers.lease_renewer import LeaseRenewer

limits = {"duration": timedelta(seconds=0.3), "stall": timedelta(seconds=2)}
with LeaseRenewer(lambda: None, **limits) as renewer:
    until = time.monotonic() + 4
    while time.monotonic() < until:
        renewer.beat()
        time.sleep(0.05)
"""

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("lease", ["renewed", "lost"])
def test_a_process_that_hangs_ends_itself(lease: str) -> None:
    program = [sys.executable, "-c", HANGING, lease]
    done = subprocess.run(program, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.splitlines()[0]) == (STALLED, "hanging")


def test_a_process_that_makes_progress_goes_on() -> None:
    subprocess.run([sys.executable, "-c", WORKING], check=True, timeout=60)
