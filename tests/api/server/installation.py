"""An API of our own on a real Postgres and a folder, and what planner and worker would do to it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pyarrow as pa
import sqlalchemy as sa

from api.stack import ports
from jobs import database, kinds, objects
from jobs.database import Sessions
from jobs.decisions.result_quality import QualityCounts
from jobs.inputs import ROWS, Input
from jobs.kinds import OutputFormat
from jobs.ledger import (
    chunks,
    finalization,
    findings,
    inputs,
    plans,
    projects,
    step_leases,
    transitions,
)
from jobs.ledger.chunks import ChunkLease, PartRecord
from jobs.ledger.plans import PlannedShard
from jobs.ledger.step_leases import StepLease
from jobs.objects import ObjectStore
from jobs.queries import chunks as chunk_queries
from jobs.results import outputs, parts
from jobs.states import JobState, JobStep
from jobs.tables import Job
from tests.support.result_schemas import CLASSIFY_SCHEMA
from tests.support.waiting import wait_until

LEASE = timedelta(seconds=60)


@dataclass
class Installation:
    """Where everything is; ``start`` and ``stop`` act on the API process."""

    database_url: str
    home: Path
    port: int
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def objects(self) -> Path:
        return self.home / "objects"

    @property
    def store(self) -> ObjectStore:
        return objects.connect(self.objects.as_uri())

    @property
    def log(self) -> str:
        return (self.home / "api.log").read_text()

    def memory(self) -> int:
        assert self.process is not None
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def start(self) -> None:
        settings = {
            "NIGHTSHIFT_DATABASE_URL": self.database_url,
            "NIGHTSHIFT_OBJECT_STORE_URL": self.objects.as_uri(),
            "NIGHTSHIFT_API_PORT": str(self.port),
            "NIGHTSHIFT_ALLOWED_INPUTS": json.dumps(["file:///allowed/"]),
            **self.environment,
        }
        with (self.home / "api.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "api.server"],
                env={**os.environ, **settings},
                stdout=log,
                stderr=log,
            )
        try:
            wait_until(self._ready, seconds=120)
        except AssertionError:
            self.kill()
            raise

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=30)
            self.process = None

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=10)
        self.process = None

    @contextmanager
    def sessions(self) -> Iterator[Sessions]:
        engine = database.connect(self.database_url, pool_size=1, name="test")
        yield database.sessions(engine)
        engine.dispose()

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        try:
            return httpx.get(f"{self.url}/readyz").is_success
        except httpx.TransportError:
            return False


@dataclass(frozen=True)
class Tenant:
    """A project with its key, and a plain HTTP client that uses it."""

    installation: Installation
    project: str
    key: str
    http: httpx.Client

    def upload(self, data: bytes = b'{"text": "one"}\n', name: str = "corpus.jsonl") -> str:
        answer = self.http.post("/v1/files", files={"file": (name, data)})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def submit(self, **fields: Any) -> str:
        answer = self.http.post("/v1/jobs", json=self.spec(**fields))
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def spec(self, **fields: Any) -> dict[str, Any]:
        defaults = {"kind": "classify", "model": "/models/tiny"}
        corpus = {} if "corpus" in fields else {"corpus": {"file": self.upload()}}
        return {**defaults, **corpus, **fields}

    def train(self, **fields: Any) -> str:
        """Submit a fine-tune."""
        return self.submit(
            **{"kind": "finetune", "model": "news", "base": "/models/tiny", **fields}
        )

    def job(self, job_id: str) -> dict[str, Any]:
        answer = self.http.get(f"/v1/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


@contextmanager
def new_tenant(installation: Installation) -> Iterator[Tenant]:
    project, key = f"p-{secrets.token_hex(4)}", f"ns-{secrets.token_hex(16)}"
    with installation.sessions() as sessions, sessions.begin() as session:
        projects.ensure_key(session, project_id=project, key=key)
    with httpx.Client(
        base_url=installation.url, headers={"authorization": f"Bearer {key}"}, timeout=30
    ) as http:
        yield Tenant(installation=installation, project=project, key=key, http=http)


def start_installation(database_url: str, home: Path, **environment: str) -> Installation:
    installation = Installation(
        database_url=database_url, home=home, port=ports.choose(), environment=environment
    )
    installation.start()
    return installation


class Hands:
    """Plans, works on and finalizes a job through the ledger, as planner and worker do."""

    def __init__(self, sessions: Sessions, store: ObjectStore, job_id: str) -> None:
        self._sessions = sessions
        self._store = store
        self._job_id = job_id

    def plan(self, chunk_rows: Sequence[int], *, read: Sequence[Input] = ()) -> None:
        """``read``: the objects that are written down as what the job reads."""
        lease = self._step(JobStep.PLAN)
        if read:
            corpora = {ROWS: kinds.parse(lease.spec).corpus}
            with self._sessions.begin() as session:
                inputs.pin(session, lease, corpora, {ROWS: read})
        shard = PlannedShard(
            index=0, object_key="shards/none", first_row=0, chunk_rows=tuple(chunk_rows)
        )
        with self._sessions.begin() as session:
            plans.begin(session, lease, fingerprint="f", model_digest="d")
            plans.add_shard(session, lease, shard)
            plans.complete(session, lease)

    def work(
        self,
        place: int,
        *,
        failed: int = 0,
        checked: int = 0,
        agreeing: int = 0,
        quality: QualityCounts | None = None,
    ) -> None:
        """Do the chunk at this place in row order; its last ``failed`` rows are error rows."""
        with self._sessions.begin() as session:
            found = chunk_queries.after(session, self._job_id, limit=place + 1, after=-1)
            chunk_id = found[place].id
            lease = chunks.claim(session, chunk_id, owner="hands", duration=LEASE)
        assert lease is not None
        key = parts.part_key(
            self._job_id, first_row=lease.first_row, chunk_id=chunk_id, fence=lease.fence
        )
        written = parts.write(self._store, key, _results(lease, failed=failed))
        part = PartRecord(
            key=key,
            bytes=written.bytes,
            sha256=written.sha256,
            rows=lease.rows,
            rows_failed=failed,
            tokens=3 * lease.rows,
            engine_seconds=0.1,
            histogram={"good": lease.rows - failed},
            rows_checked=checked,
            rows_agreeing=agreeing,
            errors=_errors(lease, failed=failed),
            quality=quality or QualityCounts(),
        )
        with self._sessions.begin() as session:
            chunks.commit(session, lease, part)

    def end_failed(self) -> bool:
        """As control does where too many rows failed."""
        with self._sessions.begin() as session:
            return findings.fail_if_too_many_rows_failed(session, self._job_id)

    def finish(self) -> None:
        with self._sessions.begin() as session:
            transitions.move(session, self._job_id, JobState.FINALIZING)
        lease = self._step(JobStep.FINALIZE)
        with self._sessions.begin() as session:
            done = list(chunk_queries.done_parts(session, self._job_id))
            tables = outputs.tables(
                self._store,
                done,
                schema=CLASSIFY_SCHEMA,
                keep_text=False,
                beat=lambda: None,
            )
            key = f"jobs/{self._job_id}/output/results.jsonl"
            file = outputs.write_file(self._store, key, tables, output_format=OutputFormat.JSONL)
            output = {
                "manifest": "none",
                "file": key,
                "format": "jsonl",
                "file_bytes": file.bytes,
                "file_sha256": file.sha256,
                "rows": file.rows,
                "rows_failed": sum(part.rows_failed for part in done),
                "bytes": file.bytes,
            }
            assert finalization.finish(session, lease, output=output)

    def forget_spec(self) -> None:
        """Leave a row that the code does not expect."""
        with self._sessions.begin() as session:
            session.execute(sa.update(Job).where(Job.id == self._job_id).values(spec={}))

    def fail(self, *, code: str, message: str) -> None:
        with self._sessions.begin() as session:
            transitions.move(session, self._job_id, JobState.PLANNING)
            transitions.fail(session, self._job_id, code=code, message=message)

    def _step(self, step: JobStep) -> StepLease:
        with self._sessions.begin() as session:
            lease = step_leases.claim(
                session, self._job_id, step=step, owner="hands", duration=LEASE
            )
        assert lease is not None
        return lease


def _errors(lease: ChunkLease, *, failed: int) -> dict[str, Any]:
    row = lease.first_row + lease.rows - failed
    example = {"row": row, "line": row + 1, "id": None, "message": "the text is empty"}
    return {"empty_text": {"rows": failed, **example}} if failed else {}


def _results(lease: ChunkLease, *, failed: int) -> pa.Table:
    good = lease.rows - failed
    return pa.table(
        {
            "row": range(lease.first_row, lease.first_row + lease.rows),
            "line": range(lease.first_row + 1, lease.first_row + lease.rows + 1),
            "id": [None] * lease.rows,
            "text": [None] * lease.rows,
            "label": ["good"] * good + [None] * failed,
            "score": [0.5] * good + [None] * failed,
            "labels": [["good"]] * good + [None] * failed,
            "scores": [[0.5]] * good + [None] * failed,
            "tokens": [3] * good + [None] * failed,
            "truncated": [False] * good + [None] * failed,
            "error_code": [None] * good + ["empty_text"] * failed,
            "error_message": [None] * good + ["the text is empty"] * failed,
        },
        schema=CLASSIFY_SCHEMA,
    )
