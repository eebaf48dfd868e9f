"""Evaluation reports: tables too large for a database row are kept in the object store.

A report is that of one evaluation, or one per split by name (docs/training.md). A confusion matrix
of thousands of labels exceeds the size of a row, so the job's row keeps the metrics and points to
an object with the whole report as JSON.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from jobs.objects import ObjectStore

MAX_TABLE_BYTES = 2**16
"""Bytes of JSON: a larger table of a report is not kept in the row."""

EvaluationReport = dict[str, Any]


def report_key(project_id: str, *, job_id: str, fence: int) -> str:
    """The key has the run's fence, so that a lost run's report is never the job's."""
    return f"reports/{project_id}/{job_id}-{fence}.json"


def stored(store: ObjectStore, report: EvaluationReport, *, key: str) -> EvaluationReport:
    """The fields of the job's output: ``report`` and, if tables were left out, ``report_object``.

    The latter has the ``key`` of the whole report, its ``bytes`` and ``sha256``.
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


def slim(report: EvaluationReport) -> EvaluationReport:
    """The report with null for every large table."""
    return {name: _slim_value(value) for name, value in report.items()}


def _slim_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _slim_value(inner) for name, inner in value.items()}
    if (
        isinstance(value, list)
        and len(json.dumps(value, ensure_ascii=False).encode()) > MAX_TABLE_BYTES
    ):
        return None
    return value
