"""The proof of promise P2: inputs recounted against outputs, from storage, not from the ledger."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import kinds
from jobs.corpora import readers, resolve
from jobs.database import Sessions
from jobs.errors import BadRequest, Damaged
from jobs.kinds import BULK, OutputFormat
from jobs.objects import ObjectStore
from jobs.queries import chunks
from jobs.queries import jobs as job_queries
from jobs.queries.chunks import DonePart
from jobs.results import integrity
from jobs.settings import Settings
from jobs.states import JobState
from jobs.tables import Job

MANY = 255
"""More results for one row than a byte counts are one problem all the same."""

LONGEST_FIELD = 2**30
"""Characters of one CSV field: a kept text is bounded by `max_row_bytes` of when it was planned."""


@dataclass(frozen=True)
class Report:
    """What was counted; ``ok`` if and only if there are no problems."""

    rows_total: int | None  # that the ledger says; null: the job was not planned to the end
    rows_input: int  # counted in the corpus
    rows_output: int  # counted in the parts
    rows_failed: int  # of those, error rows
    missing: int
    duplicated: int
    unhashed: int = 0  # parts written before hashes were kept: compared by their counts alone
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every input row is exactly one output row."""
        return not self.problems


@dataclass
class _Tally:
    seen: bytearray
    rows: int = 0
    failed: int = 0
    problems: list[str] = field(default_factory=list)


def verify(sessions: Sessions, store: ObjectStore, job_id: str, *, settings: Settings) -> Report:
    """Read the corpus, every part and the single file once more, and compare.

    Each part and the file must have the hash that the ledger has of it; damage is written down, for
    a retry. Memory is two bytes per row and one part. A cancelled, expired or failed job may lack
    rows: they are counted as missing, and are a problem only where the job says that it succeeded.
    Raises ``BadRequest`` for a job that trains or evaluates.
    """
    with sessions.begin() as session:
        job = job_queries.row(session, job_id)
        _check_bulk(job)
        spec = kinds.bulk(job.spec)
        source = resolve.source(
            session,
            store,
            spec.corpus,
            project_id=job.project_id,
            allowed=settings.allowed_inputs,
        )
        done = list(chunks.done_parts(session, job_id))
    batches = readers.read(source, spec.corpus, max_row_bytes=settings.max_row_bytes)
    rows_input = sum(batch.num_rows for batch in batches)
    tally = _tally(sessions, store, done, rows=rows_input)
    missing = tally.seen.count(0)
    duplicated = len(tally.seen) - missing - tally.seen.count(1)
    problems = [*tally.problems, *_differences(job, rows_input, missing, duplicated)]
    problems += _file_problems(sessions, store, job, parts=tally)
    return Report(
        rows_total=job.rows_total,
        rows_input=rows_input,
        rows_output=tally.rows,
        rows_failed=tally.failed,
        missing=missing,
        duplicated=duplicated,
        unhashed=sum(part.sha256 is None for part in done),
        problems=tuple(problems),
    )


def _check_bulk(job: Job) -> None:
    if job.kind not in BULK:
        raise BadRequest(
            f"verify recounts the rows of bulk jobs; {job.id} is of the kind {job.kind}, which "
            "writes no row for a row",
            code="not_bulk",
        )


def _tally(
    sessions: Sessions, store: ObjectStore, done: Iterable[DonePart], *, rows: int
) -> _Tally:
    tally = _Tally(seen=bytearray(rows))
    for part in done:
        try:
            table = integrity.read(sessions, store, part, columns=["row", "error_code"])
        except Damaged as damage:
            tally.problems.append(damage.message)
            continue
        failed = table.num_rows - table["error_code"].null_count
        if (table.num_rows, failed) != (part.rows, part.rows_failed):
            tally.problems.append(
                f"part {part.key} holds {table.num_rows} rows, {failed} failed; "
                f"the ledger says {part.rows}, {part.rows_failed}"
            )
        tally.rows += table.num_rows
        tally.failed += failed
        _mark(tally, table["row"].to_pylist(), key=part.key)
    return tally


def _mark(tally: _Tally, rows: Iterable[int], *, key: str) -> None:
    for row in rows:
        if not 0 <= row < len(tally.seen):
            tally.problems.append(f"{key} holds row {row}, which the corpus does not have")
        elif tally.seen[row] < MANY:
            tally.seen[row] += 1


def _differences(job: Job, rows_input: int, missing: int, duplicated: int) -> list[str]:
    problems = []
    if job.rows_total is not None and job.rows_total != rows_input:
        problems.append(f"the corpus has {rows_input} rows, but {job.rows_total} were planned")
    if missing and job.state is JobState.SUCCEEDED:
        problems.append(f"{missing} rows have no result")
    if duplicated:
        problems.append(f"{duplicated} rows have more than one result")
    return problems


def _file_problems(sessions: Sessions, store: ObjectStore, job: Job, *, parts: _Tally) -> list[str]:
    """Where the single file and the parts differ, row by row."""
    if job.output is None or job.output["file"] is None:
        return []
    key = job.output["file"]
    try:
        integrity.check_file(sessions, store, job, whole=True)
    except Damaged as damage:
        return [damage.message]
    found = _Tally(seen=bytearray(len(parts.seen)))
    try:
        _mark(found, _rows_of_file(store, key, OutputFormat(job.output["format"])), key=key)
    except (OSError, pa.ArrowException, ValueError, KeyError, csv.Error) as fault:
        return [f"{key} is damaged: {type(fault).__name__}: {fault}"]
    if found.seen == parts.seen:
        return found.problems
    counts = sum(found.seen), sum(parts.seen)
    return [
        *found.problems,
        f"{key} and the parts differ; they hold {counts[0]} and {counts[1]} rows",
    ]


def _rows_of_file(store: ObjectStore, key: str, output_format: OutputFormat) -> Iterator[int]:
    with store.reader(key) as file:
        if output_format is OutputFormat.PARQUET:
            yield from _rows_of_parquet(file) if store.size(key) else ()
        elif output_format is OutputFormat.JSONL:
            yield from (json.loads(line)["row"] for line in file)
        else:
            yield from _rows_of_csv(file)


def _rows_of_parquet(file: IO[bytes]) -> Iterator[int]:
    for batch in pq.ParquetFile(file).iter_batches(columns=["row"]):
        yield from batch["row"].to_pylist()


def _rows_of_csv(file: IO[bytes]) -> Iterator[int]:
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_FIELD))
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    records = csv.reader(text, strict=True)  # a quote that is never closed is an error
    columns = next(records, [])
    for record in records:
        if len(record) != len(columns):
            raise ValueError(f"a record of {len(record)} fields among those of {len(columns)}")
        yield int(record[columns.index("row")])
