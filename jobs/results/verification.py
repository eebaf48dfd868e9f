"""The proof of promise P2: inputs are recounted against outputs, from storage, not the ledger."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy.orm import Session

from jobs import database, kinds, progress
from jobs.corpora import resolve
from jobs.corpora.corpus_reader import CorpusReader
from jobs.corpora.decoder import Limits
from jobs.database import Sessions
from jobs.errors import BadRequest, Damaged, NotFound
from jobs.inputs import ROWS, UNKNOWN, Input
from jobs.kinds import BULK, Corpus, OutputFormat
from jobs.lookups.chunk_folds import FoldedChunks
from jobs.objects import ObjectStore
from jobs.queries import chunks, files, inputs
from jobs.queries import jobs as job_queries
from jobs.queries.chunks import DonePart
from jobs.results import chunk_folds, integrity
from jobs.settings import Settings
from jobs.states import JobState
from jobs.tables import Job

MAX_COUNT = 255
"""Results of one row are counted in a byte; more than this make no difference."""

MAX_FIELD = 2**30
"""Characters of one CSV field: ``max_row_bytes`` bounded a kept text when it was planned."""


@dataclass(frozen=True)
class VerificationReport:
    """The counts, and the problems that they show."""

    rows_total: int | None  # in the ledger; None: planning did not finish
    rows_input: int  # counted in the corpus
    rows_output: int  # counted in the parts
    rows_failed: int  # of those, error rows
    missing: int
    duplicated: int
    unhashed: int = 0  # parts from a version before hashes: only their counts are compared
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every input row has exactly one output row."""
        return not self.problems


@dataclass
class _Counts:
    results: bytearray  # results of each row
    rows: int = 0
    failed: int = 0
    unhashed: int = 0
    problems: list[str] = field(default_factory=list)


def verify(
    sessions: Sessions, store: ObjectStore, job_id: str, *, settings: Settings
) -> VerificationReport:
    """Read the corpus, every part and the single file again, and compare them.

    Each part and the file must have the hash in the ledger; damage is recorded for a retry. Memory
    is two bytes per row and one part. A cancelled, expired or failed job may lack rows: they are
    counted as missing, but are a problem only if the job succeeded. Raises ``BadRequest`` for a job
    that trains or evaluates, and ``NotFound`` if the uploaded file of the corpus was deleted.
    """
    with sessions.begin() as session:
        database.one_snapshot(session)
        job = job_queries.row(session, job_id)
        _check_bulk(job)
        spec = kinds.bulk(job.spec)
        found = _inputs(session, job, spec.corpus)
        done = list(chunks.listed(session, job_id))
    reader = CorpusReader(
        spec.corpus,
        found,
        opened=lambda each: resolve.opened(each, store, settings=settings),
        limits=Limits.of(settings),
        beat=progress.no_beat,
        strict=False,
    )
    rows_input = sum(batch.num_rows for batch in reader.batches())
    counts = _count(sessions, store, done, rows=rows_input)
    missing = counts.results.count(0)
    duplicated = len(counts.results) - missing - counts.results.count(1)
    problems = [*counts.problems, *_differences(job, rows_input, missing, duplicated)]
    problems += _file_problems(sessions, store, job, parts=counts)
    return VerificationReport(
        rows_total=job.rows_total,
        rows_input=rows_input,
        rows_output=counts.rows,
        rows_failed=counts.failed,
        missing=missing,
        duplicated=duplicated,
        unhashed=counts.unhashed,
        problems=tuple(problems),
    )


def _inputs(session: Session, job: Job, corpus: Corpus) -> tuple[Input, ...]:
    """What the job read; of one that an earlier version planned, what its corpus names."""
    written_down = inputs.of_job(session, job.id)
    if written_down is not None:
        found = written_down.get(ROWS, ())
        uploaded = [each.name for each in found if each.filename is not None]
        _check_there(session, job, uploaded)
        return found
    _check_there(session, job, corpus.files)
    return tuple(
        inputs.of_file(files.get(session, name, project_id=job.project_id))
        if name in corpus.files
        else Input(name, version="", bytes=UNKNOWN)
        for name in corpus.named
    )


