"""Publication of a run's result: upload, comparison with the incumbent, then one transaction.

The transaction registers the version, moves the alias and ends the job. The candidate and the
incumbent, which is the alias's version, are evaluated by the same program on the same rows. If the
alias moves meanwhile, the comparison is repeated with the new incumbent.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.orm import Session

from jobs import database, numbers
from jobs.decisions import promotion
from jobs.errors import AliasContended, ControlFlow
from jobs.kinds import FinetuneSpec
from jobs.ledger import promotions, ranks, rejected_versions, runs
from jobs.ledger import registry as ledger
from jobs.ledger.promotions import PromotionRecord
from jobs.ledger.ranks import RankLease
from jobs.lookups import held_promotions
from jobs.models import bundles, inspection, signatures
from jobs.models.bundles import BundleFile
from jobs.models.signatures import Signature
from jobs.queries import chunks
from jobs.results import reports
from jobs.results.reports import EvaluationReport
from workers.context import Context
from workers.gang import comparison, workfolder
from workers.gang.comparison import ADAPTER, Comparison, Evaluate
from workers.gang.rank_lease import HeldRank

log = structlog.get_logger()

MAX_COMPARISONS = 3
"""Comparisons of one candidate, which is compared again when its alias has moved."""

POSTGRES_SECONDS = 120.0

NOT_SHOWN = frozenset({"version", "reports"})
"""What the output of a job does not repeat of a decision."""


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
        compared = comparison.compare(
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
                    compared=compared,  # noqa: B023 - called before the loop goes on
                ),
                seconds=POSTGRES_SECONDS,
            )
        except AliasMoved:
            continue
        _delete_rejected(lease, spec, context=context)
        return
    raise AliasContended(
        f"the alias of {spec.model} was moved {MAX_COMPARISONS} times during comparisons"
    )


def _delete_rejected(lease: RankLease, spec: FinetuneSpec, *, context: Context) -> None:
    """Delete versions that lost before, as far as the spec keeps only the newest of them.

    The job has ended: what fails here is done by the next one of this name.
    """
    promote = spec.promote
    if promote is None or (promote.keep_rejected or promote.keep_rejected_for) is None:
        return
    try:
        with context.sessions.begin() as session:
            deleted = rejected_versions.delete(
                session,
                project_id=lease.project_id,
                name=spec.model,
                alias=promote.alias,
                keep=promote.keep_rejected,
                keep_for=promote.keep_rejected_for,
            )
    except Exception as error:  # noqa: BLE001 - the version is registered, whatever happens here
        log.warning("rejected versions could not be deleted", model=spec.model, error=str(error))
    else:
        log.info("rejected versions were deleted", model=spec.model, versions=deleted)


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
    compared: Comparison | None,
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
    decided = None
    if compared is not None:
        decided = _decide_promotion(session, lease, compared, name=spec.model, version=version)
    runs.succeed(
        session,
        lease,
        output={
            "model": f"{spec.model}@{version}",
            "version": version,
            **steps,
            **report,
            "promotion": decided,
            "bytes": bundles.size(files),
            "rows": lease.dataset["splits"]["train"]["rows"],
        },
    )


def _decide_promotion(
    session: Session, lease: RankLease, compared: Comparison, *, name: str, version: int
) -> dict[str, Any]:
    incumbent = compared.rating_of_incumbent(name)
    held = held_promotions.reason(
        session,
        project_id=lease.project_id,
        name=name,
        alias=compared.gate.alias,
        job_id=lease.job_id,
    )
    gate = dataclasses.replace(compared.gate, held_back=held)
    decision = promotion.decide(
        gate, candidate=compared.rating(f"{name}@{version}"), incumbent=incumbent
    )
    record = PromotionRecord(
        alias=compared.gate.alias,
        version=version,
        value=compared.value,
        incumbent=compared.incumbent,
        incumbent_value=compared.incumbent_value,
        metric=compared.metric,
        margin=compared.gate.margin,
        promoted=decision.promoted,
        reason=decision.reason,
        split=compared.split,
        rows=compared.rows,
        min_rows=compared.gate.min_rows,
        floors=decision.floors.as_json() if compared.gate.floors else None,
        reports=compared.reports,
    )
    recorded = promotions.record_promotion(
        session, record, project_id=lease.project_id, name=name, job_id=lease.job_id
    )
    if not recorded:
        raise AliasMoved
    shown = {key: value for key, value in vars(record).items() if key not in NOT_SHOWN}
    return {**numbers.storable(shown), "incumbent": incumbent.version if incumbent else None}


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
