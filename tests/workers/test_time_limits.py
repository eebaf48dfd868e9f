"""Promise P12: what the files of a model make a worker do has an end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.errors import ModelFailure
from jobs.settings import Settings
from tests.support import bad_models
from workers import process_names, time_limits
from workers.inference import engine
from workers.time_limits import TimeLimit

ENDLESS = """
import os, sys
from jobs.decisions.crash_policy import Phase
from workers import time_limits
time_limits.TRY_SECONDS = 0.2
time_limits.enable()
print(os.getpid(), flush=True)
with time_limits.trying(Phase.TOKENIZER):
    sum(range(10**12))  # native code that holds the interpreter's lock
"""


def test_python_code_that_loops_is_interrupted() -> None:
    with pytest.raises(TimeLimit), time_limits.interrupted(0.05):
        _loop()


def _loop() -> None:
    while True:
        pass


def test_native_code_that_holds_the_lock_ends_its_process_which_says_what_it_did() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ENDLESS],
        env=os.environ | {process_names.TOKEN: process_names.token()},  # as in a pool process
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == -signal.SIGPROF
    pid = int(ended.stdout)
    assert time_limits.last_phase(pid) == "tokenizer"
    assert time_limits.last_phase(pid) is None


def test_a_chat_template_that_loops_fails_its_job_at_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_limits, "ROW_SECONDS", 0.2)
    folder = bad_models.looping(tmp_path / "model")
    with pytest.raises(ModelFailure, match="CPU time") as caught:
        engine.load(folder, bad_models.SHORT, settings=Settings(worker_threads=1))
    assert caught.value.code == "template_timeout"