def _check_there(session: Session, job: Job, file_ids: Sequence[str]) -> None:
    for file_id in files.gone(session, file_ids, project_id=job.project_id):
        raise NotFound(
            f"{job.id} cannot be verified: its corpus, the uploaded file {file_id}, was deleted",
            code="file_not_found",
        )


def _check_bulk(job: Job) -> None:
    if job.kind not in BULK:
        raise BadRequest(
            f"verify recounts the rows of bulk jobs; {job.id} is of the kind {job.kind}, which "
            "does not write a row for each row",
            code="not_bulk",
        )


def _count(
    sessions: Sessions,
    store: ObjectStore,
    done: Iterable[DonePart | FoldedChunks],
    *,
    rows: int,
) -> _Counts:
    counts = _Counts(results=bytearray(rows))
    for part in _parts(sessions, store, done, counts):
        counts.unhashed += part.sha256 is None
        try:
            table = integrity.read_part(sessions, store, part, columns=["row", "error_code"])
        except Damaged as damage:
            counts.problems.append(damage.message)
            continue
        failed = table.num_rows - table["error_code"].null_count
        if (table.num_rows, failed) != (part.rows, part.rows_failed):
            counts.problems.append(
                f"part {part.key} holds {table.num_rows} rows, {failed} failed; "
                f"the ledger has {part.rows}, {part.rows_failed}"
            )
        counts.rows += table.num_rows
        counts.failed += failed
        _add(counts, table["row"].to_pylist(), key=part.key)
    return counts


def _parts(
    sessions: Sessions,
    store: ObjectStore,
    done: Iterable[DonePart | FoldedChunks],
    counts: _Counts,
) -> Iterator[DonePart]:
    """One fold after the other, so that one which is damaged does not hide the others."""
    for each in done:
        try:
            yield from chunk_folds.parts(sessions, store, [each])
        except Damaged as damage:
            counts.problems.append(damage.message)


def _add(counts: _Counts, rows: Iterable[int], *, key: str) -> None:
    for row in rows:
        if not 0 <= row < len(counts.results):
            counts.problems.append(f"{key} holds row {row}, which the corpus does not have")
        elif counts.results[row] < MAX_COUNT:
            counts.results[row] += 1


def _differences(job: Job, rows_input: int, missing: int, duplicated: int) -> list[str]:
    problems = []
    if job.rows_total is not None and job.rows_total != rows_input:
        problems.append(f"the corpus has {rows_input} rows, but {job.rows_total} were planned")
    if missing and job.state is JobState.SUCCEEDED:
        problems.append(f"{missing} rows have no result")
    if duplicated:
        problems.append(f"{duplicated} rows have more than one result")
    return problems


def _file_problems(
    sessions: Sessions, store: ObjectStore, job: Job, *, parts: _Counts
) -> list[str]:
    """Damage of the single file, and whether its rows differ from those of the parts."""
    if job.output is None or job.output["file"] is None:
        return []
    key = job.output["file"]
    try:
        integrity.check_output_file(sessions, store, job, whole=True)
    except Damaged as damage:
        return [damage.message]
    file = _Counts(results=bytearray(len(parts.results)))
    try:
        _add(file, _rows_of_file(store, key, OutputFormat(job.output["format"])), key=key)
    except (OSError, pa.ArrowException, ValueError, KeyError, csv.Error) as fault:
        return [f"{key} is damaged: {type(fault).__name__}: {fault}"]
    if file.results == parts.results:
        return file.problems
    file_rows, part_rows = sum(file.results), sum(parts.results)
    return [
        *file.problems,
        f"{key} and the parts differ; they hold {file_rows} and {part_rows} rows",
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
    csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD))
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    records = csv.reader(text, strict=True)  # a quote that is never closed is an error
    columns = next(records, [])
    for record in records:
        if len(record) != len(columns):
            raise ValueError(
                f"a record has {len(record)} fields where the header has {len(columns)}"
            )
        yield int(record[columns.index("row")])
