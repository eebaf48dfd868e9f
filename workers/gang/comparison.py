"""Comparison of a new version with the one that an alias points to, on the same rows.

Both are evaluated by the same program. No fault of the incumbent may cost the candidate its
training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from jobs.decisions.promotion import (
    MEASURES,
    Floors,
    Gate,
    LabelScores,
    RatedVersion,
    UnratedVersion,
)
from jobs.decisions.run_verdict import RankOutcome
from jobs.errors import ModelFailure, NotFound
from jobs.kinds import FinetuneSpec, Promote
from jobs.ledger.ranks import RankLease
from jobs.lookups import registry
from jobs.models.references import Registered
from jobs.results import reports
from jobs.results.reports import EvaluationReport
from workers.context import Context
from workers.gang import validation_share
from workers.gang.monitor import ProgramUnfinished, RankEnding

log = structlog.get_logger()

CANDIDATE, INCUMBENT = "candidate", "incumbent"
ADAPTER = "adapter_config.json"

Evaluate = Callable[[str, dict[str, Path]], dict[str, EvaluationReport]]
"""Runs the evaluation program on a split for named model folders; a report for each."""


@dataclass(frozen=True)
class Comparison:
    """What candidate and incumbent measured on the rows that decide about an alias."""

    gate: Gate
    split: str  # validation, test or promotion: which rows decide
    report: EvaluationReport
    incumbent: int | None  # null: the alias points nowhere
    incumbent_report: EvaluationReport | None
    incumbent_fault: str | None = None  # why the incumbent has no report

    @property
    def metric(self) -> str:
        """The metric that decides."""
        return self.gate.metric

    @property
    def rows(self) -> int | None:
        """How many rows decide."""
        found: int | None = self.report.get("rows")
        return found

    @property
    def value(self) -> float:
        """The metric of the candidate."""
        return _metric_value(self.report[self.metric])

    @property
    def incumbent_value(self) -> float | None:
        """The metric of the incumbent; null: the alias points nowhere."""
        if self.incumbent is None:
            return None
        return _metric_value((self.incumbent_report or {}).get(self.metric))

    @property
    def reports(self) -> dict[str, EvaluationReport | None]:
        """Both reports, without large tables, as they are stored with the decision."""
        theirs = self.incumbent_report
        return {
            CANDIDATE: reports.slim(self.report),
            INCUMBENT: None if theirs is None else reports.slim(theirs),
        }

    def rating(self, version: str) -> RatedVersion:
        """The candidate, under its name and number."""
        return RatedVersion(version, self.value, self.rows, _labels(self.report))

    def rating_of_incumbent(self, name: str) -> RatedVersion | UnratedVersion | None:
        """The incumbent, or why it has no metric; ``None``: the alias points nowhere."""
        if self.incumbent is None:
            return None
        version, report = f"{name}@{self.incumbent}", self.incumbent_report
        if self.incumbent_fault is not None:
            return UnratedVersion(version, self.incumbent_fault)
        assert report is not None
        value = _metric_value(report.get(self.metric))
        return RatedVersion(version, value, report.get("rows"), _labels(report))


def compare(
    folder: Path,
    lease: RankLease,
    spec: FinetuneSpec,
    *,
    report: EvaluationReport,
    evaluate: Evaluate,
    context: Context,
) -> Comparison | None:
    """Evaluate candidate and incumbent; ``None``: the job asks for no promotion."""
    promote = spec.promote
    if promote is None:
        return None
    gate = _gate(promote, metric=promote.metric or spec.metric)
    incumbent = _incumbent(spec, lease, context=context)
    split = next((name for name in ("promotion", "test") if name in _splits(lease)), "validation")
    if incumbent is None and split in report:  # there is nothing to evaluate but what was
        return Comparison(gate, split, report[split], None, None)
    measured, fault = _evaluate_candidates(
        _written(split, folder, lease, spec),
        folder,
        lease,
        spec,
        incumbent=incumbent,
        evaluate=evaluate,
        context=context,
    )
    return Comparison(
        gate=gate,
        split=split,
        report=measured[CANDIDATE],
        incumbent=incumbent,
        incumbent_report=measured.get(INCUMBENT),
        incumbent_fault=fault,
    )


def _gate(promote: Promote, *, metric: str) -> Gate:
    floors = promote.floors
    return Gate(
        alias=promote.alias,
        metric=metric,
        margin=promote.margin,
        min_rows=promote.min_rows,
        floors=Floors(floors.drops, floors.least, floors.rows) if floors else Floors(),
    )


def _labels(report: EvaluationReport) -> dict[str, LabelScores] | None:
    """The measures of each label; ``None``: the report has none."""
    rows: list[Mapping[str, Any]] | None = report.get("per_label")
    if rows is None:
        return None
    return {
        row["label"]: LabelScores(row["rows"], {measure: row[measure] for measure in MEASURES})
        for row in rows
    }


def _evaluate_candidates(
    split: str,
    folder: Path,
    lease: RankLease,
    spec: FinetuneSpec,
    *,
    incumbent: int | None,
    evaluate: Evaluate,
    context: Context,
) -> tuple[dict[str, EvaluationReport], str | None]:
    """A report for each model, and the reason, in words, if the incumbent has none."""
    fault = None
    with _with_base_linked(folder) as result:
        if incumbent is not None:
            try:
                return _evaluate_both(
                    split,
                    result,
                    lease,
                    spec,
                    incumbent=incumbent,
                    evaluate=evaluate,
                    context=context,
                ), None
            except ModelFailure as failure:
                fault = failure.message
            except ProgramUnfinished as unfinished:
                fault = _failure_reason(unfinished.ending)
                if fault is None:
                    raise
            log.warning("the incumbent cannot be compared", reason=fault)
        return evaluate(split, {CANDIDATE: result}), fault


def _evaluate_both(
    split: str,
    result: Path,
    lease: RankLease,
    spec: FinetuneSpec,
    *,
    incumbent: int,
    evaluate: Evaluate,
    context: Context,
) -> dict[str, EvaluationReport]:
    """Reports on candidate and incumbent. Raises ``ModelFailure`` or ``ProgramUnfinished``."""
    name = Registered(spec.model, incumbent)
    with context.sessions.begin() as session:
        version = registry.version(session, name, project_id=lease.project_id)
        multi_label = (version.lineage.get("spec") or {}).get("multi_label", spec.multi_label)
        task = version.task
    if task != spec.task:
        raise ModelFailure(f"it is for {task}, and the new version for {spec.task}")
    if multi_label != spec.multi_label:
        given = {True: "any number of labels", False: "one label"}
        raise ModelFailure(
            f"it gives a row {given[multi_label]}, and the new version {given[spec.multi_label]}"
        )
    reference = f"{name.name}@{incumbent}"
    with context.artefacts.using(reference, project_id=lease.project_id) as incumbent_folder:
        return evaluate(split, {CANDIDATE: result, INCUMBENT: incumbent_folder})


def _failure_reason(ending: RankEnding) -> str | None:
    """Why the incumbent's evaluation failed; ``None`` if the cause is not the incumbent."""
    if ending.outcome is RankOutcome.FAULT:
        return ending.error
    if ending.outcome is RankOutcome.STALLED:
        return "its evaluation stood still"
    if ending.outcome is RankOutcome.CRASHED:
        last = (ending.error or "").strip().splitlines()[-1:]
        return f"its evaluation crashed: {last[0] if last else f'exit code {ending.exit_code}'}"
    return None


