"""What a run reports while it trains: points of its curves, lines of its logs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs import numbers
from jobs.ledger import events, ranks
from jobs.ledger.ranks import RankLease
from jobs.tables import LogLine, Point

EVALUATION = "validation/"
"""Names of what was measured on validation rows begin so; they make an event as well."""


def add_points(
    session: Session, lease: RankLease, points: Iterable[tuple[int, Mapping[str, float]]]
) -> None:
    """Write the metrics of steps; those of an earlier run at the same step are replaced.

    Raises ``LeaseLost``.
    """
    ranks.confirm(session, lease)
    rows = {
        (name, step): {
            "job_id": lease.job_id,
            "name": name,
            "step": step,
            "value": float(value),
            "run_number": lease.fence,
        }
        for step, values in points
        for name, value in values.items()
    }
    if not rows:
        return
    statement = insert(Point).values(list(rows.values()))
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[Point.job_id, Point.name, Point.step],
            set_={
                "value": statement.excluded.value,
                "run_number": statement.excluded.run_number,
                "at": statement.excluded.at,
            },
        )
    )
    _record_evaluations(session, lease, rows)


def add_log_lines(session: Session, lease: RankLease, lines: Sequence[str]) -> None:
    """Append to the rank's log, under any fence: the lines were written in any case."""
    if lines:
        session.execute(
            insert(LogLine),
            [
                {
                    "job_id": lease.job_id,
                    "run_number": lease.fence,
                    "rank": lease.rank,
                    "text": line[:4000].replace("\0", "\ufffd"),
                }
                for line in lines
            ],
        )


def _record_evaluations(
    session: Session, lease: RankLease, rows: Mapping[tuple[str, int], Mapping[str, object]]
) -> None:
    by_step: dict[int, dict[str, object]] = {}
    for (name, step), row in rows.items():
        if name.startswith(EVALUATION):
            metric = name.removeprefix(EVALUATION)
            by_step.setdefault(step, {})[metric] = numbers.storable(row["value"])
    for step, values in sorted(by_step.items()):
        events.record(
            session,
            job_id=lease.job_id,
            type="evaluation",
            run=lease.fence,
            step=step,
            values=values,
        )
