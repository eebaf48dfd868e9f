"""Evaluation reports: what is too large for a row of the database lies in the object store.

A report is of one evaluation, or one for each split by its name (docs/training.md). A confusion
matrix of thousands of labels is larger than a row may be, so the job's row keeps the numbers, and
points to an object that has the whole report as JSON.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from jobs.objects import ObjectStore

LARGE = 2**16
"""Bytes of JSON that one table of a report in a row may have."""

Report = dict[str, Any]


def stored(store: ObjectStore, report: Report, *, key: str) -> Report:
    """What the job's output keeps: ``report``, and where it is not all of it, ``report_object``.

    That has the ``key`` of the whole report, its ``bytes`` and ``sha256``.
    """
    small = slim(report)
    if small == report:
        return {"report": report}
    data = json.dumps(report, ensure_ascii=False, separators=(",", ":")).encode()
    store.put(key, data)
    digest = hashlib.sha256(data).hexdigest()
    return {
        "report": small,
        "report_object": {"key": key, "bytes": len(data), "sha256": digest},
    }


def slim(report: Report) -> Report:
    """The report with null for every table that is large."""
    return {name: _small(value) for name, value in report.items()}


def _small(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _small(inner) for name, inner in value.items()}
    if isinstance(value, list) and len(json.dumps(value, ensure_ascii=False).encode()) > LARGE:
        return None
    return value
