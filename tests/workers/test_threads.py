"""CPU threads of a pool process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from jobs.settings import Settings
from workers import threads


@pytest.mark.parametrize(
    ("cores", "processes", "asked", "share"),
    [(8, 2, 0, 4), (8, 3, 0, 2), (2, 4, 0, 1), (8, 1, 3, 3), (1, 4, 5, 5)],
)
def test_cores_are_divided_where_the_settings_name_no_number(
    monkeypatch: pytest.MonkeyPatch, cores: int, processes: int, asked: int, share: int
) -> None:
    monkeypatch.setattr(threads, "cores", lambda: cores)
    assert threads.share(Settings(worker_processes=processes, worker_threads=asked)) == share


PROCESS = """
import sys
from jobs.settings import Settings
from workers import threads
mine = Settings(worker_threads=int(sys.argv[1]))
threads.take(mine)
assert "torch" not in sys.modules
import torch
assert torch.get_num_threads() == threads.share(mine)
torch.set_num_threads = None  # calling it would be an error
from workers.inference import model_loader
model_loader.use_threads(mine)
"""


@pytest.mark.slow
@pytest.mark.parametrize("count", sorted({1, threads.cores()}))
def test_torch_finds_what_was_taken(count: int) -> None:
    subprocess.run(
        [sys.executable, "-c", PROCESS, str(count)],
        check=True,
        env={**os.environ, threads.OPENMP: "7"},
    )
