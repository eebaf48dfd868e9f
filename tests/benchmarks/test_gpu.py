"""The prepared check for a machine with a GPU; on a CPU it runs in small."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu


def test_the_parts_are_there_and_take_six_minutes_at_most_on_a_gpu() -> None:
    parts = list(gpu._parts(Path("corpus.csv"), Path("tokenizer"), gpu=True))
    assert all(importlib.util.find_spec(f"benchmarks.{part.module}") for part in parts)
    assert sum(part.seconds for part in parts) <= 360


@pytest.mark.long
@pytest.mark.parametrize("arguments", [("gpu_kinds",), ("gpu_training", "640")])
def test_a_part_finds_nothing_wrong(arguments: tuple[str, ...]) -> None:
    module, *more = arguments
    command = [sys.executable, "-m", f"benchmarks.{module}", *more]
    assert subprocess.run(command, check=False).returncode == 0
