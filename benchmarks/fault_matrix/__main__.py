"""``python -m benchmarks.fault_matrix``: run the cells that have no result yet, one by one."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.fault_matrix import cells, results
from benchmarks.fault_matrix import stage as stages
from benchmarks.fault_matrix.cells import Cell
from benchmarks.fault_matrix.run import Runner
from workers.threads import OPENMP


def main(arguments: list[str] | None = None) -> int:
    """0 if every cell that was run holds; 1 if one does not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="a pattern: 'bulk/worker/*'")
    parser.add_argument("--again", action="store_true", help="cells that have a result as well")
    parser.add_argument("--file", type=Path, default=results.FILE, help="the file of results")
    parser.add_argument("--list", action="store_true", help="print the names of the cells")
    given = parser.parse_args(arguments)
    chosen = cells.chosen(given.only)
    if given.list:
        print(*(cell.name for cell in chosen), sep="\n")
        return 0
    known = results.read(given.file)["cells"]
    wanted = [cell for cell in chosen if given.again or cell.name not in known]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    os.environ |= {OPENMP: "1", "HF_HUB_OFFLINE": "1"}
    held = [
        _run(list(group), file=given.file) for _, group in groupby(wanted, lambda cell: cell.work)
    ]
    return 0 if all(held) else 1


def _run(wanted: list[Cell], *, file: Path) -> bool:
    """Run cells of one work; a cell that does not hold gets the next one a new stage."""
    held = True
    while wanted:
        with stages.opened(wanted[0].work) as stage:
            runner = Runner(stage)
            _keep("undisturbed", str(wanted[0].work), runner.undisturbed(), file=file)
            while wanted:
                cell = wanted.pop(0)
                record = _record(runner, cell)
                if record is not None:
                    _keep("cells", cell.name, record, file=file)
                if record is None or not record["holds"]:
                    held = False
                    print(stage.installation.logs(), file=sys.stderr)
                    break
    return held


def _record(runner: Runner, cell: Cell) -> dict[str, Any] | None:
    """``None``: it could not be run, and has no result."""
    try:
        return runner.cell(cell)
    except Exception:  # noqa: BLE001 - the other cells are run all the same
        print(cell.name, "could not be run", flush=True)
        traceback.print_exc()
        return None


def _keep(section: str, name: str, record: dict[str, Any], *, file: Path) -> None:
    results.keep(section, name, record, machine=machine.describe(), file=file)
    print(name, record, flush=True)


if __name__ == "__main__":
    sys.exit(main())