@contextmanager
def _with_base_linked(folder: Path) -> Iterator[Path]:
    """The result's folder; an adapter's base is linked into it while the block runs."""
    result = folder / "result"
    link = result / "base"
    if not (result / ADAPTER).exists():
        yield result
        return
    link.symlink_to((folder / "base").resolve(), target_is_directory=True)
    try:
        yield result
    finally:
        link.unlink()


def _incumbent(spec: FinetuneSpec, lease: RankLease, *, context: Context) -> int | None:
    assert spec.promote is not None
    try:
        with context.sessions.begin() as session:
            alias = registry.alias(
                session, spec.model, spec.promote.alias, project_id=lease.project_id
            )
            return alias.version
    except NotFound:
        return None


def _splits(lease: RankLease) -> Mapping[str, Any]:
    found: Mapping[str, Any] = lease.dataset["splits"]
    return found


def _written(split: str, folder: Path, lease: RankLease, spec: FinetuneSpec) -> str:
    """The folder of the split's rows; a share of the training rows is written first."""
    if split in _splits(lease):
        return split
    return validation_share.write(folder / "data", spec=spec, facts=_splits(lease)["train"])


def _metric_value(value: float | None) -> float:
    """A metric's value; a report has null for NaN and infinity."""
    return math.nan if value is None else float(value)
