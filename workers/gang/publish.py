"""The end of a job that went well: its result is stored, compared, registered, in one transaction.

The candidate and what the alias points to are evaluated by the same program on the same rows. If
the alias moves meanwhile, the comparison is made again with what it points to then.
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
from jobs.decisions.run_verdict import Outcome
from jobs.errors import ModelFailure, NotFound
from jobs.kinds import FinetuneSpec, Promote
from jobs.ledger import ranks, runs
from jobs.ledger import registry as ledger
from jobs.ledger.ranks import RankLease
from jobs.lookups import registry
from jobs.models import bundles, inspection, signatures
from jobs.models.bundles import File
from jobs.models.references import Registered
from jobs.models.signatures import Signature
from jobs.queries import chunks
from jobs.results import reports
from workers.context import Context
from workers.gang import validation_share, workfolder
from workers.gang.monitor import Ending, Unfinished
from workers.gang.rank_lease import Attendance

log = structlog.get_logger()

COMPARISONS = 3
"""Times that a candidate is compared anew because the alias was moved meanwhile."""

PATIENCE = 120.0
CANDIDATE, INCUMBENT = "candidate", "incumbent"
ADAPTER = "adapter_config.json"

Report = dict[str, Any]
"""An evaluation, or one for each split; see docs/training.md."""

Evaluate = Callable[[str, dict[str, Path]], dict[str, Report]]
"""Runs the evaluate program on a split for named model folders; a report for each."""


@dataclass(frozen=True)
class Comparison:
    """The two numbers that decide about an alias."""

    promote: Promote
    metric: str
    value: float
    incumbent: int | None
    incumbent_value: float | None
    incumbent_fault: str | None = None  # why the incumbent has no number


class AliasMoved(Exception):
    """Somebody moved the alias between the comparison and the commit."""


def check_name(held: RankLease, *, context: Context) -> None:
    """Raise ``JobFailure`` for a name that cannot have the version, before hours are spent."""
    spec = _finetune(held)
    with context.sessions.begin() as session:
        ledger.check_task(session, spec.model, task=spec.task, project_id=held.project_id)


def finish_training(
    folder: Path, attendance: Attendance, *, evaluate: Evaluate, context: Context
) -> None:
    """Store and register the result, and end the job. Raises ``LeaseLost``, ``OSError``."""
    held = attendance.held
    spec = _finetune(held)
    prefix = f"models/{held.project_id}/{spec.model}/{held.job_id}-{held.fence}"
    files = bundles.upload(context.store, folder / "result", prefix=prefix, beat=attendance.check)
    report = json.loads((folder / "report.json").read_bytes())
    kept = reports.stored(context.store, report, key=_report_key(held))
    steps = json.loads((folder / "steps.json").read_bytes())
    lineage = _lineage(folder, held, context=context)
    signature = signatures.read(folder / "result")
    for _ in range(COMPARISONS):
        compared = _compare(folder, held, report=report, evaluate=evaluate, context=context)
        try:
            database.patiently(
                context.sessions,
                lambda session: _commit(
                    session,
                    held,
                    files=files,
                    report=kept,
                    steps=steps,
                    lineage=lineage,
                    signature=signature,
                    compared=compared,  # noqa: B023 - called before the loop goes on
                ),
                seconds=PATIENCE,
            )
        except AliasMoved:
            continue
        return
    raise OSError(f"the alias of {spec.model} was moved {COMPARISONS} times during comparisons")


def finish_evaluation(
    folder: Path, attendance: Attendance, *, evaluate: Evaluate, context: Context
) -> None:
    """End an evaluation with its report."""
    held = attendance.held
    report = evaluate("test", {"model": folder / "base"})["model"]
    kept = reports.stored(context.store, report, key=_report_key(held))
    output = {**kept, "rows": report["rows"]}
    database.patiently(
        context.sessions,
        lambda session: runs.succeed(session, held, output=output),
        seconds=PATIENCE,
    )


def _report_key(held: RankLease) -> str:
    """Of this run: what a run that has been lost wrote is never pointed to."""
    return f"reports/{held.project_id}/{held.job_id}-{held.fence}.json"


def _finetune(held: RankLease) -> FinetuneSpec:
    assert isinstance(held.spec, FinetuneSpec)
    return held.spec


def _commit(
    session: Session,
    held: RankLease,
    *,
    files: list[File],
    report: Report,
    steps: dict[str, int | None],
    lineage: dict[str, Any],
    signature: Signature | None,
    compared: Comparison | None,
) -> None:
    spec = _finetune(held)
    ranks.confirm(session, held)
    version = ledger.register(
        session,
        project_id=held.project_id,
        name=spec.model,
        task=spec.task,
        kind="adapter" if any(file["path"] == ADAPTER for file in files) else "full",
        base=held.model_pinned or spec.base,
        files=files,
        metrics=report["report"],
        lineage=lineage,
        signature=signature,
        job_id=held.job_id,
    )
    promotion = None
    if compared is not None:
        promotion = _promote(session, held, compared, version=version)
    runs.succeed(
        session,
        held,
        output={
            "model": f"{spec.model}@{version}",
            "version": version,
            **steps,
            **report,
            "promotion": promotion,
            "bytes": bundles.size(files),
            "rows": held.dataset["splits"]["train"]["rows"],
        },
    )


def _promote(
    session: Session, held: RankLease, compared: Comparison, *, version: int
) -> dict[str, Any]:
    name, promote = _finetune(held).model, compared.promote
    incumbent = _rated(name, compared)
    decision = promotion.decide(
        alias=promote.alias,
        metric=compared.metric,
        margin=promote.margin,
        candidate=RatedVersion(f"{name}@{version}", compared.value),
        incumbent=incumbent,
    )
    numbers: dict[str, Any] = {
        "alias": promote.alias,
        "metric": compared.metric,
        "margin": promote.margin,
        "value": compared.value,
        "incumbent_value": compared.incumbent_value,
        "promoted": decision.promoted,
        "reason": decision.reason,
    }
    kept = ledger.record_promotion(
        session,
        project_id=held.project_id,
        name=name,
        version=version,
        expected_incumbent=compared.incumbent,
        job_id=held.job_id,
        **numbers,
    )
    if not kept:
        raise AliasMoved
    shown = {  # JSON knows no NaN
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in numbers.items()
    }
    return {**shown, "incumbent": incumbent.version if incumbent else None}


def _rated(name: str, compared: Comparison) -> RatedVersion | UnratedVersion | None:
    if compared.incumbent is None or compared.incumbent_value is None:
        return None
    version = f"{name}@{compared.incumbent}"
    if compared.incumbent_fault is not None:
        return UnratedVersion(version, compared.incumbent_fault)
    return RatedVersion(version, compared.incumbent_value)


def _compare(
    folder: Path, held: RankLease, *, report: Report, evaluate: Evaluate, context: Context
) -> Comparison | None:
    """The numbers of the candidate and of what the alias points to; ``None``: none is asked for."""
    spec = _finetune(held)
    if spec.promote is None:
        return None
    incumbent = _incumbent(spec, held, context=context)
    metric = spec.promote.metric or spec.metric
    if incumbent is None and spec.promote.corpus is None:  # nobody to compare with on those rows
        rows: Report = report["test"] if "test" in report else report["validation"]
        return Comparison(spec.promote, metric, _number(rows[metric]), None, None)
    split = _decisive_split(folder, held)
    measured, fault = _evaluated(
        split, folder, held, incumbent=incumbent, evaluate=evaluate, context=context
    )
    theirs = measured.get(INCUMBENT, {})
    return Comparison(
        promote=spec.promote,
        metric=metric,
        value=_number(measured[CANDIDATE][metric]),
        incumbent=incumbent,
        incumbent_value=None if incumbent is None else _number(theirs.get(metric)),
        incumbent_fault=fault,
    )


def _evaluated(
    split: str,
    folder: Path,
    held: RankLease,
    *,
    incumbent: int | None,
    evaluate: Evaluate,
    context: Context,
) -> tuple[dict[str, Report], str | None]:
    """A report for each; none for an incumbent that cannot be evaluated, and why, in words.

    Whatever is wrong with the incumbent must not cost the candidate its training.
    """
    fault = None
    with _linked(folder) as result:
        if incumbent is not None:
            try:
                return _both(
                    split, result, held, incumbent=incumbent, evaluate=evaluate, context=context
                ), None
            except ModelFailure as failure:
                fault = failure.message
            except Unfinished as unfinished:
                fault = _words(unfinished.ending)
                if fault is None:
                    raise
            log.warning("the incumbent cannot be compared", reason=fault)
        return evaluate(split, {CANDIDATE: result}), fault


def _both(
    split: str,
    result: Path,
    held: RankLease,
    *,
    incumbent: int,
    evaluate: Evaluate,
    context: Context,
) -> dict[str, Report]:
    """Reports on the candidate and the incumbent. Raises ``ModelFailure`` and ``Unfinished``."""
    spec, name = _finetune(held), Registered(_finetune(held).model, incumbent)
    with context.sessions.begin() as session:
        version = registry.version(session, name, project_id=held.project_id)
        several = (version.lineage.get("spec") or {}).get("multi_label", spec.multi_label)
        task = version.task
    if task != spec.task:
        raise ModelFailure(f"it is for {task}, and the new version for {spec.task}")
    if several != spec.multi_label:
        given = {True: "any number of labels", False: "one label"}
        raise ModelFailure(
            f"it gives a row {given[several]}, and the new version {given[spec.multi_label]}"
        )
    reference = f"{name.name}@{incumbent}"
    with context.artefacts.using(reference, project_id=held.project_id) as found:
        return evaluate(split, {CANDIDATE: result, INCUMBENT: found})


def _words(ending: Ending) -> str | None:
    """Why an evaluation did not end well; ``None`` where that is nobody's fault."""
    if ending.outcome is Outcome.FAULT:
        return ending.error
    if ending.outcome is Outcome.STALLED:
        return "its evaluation stood still"
    if ending.outcome is Outcome.CRASHED:
        last = (ending.error or "").strip().splitlines()[-1:]
        return f"its evaluation crashed: {last[0] if last else f'exit code {ending.exit_code}'}"
    return None


