"""Small jobs with real shards and real parts, finished without an engine."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs import ids, kinds, objects
from jobs.kinds import OutputFormat
from jobs.ledger import chunks, files, finalization, submission
from jobs.ledger.chunks import ChunkLease, PartRecord
from jobs.queries import chunks as chunk_queries
from jobs.results import outputs, pages, parts, verification
from jobs.settings import Settings
from jobs.states import ChunkState, JobState, JobStep
from jobs.tables import Job, Schedule
from tests.jobs.ledger.building import PROJECT, Ledger
from tests.jobs.ledger.scheduling import Clockwork, at
from tests.support.result_schemas import CLASSIFY_SCHEMA
from tests.support.servers import Databases
from workers.context import Context

Record = dict[str, Any]


class Workshop:
    """A ledger and a folder of objects."""

    def __init__(self, ledger: Ledger, home: Path) -> None:
        self.ledger = ledger
        self.settings = Settings(database_url=ledger.url, object_store_url=home.as_uri())
        self.store = objects.connect(self.settings.object_store_url)

    def job(self, *sizes: int, **fields: Any) -> str:
        """A running job with a corpus and chunks of these sizes."""
        texts = [f"text {row}" for row in range(sum(sizes))]
        file_id = self.upload(jsonl({"text": text} for text in texts))
        job_id = self.ledger.accept(corpus={"file": file_id}, **fields)
        self.ledger.plan(job_id, sizes)
        return job_id

    def do(self, job_id: str, *places: int) -> None:
        """Commit parts for the chunks at these indices, or for all chunks."""
        for place, chunk in enumerate(self.ledger.live(job_id)):
            if chunk.state is ChunkState.PENDING and (not places or place in places):
                self.commit(self.ledger.claimed(chunk.id))

    def commit(self, lease: ChunkLease, *, failed: int = 0) -> PartRecord:
        key = parts.part_key(
            lease.job_id, first_row=lease.first_row, chunk_id=lease.chunk_id, fence=lease.fence
        )
        written = parts.write(
            self.store, key, part_table(lease.first_row, lease.rows, failed=failed)
        )
        part = PartRecord(
            key,
            written.bytes,
            lease.rows,
            failed,
            lease.rows,
            0.1,
            {"good": lease.rows - failed},
            sha256=written.sha256,
        )
        with self.ledger.sessions.begin() as session:
            chunks.commit(session, lease, part)
        return part

    def finish(self, job_id: str) -> None:
        """Finalize the job, with its single file."""
        self.ledger.set(job_id, state=JobState.FINALIZING)
        lease = self.ledger.claim_step(job_id, step=JobStep.FINALIZE)
        assert lease is not None
        with self.ledger.sessions.begin() as session:
            output = self._write_output(session, job_id)
            assert finalization.finish(session, lease, output=output)

    def finished(self, *sizes: int, **fields: Any) -> str:
        job_id = self.job(*sizes, **fields)
        self.do(job_id)
        self.finish(job_id)
        return job_id

    def part_keys(self, job_id: str) -> list[str]:
        return [chunk.part_key or "" for chunk in self.ledger.live(job_id)]

    def file_key(self, job_id: str) -> str:
        output = self.ledger.job(job_id).output
        assert output is not None
        return str(output["file"])

    def page(self, job_id: str, *, from_row: int, limit: int) -> pages.ResultRows:
        return pages.page(self.ledger.sessions, self.store, job_id, from_row=from_row, limit=limit)

    def verify(self, job_id: str) -> verification.VerificationReport:
        return verification.verify(self.ledger.sessions, self.store, job_id, settings=self.settings)

    def training(self, kind: str = "finetune", **fields: Any) -> str:
        """A job that trains from scratch, or evaluates, on uploaded corpora."""
        origin = {"architecture": "lstm", "model": "m"} if kind == "finetune" else {}
        if "base" in fields:
            del origin["architecture"]
        spec = kinds.parse({"kind": kind, **origin, **fields})
        with self.ledger.sessions.begin() as session:
            job_id, _ = submission.accept(
                session, project_id=PROJECT, spec=spec, idempotency_key=None
            )
        return job_id

    def upload(self, corpus: bytes, *, name: str = "corpus.jsonl", tag: str | None = None) -> str:
        file_id = ids.file()
        self.store.put(f"files/{file_id}", corpus)
        with self.ledger.sessions.begin() as session:
            files.add(
                session,
                file_id=file_id,
                project_id=PROJECT,
                filename=name,
                purpose="batch",
                size=len(corpus),
                sha256="",  # each has an object of its own
                object_key=f"files/{file_id}",
                tag=tag,
            )
        return file_id

    def _write_output(self, session: Session, job_id: str) -> Record:
        done = list(chunk_queries.done_parts(session, job_id))
        totals = {"rows": sum(part.rows for part in done), "rows_failed": 0}
        name = session.get_one(Job, job_id).spec["output"]["format"]
        if name is None:
            return {"file": None, "format": None, **totals}
        key = parts.output_key(job_id, name="results", fence=1, suffix=name)
        tables = outputs.tables(
            self.store, done, schema=CLASSIFY_SCHEMA, keep_text=False, beat=lambda: None
        )
        file = outputs.write_file(self.store, key, tables, output_format=OutputFormat(name))
        hashes = {"file_bytes": file.bytes, "file_sha256": file.sha256}
        return {"file": key, "format": name, **hashes, **totals}


def jsonl(rows: Iterable[Record]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def part_table(first_row: int, rows: int, *, failed: int = 0) -> pa.Table:
    records = [_record(row, bad=row < first_row + failed) for row in _range(first_row, rows)]
    return pa.Table.from_pylist(records, schema=CLASSIFY_SCHEMA)


def _record(row: int, *, bad: bool) -> Record:
    record: Record = {"row": row, "line": row + 1}
    if bad:
        return record | {"error_code": "no_tokens", "error_message": "it has none"}
    return record | {"label": "good", "score": 0.5, "labels": ["good"], "scores": [0.5]}


def _range(first_row: int, rows: int) -> range:
    return range(first_row, first_row + rows)


@pytest.fixture(scope="module")
def workshop(
    fresh_database: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workshop]:
    ledger = Ledger(fresh_database())
    yield Workshop(ledger, tmp_path_factory.mktemp("objects"))
    ledger.engine.dispose()


@pytest.fixture
def clockwork(workshop: Workshop) -> Iterator[Clockwork]:
    yield Clockwork(workshop.ledger, at("2026-12-01 00:00"))
    with workshop.ledger.sessions.begin() as session:  # the next test has a clock of its own
        session.execute(sa.update(Schedule).values(next_due=None, next_at=None))


@pytest.fixture
def context(workshop: Workshop, tmp_path: Path) -> Context:
    settings = workshop.settings.model_copy(
        update={"artefact_cache": str(tmp_path / "cache"), "shard_rows": 8}
    )
    return Context(settings, workshop.ledger.sessions, workshop.store)
