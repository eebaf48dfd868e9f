"""Publication of a run's result: upload, comparison with the incumbent, then one transaction.

The transaction registers the version, moves the alias and ends the job. The candidate and the
incumbent, which is the alias's version, are evaluated by the same program on the same rows. If the
alias moves meanwhile, the comparison is repeated with the new incumbent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.orm import Session

from jobs import database
from jobs.decisions import promotion
from jobs.decisions.promotion import RatedVersion, UnratedVersion
from jobs.decisions.run_verdict import RankOutcome
from jobs.errors import AliasContended, ControlFlow, ModelFailure, NotFound
from jobs.kinds import FinetuneSpec, Promote
from jobs.ledger import ranks, runs
from jobs.ledger import registry as ledger
from jobs.ledger.ranks import RankLease
from jobs.lookups import registry
from jobs.models import bundles, inspection, signatures
from jobs.models.bundles import BundleFile
from jobs.models.references import Registered
from jobs.models.signatures import Signature
from jobs.queries import chunks
from jobs.results import reports
from jobs.results.reports import EvaluationReport
from workers.context import Context
from workers.gang import validation_share, workfolder
from workers.gang.monitor import ProgramUnfinished, RankEnding
from workers.gang.rank_lease import HeldRank

log = structlog.get_logger()

MAX_COMPARISONS = 3
"""Comparisons of one candidate, which is compared again when its alias has moved."""

POSTGRES_SECONDS = 120.0
CANDIDATE, INCUMBENT = "candidate", "incumbent"
ADAPTER = "adapter_config.json"

Evaluate = Callable[[str, dict[str, Path]], dict[str, EvaluationReport]]
"""Runs the evaluation program on a split for named model folders; a report for each."""


@dataclass(frozen=True)
class Comparison:
    """The values of the metric that decide about an alias."""

    promote: Promote
    metric: str
    value: float
    incumbent: int | None
    incumbent_value: float | None
    incumbent_fault: str | None = None  # why the incumbent has no value


class AliasMoved(ControlFlow):
    """The alias has moved between the comparison and the commit."""


def check_name(lease: RankLease, spec: FinetuneSpec, *, context: Context) -> None:
    """Raise ``JobFailure``, before hours of training, for a name that cannot take the version."""
    with context.sessions.begin() as session:
        ledger.check_task(session, spec.model, task=spec.task, project_id=lease.project_id)


def finish_training(
    folder: Path, held: HeldRank, spec: FinetuneSpec, *, evaluate: Evaluate, context: Context
) -> None:
    """Store and register the result, and end the job. Raises ``LeaseLost``, ``AliasContended``."""
    lease = held.lease
    prefix = bundles.folder(lease.project_id, spec.model, job_id=lease.job_id, fence=lease.fence)
    files = bundles.upload(context.store, folder / "result", prefix=prefix, beat=held.check)
    report = json.loads((folder / "report.json").read_bytes())
    stored_report = reports.stored(context.store, report, key=_report_key(lease))
    steps = json.loads((folder / "steps.json").read_bytes())
    lineage = _lineage(folder, lease, context=context)
    signature = signatures.read(folder / "result")
    for _ in range(MAX_COMPARISONS):
        comparison = _compare(
            folder, lease, spec, report=report, evaluate=evaluate, context=context
        )
        try:
            database.patiently(
                context.sessions,
                lambda session: _commit(
                    session,
                    lease,
                    spec,
                    files=files,
                    report=stored_report,
                    steps=steps,
                    lineage=lineage,
                    signature=signature,
                    comparison=comparison,  # noqa: B023 - called before the loop goes on
                ),
                seconds=POSTGRES_SECONDS,
            )
        except AliasMoved:
            continue
        return
    raise AliasContended(
        f"the alias of {spec.model} was moved {MAX_COMPARISONS} times during comparisons"
    )


def finish_evaluation(
    folder: Path, held: HeldRank, *, evaluate: Evaluate, context: Context
) -> None:
    """End an evaluation job with its report."""
    lease = held.lease
    report = evaluate("test", {"model": folder / "base"})["model"]
    stored_report = reports.stored(context.store, report, key=_report_key(lease))
    output = {**stored_report, "rows": report["rows"]}
    database.patiently(
        context.sessions,
        lambda session: runs.succeed(session, lease, output=output),
        seconds=POSTGRES_SECONDS,
    )


def _report_key(lease: RankLease) -> str:
    return reports.report_key(lease.project_id, job_id=lease.job_id, fence=lease.fence)


def _commit(
    session: Session,
    lease: RankLease,
    spec: FinetuneSpec,
    *,
    files: list[BundleFile],
    report: EvaluationReport,
    steps: dict[str, int | None],
    lineage: dict[str, Any],
    signature: Signature | None,
    comparison: Comparison | None,
) -> None:
    ranks.confirm(session, lease)
    version = ledger.register(
        session,
        project_id=lease.project_id,
        name=spec.model,
        task=spec.task,
        kind="adapter" if any(file["path"] == ADAPTER for file in files) else "full",
        base=lease.model_pinned or spec.base,
        files=files,
        metrics=report["report"],
        lineage=lineage,
        signature=signature,
        job_id=lease.job_id,
    )
    promotion = None
    if comparison is not None:
        promotion = _decide_promotion(session, lease, comparison, name=spec.model, version=version)
    runs.succeed(
        session,
        lease,
        output={
            "model": f"{spec.model}@{version}",
            "version": version,
            **steps,
            **report,
            "promotion": promotion,
            "bytes": bundles.size(files),
            "rows": lease.dataset["splits"]["train"]["rows"],
        },
    )


def _decide_promotion(
    session: Session, lease: RankLease, comparison: Comparison, *, name: str, version: int
) -> dict[str, Any]:
    promote = comparison.promote
    incumbent = _incumbent_rating(name, comparison)
    decision = promotion.decide(
        alias=promote.alias,
        metric=comparison.metric,
        margin=promote.margin,
        candidate=RatedVersion(f"{name}@{version}", comparison.value),
        incumbent=incumbent,
    )
    record: dict[str, Any] = {
        "alias": promote.alias,
        "metric": comparison.metric,
        "margin": promote.margin,
        "value": comparison.value,
        "incumbent_value": comparison.incumbent_value,
        "promoted": decision.promoted,
        "reason": decision.reason,
    }
    recorded = ledger.record_promotion(
        session,
        project_id=lease.project_id,
        name=name,
        version=version,
        expected_incumbent=comparison.incumbent,
        job_id=lease.job_id,
        **record,
    )
    if not recorded:
        raise AliasMoved
    finite = {  # JSON has no NaN
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in record.items()
    }
    return {**finite, "incumbent": incumbent.version if incumbent else None}


def _incumbent_rating(name: str, comparison: Comparison) -> RatedVersion | UnratedVersion | None:
    if comparison.incumbent is None or comparison.incumbent_value is None:
        return None
    version = f"{name}@{comparison.incumbent}"
    if comparison.incumbent_fault is not None:
        return UnratedVersion(version, comparison.incumbent_fault)
    return RatedVersion(version, comparison.incumbent_value)


def _compare(
    folder: Path,
    lease: RankLease,
    spec: FinetuneSpec,
    *,
    report: EvaluationReport,
    evaluate: Evaluate,
    context: Context,
) -> Comparison | None:
    """The metric of candidate and incumbent; ``None``: the job asks for no promotion."""
    if spec.promote is None:
        return None
    incumbent = _incumbent(spec, lease, context=context)
    metric = spec.promote.metric or spec.metric
    if incumbent is None and spec.promote.corpus is None:  # no comparison, and no rows of its own
        rows: EvaluationReport = report["test"] if "test" in report else report["validation"]
        return Comparison(spec.promote, metric, _metric_value(rows[metric]), None, None)
    split = _decisive_split(folder, lease, spec)
    measured, fault = _evaluate_candidates(
        split, folder, lease, spec, incumbent=incumbent, evaluate=evaluate, context=context
    )
    incumbent_report = measured.get(INCUMBENT, {})
    return Comparison(
        promote=spec.promote,
        metric=metric,
        value=_metric_value(measured[CANDIDATE][metric]),
        incumbent=incumbent,
        incumbent_value=None if incumbent is None else _metric_value(incumbent_report.get(metric)),
        incumbent_fault=fault,
    )


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
    """A report for each model, and the reason, in words, if the incumbent has none.

    No fault of the incumbent may cost the candidate its training.
    """
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


def _decisive_split(folder: Path, lease: RankLease, spec: FinetuneSpec) -> str:
    """The split that decides: promotion, else test, else validation."""
    splits = lease.dataset["splits"]
    for name in ("promotion", "test", "validation"):
        if name in splits:
            return name
    return validation_share.write(folder / "data", spec=spec, facts=splits["train"])


def _metric_value(value: float | None) -> float:
    """A metric's value; a report has null for NaN and infinity."""
    return math.nan if value is None else float(value)


def _lineage(folder: Path, lease: RankLease, *, context: Context) -> dict[str, Any]:
    """Lineage of the version: job, recipe, data with hashes, base with digest, code."""
    with context.sessions.begin() as session:
        shards = chunks.shards(session, lease.job_id)
    data = {
        split: {
            "fingerprint": facts.get("fingerprint"),
            "rows": facts.get("rows"),
            "sha256": bundles.digest(
                {"path": f"{shard.index}", "sha256": shard.sha256}
                for shard in shards
                if shard.split == split
            ),
        }
        for split, facts in lease.dataset["splits"].items()
    }
    reference = lease.model_pinned or workfolder.reference_of(lease.spec)
    base = folder / "base"
    return {
        "job": lease.job_id,
        "run": lease.fence,
        "machines": lease.machines,
        "spec": lease.spec.model_dump(mode="json"),
        "data": data,
        "base": reference and {"reference": reference, "digest": inspection.inspect(base).digest},
        "code_version": workfolder.code_version(),
    }
