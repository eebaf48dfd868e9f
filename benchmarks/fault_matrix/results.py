"""The file of results: one record for each cell, so that a run can be continued.

Two drivers may write it at the same time, each its own cells.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.fault_matrix.cells import CELLS, FAULT_SECONDS, SETTINGS

FILE = Path(__file__).parent.parent / "results" / "fault_matrix.json"

Results = dict[str, Any]
"""``settings``, ``fault_seconds``, ``machine``, ``undisturbed`` by work, ``cells`` by name."""


def read(file: Path = FILE) -> Results:
    """The results so far; empty before the first."""
    if not file.exists():
        return {"undisturbed": {}, "cells": {}}
    results: Results = json.loads(file.read_bytes())
    return results


def keep(
    section: str, name: str, record: dict[str, Any], *, machine: dict[str, Any], file: Path = FILE
) -> None:
    """Write one record."""
    with _locked(file.parent):
        results = read(file)
        results |= {"machine": machine, "settings": SETTINGS, "fault_seconds": FAULT_SECONDS}
        results[section][name] = record
        names = {cell.name for cell in CELLS}
        results["cells"] = {
            each: results["cells"][each] for each in sorted(names) if each in results["cells"]
        }
        draft = file.with_suffix(".new")
        draft.write_text(json.dumps(results, indent=1) + "\n")
        draft.replace(file)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
