"""What the example prints at its end: fires, what they took, gates, the alias, and what held."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from api.cli import console, tables
from api.cli.failures import FAILED, Failure
from api.cli.nightly.facts import ALIAS, MODEL, Facts, Fire, Input, Job


def show(facts: Facts) -> None:
    """The tables."""
    _title("fires")
    tables.table(
        ("NIGHT", "SCHEDULE", "FIRE TIME", "LET GO", "ENDED", "STATE", "JOB", "RUNS", "REASON"),
        [_fire_row(number, name, fire) for number, name, fire in _fires(facts)],
    )
    _title("what each fire took")
    tables.table(
        ("NIGHT", "JOB", "FOR", "OBJECT OR QUERY", "ROWS", "SINCE", "UNTIL"),
        [row for number, _, fire in _fires(facts) for row in _input_rows(number, fire)],
    )
    _title("gates: both versions on the same rows")
    tables.table(
        ("NIGHT", "METRIC", "ROWS", "NEW", "VALUE", "CHAMPION", "VALUE", "PROMOTED", "WHY"),
        [row for number, fire in enumerate(facts.training, 1) for row in _gate_rows(number, fire)],
    )
    _title(f"{MODEL}@{ALIAS}")
    tables.table(
        ("SINCE", "UNTIL", "VERSION", "BY", "JOB"),
        [
            (_time(move.since), _time(move.until), move.version, move.how, move.job)
            for move in facts.moves
        ],
    )
    _title("labels")
    tables.table(
        ("NIGHT", "JOB", "MODEL", "ROWS", "JOBS VERIFY"),
        [
            row
            for number, fire in enumerate(facts.labelling, 1)
            for row in _label_rows(number, fire)
        ],
    )
    _title("what the receiver of webhooks was told")
    tables.table(("EVENT", "FIRE OR JOB"), facts.told.events)


def judge(broken: Mapping[str, Sequence[str]], *, logs: Path) -> None:
    """Say which sentences hold. Raises ``Failure`` unless all do."""
    _title("what must hold")
    for sentence, problems in broken.items():
        console.line(f"{'no ' if problems else 'yes'}  {sentence}")
        for problem in problems:
            console.line(f"     {problem}")
    wrong = sum(map(bool, broken.values()))
    if wrong:
        raise Failure(f"{wrong} of {len(broken)} do not hold; the logs are in {logs}", code=FAILED)
    console.line(f"\nall {len(broken)} hold")


def write(path: Path, facts: Facts, broken: Mapping[str, Sequence[str]]) -> None:
    """The same for programs."""
    found = {"facts": asdict(facts), "broken": broken}
    path.write_text(json.dumps(found, indent=2, default=str) + "\n", encoding="utf-8")


def _fires(facts: Facts) -> Iterator[tuple[int, str, Fire]]:
    """Every fire by night: training before labelling."""
    for place in range(max(len(facts.training), len(facts.labelling))):
        for name, found in (("nightly", facts.training), ("labels", facts.labelling)):
            yield from ((place + 1, name, fire) for fire in found[place : place + 1])


def _fire_row(number: int, name: str, fire: Fire) -> tuple[Any, ...]:
    runs = "" if fire.job is None else ", ".join(_runs(fire.job))
    return (
        number,
        name,
        _time(fire.fire_time),
        _time(fire.submitted_at),
        _time(fire.ended_at),
        fire.state,
        fire.job and fire.job.id,
        runs or None,
        fire.reason,
    )


def _runs(job: Job) -> Iterator[str]:
    for run in job.runs:
        resumed = f" from step {run.from_step}" if run.from_step else ""
        yield f"{run.state}{resumed} at step {run.step}"


def _input_rows(number: int, fire: Fire) -> Iterator[tuple[Any, ...]]:
    if fire.job is None:
        return
    for each in fire.job.inputs:
        since, until = _bounds(each)
        yield number, fire.job.id, each.split, each.name, each.rows, since, until


def _bounds(found: Input) -> tuple[str | None, str | None]:
    """The bounds of a query to the second."""
    cut = [bound and console.moment(bound) for bound in (found.since, found.until)]
    return cut[0], cut[1]


def _gate_rows(number: int, fire: Fire) -> Iterator[tuple[Any, ...]]:
    decision = fire.job and fire.job.decision
    if not decision:
        return
    yield (
        number,
        decision.metric,
        decision.rows,
        f"{MODEL}@{decision.version}",
        _value(decision.value),
        None if decision.incumbent is None else f"{MODEL}@{decision.incumbent}",
        _value(decision.incumbent_value),
        "yes" if decision.promoted else "no",
        decision.reason,
    )


def _label_rows(number: int, fire: Fire) -> Iterator[tuple[Any, ...]]:
    if fire.job is not None:
        words = {True: "verified", False: "NOT verified", None: None}[fire.job.verified]
        yield number, fire.job.id, fire.job.model, fire.job.rows, words


def _value(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment:%H:%M:%S}"


def _title(text: str) -> None:
    console.line(f"\n{text}")
