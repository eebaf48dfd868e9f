"""What is lost when the stack ends at once, in words for the terminal."""

from __future__ import annotations

from jobs import database
from jobs.queries import under_way
from jobs.queries.under_way import RunUnderWay


def words(database_url: str) -> list[str]:
    """A line for each run that loses steps, and one for the chunks. Raises SQLAlchemy's errors."""
    engine = database.connect(database_url, pool_size=1, name="nightshift-up")
    try:
        with database.sessions(engine).begin() as session:
            runs, chunks = under_way.runs(session), under_way.leased_chunks(session)
    finally:
        engine.dispose()
    lines = [_of_run(run) for run in runs]
    if chunks:
        lines.append(f"lost: what is done of {chunks} chunks, which are computed again")
    return lines


def _of_run(run: RunUnderWay) -> str:
    begun = run.stored or 0
    if run.step <= begun:
        return f"{run.job_id} loses no step: its checkpoint of step {begun} is stored"
    return f"lost: steps {begun + 1} to {run.step} of {run.job_id}, which goes on from " + (
        f"its checkpoint of step {begun}" if run.stored else "its beginning"
    )
