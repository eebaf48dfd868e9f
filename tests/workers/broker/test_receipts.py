"""What a worker was acting on when it died is known to the next one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from jobs.ledger.refused_messages import Death
from workers.broker.receipts import Receipts

DEATH = Death("digest", "pool.cpu", 7, "pool-1@here", "chunk", 17)

DIES = """
import os, pathlib, sys
from jobs.ledger.refused_messages import Death
from workers.broker.receipts import Receipts
receipts = Receipts(pathlib.Path(sys.argv[1]))
receipts.write(Death("earlier", "plan", 2, "plan-1@here"))
receipts.write(Death("digest", "pool.cpu", 7, "pool-1@here", "chunk", 17))
if sys.argv[2] == "after":
    receipts.clear()
os._exit(1)
"""


def dies(folder: Path, when: str) -> None:
    subprocess.run([sys.executable, "-c", DIES, str(folder), when], check=False, timeout=60)


def test_a_process_that_dies_while_it_acts_leaves_its_receipt_once(tmp_path: Path) -> None:
    dies(tmp_path, "while")
    assert Receipts(tmp_path).left_behind == [DEATH]
    assert Receipts(tmp_path).left_behind == []


def test_a_process_that_dies_afterwards_leaves_none(tmp_path: Path) -> None:
    dies(tmp_path, "after")
    assert Receipts(tmp_path).left_behind == []


def test_a_living_process_leaves_none(tmp_path: Path) -> None:
    living = Receipts(tmp_path)
    living.write(DEATH)
    assert Receipts(tmp_path).left_behind == []


def test_a_receipt_that_cannot_be_read_harms_no_start(tmp_path: Path) -> None:
    (tmp_path / "junk").write_text("[]{")
    (tmp_path / "junk2").write_text('{"x": 1}')
    assert Receipts(tmp_path).left_behind == []
