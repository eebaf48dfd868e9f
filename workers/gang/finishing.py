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

from jobs import bundles, database, models
from jobs.bundles import File
from jobs.decisions import promoting
from jobs.decisions.judging import Outcome
from jobs.decisions.promoting import Rated
from jobs.errors import NotFound
from jobs.ledger import ranks, runs
from jobs.ledger import registry as ledger
from jobs.ledger.ranks import RankLease
from jobs.queries import chunks, registry
from jobs.specs import FinetuneSpec, Promote
from workers.context import Context
from workers.gang import shares, workfolder
from workers.gang.attendance import Attendance
from workers.gang.watching import Unfinished

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


class AliasMoved(Exception):
    """Somebody moved the alias between the comparison and the commit."""


def finish_training(
    folder: Path, attendance: Attendance, *, evaluate: Evaluate, context: Context
) -> None:
    """Store and register the result, and end the job. Raises ``LeaseLost``, ``OSError``."""
    held = attendance.held
    spec = _finetune(held)
    prefix = f"models/{held.project_id}/{spec.model}/{held.job_id}-{held.fence}"
    files = bundles.upload(context.store, folder / "result", prefix=prefix, beat=attendance.check)
    report = json.loads((folder / "report.json").read_bytes())
    lineage = _lineage(folder, held, context=context)
    for _ in range(COMPARISONS):
        compared = _compare(folder, held, report=report, evaluate=evaluate, context=context)
        try:
            database.patiently(
                context.sessions,
                lambda session: _commit(
                    session,
                    held,
                    files=files,
                    report=report,
                    lineage=lineage,
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
    output = {"report": report, "rows": report["rows"]}
    database.patiently(
        context.sessions,
        lambda session: runs.succeed(session, held, output=output),
        seconds=PATIENCE,
    )


def _finetune(held: RankLease) -> FinetuneSpec:
    assert isinstance(held.spec, FinetuneSpec)
    return held.spec


def _commit(
    session: Session,
    held: RankLease,
    *,
    files: list[File],
    report: Report,
    lineage: dict[str, Any],
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
        metrics=report,
        lineage=lineage,
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
            "report": report,
            "promotion": promotion,
            "bytes": bundles.size(files),
            "rows": held.dataset["splits"]["train"]["rows"],
        },
    )


def _promote(
    session: Session, held: RankLease, compared: Comparison, *, version: int
) -> dict[str, Any]:
    name, promote = _finetune(held).model, compared.promote
    incumbent = None
    if compared.incumbent is not None and compared.incumbent_value is not None:
        incumbent = Rated(f"{name}@{compared.incumbent}", compared.incumbent_value)
    decision = promoting.decide(
        alias=promote.alias,
        metric=compared.metric,
        margin=promote.margin,
        candidate=Rated(f"{name}@{version}", compared.value),
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
    with _folders(folder, held, incumbent=incumbent, context=context) as candidates:
        reports = _evaluated(_decisive_split(folder, held), candidates, evaluate=evaluate)
    return Comparison(
        promote=spec.promote,
        metric=metric,
        value=_number(reports[CANDIDATE][metric]),
        incumbent=incumbent,
        incumbent_value=None if incumbent is None else _number(reports[INCUMBENT].get(metric)),
    )


def _evaluated(split: str, candidates: dict[str, Path], *, evaluate: Evaluate) -> dict[str, Report]:
    """A report for each; an empty one for an incumbent that these rows cannot be asked of.

    That is so where it lacks a label that they have. It must not cost the candidate its training.
    """
    try:
        return evaluate(split, candidates)
    except Unfinished as unfinished:
        if unfinished.ending.outcome is not Outcome.FAULT or len(candidates) == 1:
            raise
        log.warning("the incumbent cannot be compared", reason=unfinished.ending.error)
    return {**evaluate(split, {CANDIDATE: candidates[CANDIDATE]}), INCUMBENT: {}}


@contextmanager
def _folders(
    folder: Path, held: RankLease, *, incumbent: int | None, context: Context
) -> Iterator[dict[str, Path]]:
    """Model folders by name, there while the block runs; an adapter finds its base beside it."""
    result = folder / "result"
    link = result / "base"
    if (result / ADAPTER).exists() and not link.is_symlink():
        link.symlink_to((folder / "base").resolve(), target_is_directory=True)
    if incumbent is None:
        yield {CANDIDATE: result}
        return
    reference = f"{_finetune(held).model}@{incumbent}"
    with context.artefacts.using(reference, project_id=held.project_id) as found:
        yield {CANDIDATE: result, INCUMBENT: found}


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
    return shares.write(folder / "data", spec=_finetune(held), facts=there["train"])


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
        "base": reference and {"reference": reference, "digest": models.inspect(base).digest},
        "code_version": workfolder.code_version(),
    }
