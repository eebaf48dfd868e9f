"""How long Flower's tabs take with many jobs in the database.

``python -m benchmarks.flower_jobs [JOBS] [--rounds N]``. A real Postgres with that many jobs, the
newest of which run, and a real Flower. The pages take turns; seconds are those between a request
over the loopback interface and the last byte of its answer.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import sqlalchemy as sa

from api.stack import ports
from api.stack import postgres as postgres_server
from api.stack import valkey as valkey_server
from benchmarks import machine
from jobs import database
from jobs.tables import Job
from tests.jobs.ledger.building import OTHER, Ledger
from tests.support.installation import Installation
from tests.support.servers import Server
from tests.workers.flower import shown

JOBS = 100_000
ROUNDS = 21
RUNNING = 100
"""Jobs that run, the newest; the others have ended."""

CHUNKS = 100
"""Of each job that runs."""

RARE = "once in the whole history"


def main() -> None:
    given = _arguments()
    with _served() as installation:
        ledger = Ledger(installation.settings.database_url)
        begun = time.perf_counter()
        job_id = _fill(ledger, given.jobs)
        print(f"{given.jobs:,} jobs are there after {time.perf_counter() - begun:.0f} s")
        with shown.flower(installation) as flower:
            seconds = _measure(flower, _pages(job_id, jobs=given.jobs), rounds=given.rounds)
    machine.keep(
        f"flower_jobs_{given.jobs}",
        {
            "jobs": given.jobs,
            "jobs_that_run": RUNNING,
            "chunks_of_each": CHUNKS,
            "rounds": given.rounds,
            "median_seconds": {name: statistics.median(each) for name, each in seconds.items()},
            "largest_seconds": {name: max(each) for name, each in seconds.items()},
        },
    )


def _pages(job_id: str, *, jobs: int) -> dict[str, str]:
    return {
        "the newest jobs": "/jobs",
        "a page in the middle": f"/jobs?after=job_old_{jobs // 2}",
        "jobs that run": "/jobs?state=running",
        "jobs that failed": "/jobs?state=failed",
        "a project without jobs": "/jobs?project=nowhere",
        "a part of many names": "/jobs?text=nightly",
        "a part of one name": f"/jobs?text={RARE.replace(' ', '%20')}",
        "a part of no model": "/jobs?model=no%20such",
        "an id": f"/jobs?text={job_id}",
        "a job": f"/jobs/{job_id}",
        "pools and hosts": "/pools",
        "queues": "/queues",
    }


def _measure(flower: httpx.Client, pages: dict[str, str], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of each page in each round, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in pages}
    for round_ in range(rounds + 1):
        for name, path in pages.items():
            begun = time.perf_counter()
            answer = flower.get(path)
            took = time.perf_counter() - begun
            assert answer.status_code == httpx.codes.OK, (path, answer.text)
            if round_:
                seconds[name].append(took)
    for name, each in seconds.items():
        print(f"{name:<24} {statistics.median(each):.3f} s, at most {max(each):.3f} s")
    return seconds


def _fill(ledger: Ledger, jobs: int) -> str:
    """Jobs that have ended, then some that run; returns the id of one of these."""
    ended = ledger.running(10, 10, name="nightly", model="/models/news")
    ledger.commit_all(ended, failed=1)
    ledger.finish(ended)
    failed = ledger.accept(name="nightly mail", model="/models/mail", project=OTHER)
    ledger.set(
        failed,
        state="failed",
        error_code="bad_corpus",
        error_message="-",
        finished_at=sa.func.now(),
    )
    copied = ", ".join(c.name for c in sa.inspect(Job).columns if c.name != "id")
    with ledger.sessions.begin() as session:
        session.execute(
            sa.text(
                f"INSERT INTO jobs (id, {copied}) SELECT 'job_old_' || n, "
                + copied.replace("created_at", "created_at - n * interval '1 min'")
                + f" FROM generate_series(1, {jobs - RUNNING - 2}) AS n JOIN jobs ON id = "
                "CASE WHEN n % 20 = 0 THEN :failed ELSE :ended END"
            ),
            {"ended": ended, "failed": failed},
        )
        session.execute(
            sa.text(
                "UPDATE jobs SET spec = jsonb_set(spec::jsonb, '{name}', to_jsonb(:name)) "
                "WHERE id = :id"
            ),
            {"name": RARE, "id": f"job_old_{jobs - RUNNING - 2}"},
        )
    newest = [
        ledger.running(*[1_000] * CHUNKS, name=f"live {n}", model="/models/news")
        for n in range(RUNNING)
    ]
    with ledger.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE"))
    return newest[-1]


@contextmanager
def _served() -> Iterator[Installation]:
    """An installation with servers and no processes."""
    with ExitStack() as stack, tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        home = Path(folder)
        home.chmod(0o711)  # Postgres runs as another user when we are root
        postgres = Server(
            *postgres_server.service(home, port=ports.choose(), log=home / "postgres.log")
        )
        valkey = Server(*valkey_server.service(home, port=ports.choose(), log=home / "valkey.log"))
        for server in (postgres, valkey):
            stack.callback(server.stop)
            server.start()
        postgres_server.ensure_database(postgres.url)
        database.migrate(postgres.url)
        installation = Installation(
            database_url=postgres.url,
            redis_url=valkey.url,
            home=home / "installation",
            model=Path("/models/news"),
        )
        stack.callback(installation.stop)
        yield installation


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", type=int, nargs="?", default=JOBS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