@contextmanager
def _linked(folder: Path) -> Iterator[Path]:
    """The result's folder; an adapter finds its base beside it while the block runs."""
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


def _incumbent(spec: FinetuneSpec, held: RankLease, *, context: Context) -> int | None:
    assert spec.promote is not None
    try:
        with context.sessions.begin() as session:
            alias = registry.alias(
                session, spec.model, spec.promote.alias, project_id=held.project_id
            )
            return alias.version
    except NotFound:
        return None


def _decisive_split(folder: Path, held: RankLease) -> str:
    """The rows that decide: those named for it, else those of the test, else of the validation."""
    there = held.dataset["splits"]
    for name in ("promotion", "test", "validation"):
        if name in there:
            return name
    return validation_share.write(folder / "data", spec=_finetune(held), facts=there["train"])


def _number(value: float | None) -> float:
    """A metric's value; null stands for one that is no number."""
    return math.nan if value is None else float(value)


def _lineage(folder: Path, held: RankLease, *, context: Context) -> dict[str, Any]:
    """Where the version comes from: job, recipe, data with hashes, base with digest, code."""
    with context.sessions.begin() as session:
        shards = chunks.shards(session, held.job_id)
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
        for split, facts in held.dataset["splits"].items()
    }
    reference = held.model_pinned or workfolder.reference_of(held.spec)
    base = folder / "base"
    return {
        "job": held.job_id,
        "run": held.fence,
        "machines": held.machines,
        "spec": held.spec.model_dump(mode="json"),
        "data": data,
        "base": reference and {"reference": reference, "digest": inspection.inspect(base).digest},
        "code_version": workfolder.code_version(),
    }
