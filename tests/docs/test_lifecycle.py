from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.states import CHUNK_MOVES, JOB_MOVES, RANK_MOVES, RUN_MOVES

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "lifecycle.md").read_text(encoding="utf-8")
MOVES = [
    f"    {state} --> {target}: {why}\n"
    for moves in (JOB_MOVES, CHUNK_MOVES, RUN_MOVES, RANK_MOVES)
    for state, targets in moves.items()
    for target, why in targets.items()
]


def generate(folder: Path, *options: str) -> int:
    command = [sys.executable, str(folder / "generate.py"), *options]
    return subprocess.run(command, check=False, capture_output=True, timeout=60).returncode


@pytest.mark.parametrize("move", MOVES, ids=str.strip)
def test_the_chart_shows_every_move(move: str) -> None:
    assert move in PAGE


def test_the_charts_show_no_other_move() -> None:
    arrows = [line for line in PAGE.splitlines() if "-->" in line and "[*]" not in line]
    assert len([line for line in arrows if not line.startswith("<!--")]) == len(MOVES)


def test_pages_made_from_code_are_up_to_date() -> None:
    assert generate(DOCS, "--check") == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["faults.md", "lifecycle.md", "settings.md", "pictures/rooms.svg"])
def test_a_stale_page_is_noticed_and_mended(name: str, tmp_path: Path) -> None:
    folder = shutil.copytree(DOCS, tmp_path / "docs")
    page = folder / name
    stale = {"cancelling": "stopping", "lease": "hold", "exits": "stays", "one reader": "reader"}
    page.write_text(
        functools.reduce(lambda text, pair: text.replace(*pair), stale.items(), page.read_text())
    )
    before = page.read_text()
    assert generate(folder, "--check") == 1
    assert page.read_text() == before
    assert generate(folder) == 0
    assert generate(folder, "--check") == 0
