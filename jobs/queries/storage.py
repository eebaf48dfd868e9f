"""Which objects of the store the rows name, and how much of it each project uses.

What the garbage collector asks here is one snapshot of the database: a row that moves from one
table to another between two statements would be in neither.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs import database
from jobs.decisions.stored_objects import ObjectKind, StoredKey
from jobs.lookups import chunk_folds, predicates
from jobs.lookups.chunk_folds import FoldedChunks
from jobs.retention import Piece
from jobs.states import ChunkState
from jobs.tables import (
    Checkpoint,
    Chunk,
    ChunkFold,
    CollectionRound,
    File,
    Job,
    JobInput,
    ModelVersion,
    Removal,
    Shard,
    StorageUsage,
    UnfinishedUpload,
)

FETCHED = 200
"""Rows that are read at once while each is looked for in the store."""


@dataclass(frozen=True)
class Owner:
    """Whose objects these are."""

    project_id: str
    at_rest: bool  # nothing that is in the store without a row can get one any more


@dataclass(frozen=True)
class Snapshot:
    """What the rows say about some objects, at one moment."""

    owners: dict[str, Owner]  # by the key of an uploaded file, or the id of a job
    named: frozenset[str]  # keys that a row has
    folds: dict[str, list[FoldedChunks]]  # by the id of a job: its folds name parts, too


@dataclass(frozen=True)
class KindUsage:
    """Objects of one kind."""

    kind: ObjectKind
    objects: int
    bytes: int


@dataclass(frozen=True)
class Usage:
    """What a project has in the object store."""

    measured_at: datetime | None
    kinds: tuple[KindUsage, ...]


@dataclass(frozen=True)
class ChunkTable:
    """Chunks as rows of the database, and those that are folded."""

    rows: int
    bytes: int  # of the table in Postgres, with its indexes and what is free in it
    folded_jobs: int
    folded_chunks: int
    folded_bytes: int  # of the objects


@dataclass(frozen=True)
class NamedObject:
    """An object that a row names."""

    key: str
    user: str  # the file, job or version whose row it is
    chunk_id: int | None = None  # of a part, which can be computed again


def snapshot(session: Session, keys: Collection[StoredKey]) -> Snapshot:
    """What the rows say about these objects; the session must not have been used before."""
    database.one_snapshot(session)
    of_files = [each.key for each in keys if each.job_id is None]
    job_ids = sorted({each.job_id for each in keys if each.job_id is not None})
    needed = {each.named_by for each in keys}
    owners = dict(_jobs(session, job_ids)) | dict(_files(session, of_files))
    named = {
        *_named_by_files(session, of_files),
        *_named_by_jobs(session, job_ids, needed),
        *_named_by_versions(session, job_ids, keys),
    }
    of_parts = {each.job_id for each in keys if each.kind is ObjectKind.PARTS}
    return Snapshot(owners, frozenset(named), _folds(session, of_parts))


def usage(session: Session, project_id: str) -> Usage:
    """What the project has in the store, as it was counted last."""
    measured_at = session.scalar(sa.select(CollectionRound.measured_at))
    rows = session.scalars(sa.select(StorageUsage).where(StorageUsage.project_id == project_id))
    kinds = (KindUsage(ObjectKind(row.kind), row.objects, row.bytes) for row in rows)
    return Usage(measured_at, tuple(kinds))


def chunk_table(session: Session) -> ChunkTable:
    """How many chunks are rows, and how many are folded; counts every row."""
    rows, size = session.execute(
        sa.select(
            sa.select(sa.func.count()).select_from(Chunk).scalar_subquery(),
            sa.func.pg_total_relation_size(sa.literal_column("'chunks'::regclass")),
        )
    ).one()
    folds = session.execute(
        sa.select(
            sa.func.count(ChunkFold.job_id.distinct()),
            sa.func.coalesce(sa.func.sum(ChunkFold.chunks), 0),
            sa.func.coalesce(sa.func.sum(ChunkFold.bytes), 0),
        ).where(chunk_folds.written())
    ).one()
    return ChunkTable(int(rows or 0), size, *(int(each or 0) for each in folds))


def named_objects(session: Session) -> Iterator[NamedObject]:
    """Every object that a row names, streamed; those of checkpoints by their manifests alone."""
    for query in (_of_files(), _of_parts(), _of_shards(), _of_extracts(), _of_checkpoints()):
        rows = session.execute(query.execution_options(yield_per=FETCHED))
        yield from (NamedObject(*row) for row in rows)
    for fold in folds(session, with_parts=False):
        yield NamedObject(fold.key, fold.job_id)
    outputs = sa.select(Job.id, Job.output).where(
        predicates.job_ended(), Job.output.is_not(None), ~_removed(Piece.OUTPUTS)
    )
    for job_id, output in session.execute(outputs.execution_options(yield_per=FETCHED)):
        yield from (NamedObject(key, job_id) for key in _keys_in(output))
    versions = sa.select(ModelVersion).where(ModelVersion.deleted_at.is_(None))
    for version in session.scalars(versions.execution_options(yield_per=FETCHED)):
        user = f"{version.name}@{version.version}"
        yield from (NamedObject(file["key"], user) for file in version.files)


def folds(session: Session, *, with_parts: bool) -> Iterator[FoldedChunks]:
    """Folded chunks of every job, or of those that have their parts, streamed."""
    query = (
        chunk_folds.selected()
        .join(Job, Job.id == ChunkFold.job_id)
        .where(Job.deleted_at.is_(None), ~_removed(Piece.PARTS) if with_parts else sa.true())
    )
    for row in session.execute(query.execution_options(yield_per=FETCHED)):
        yield chunk_folds.made(row)


def _folds(session: Session, job_ids: Collection[str | None]) -> dict[str, list[FoldedChunks]]:
    found: dict[str, list[FoldedChunks]] = {}
    query = chunk_folds.selected().where(ChunkFold.job_id.in_(job_ids))
    for row in session.execute(query.order_by(ChunkFold.job_id, ChunkFold.first_row)):
        fold = chunk_folds.made(row)
        found.setdefault(fold.job_id, []).append(fold)
    return found


def _jobs(session: Session, job_ids: Collection[str]) -> Iterator[tuple[str, Owner]]:
    purged = sa.and_(Job.deleted_at.is_not(None), Job.purge_at.is_(None))
    ended = sa.and_(predicates.job_ended(), ~predicates.job_busy())
    query = sa.select(Job.id, Job.project_id, sa.or_(purged, ended)).where(Job.id.in_(job_ids))
    for job_id, project_id, at_rest in session.execute(query):
        yield job_id, Owner(project_id, bool(at_rest))


def _files(session: Session, keys: Collection[str]) -> Iterator[tuple[str, Owner]]:
    """Uploads under way have a row before their first byte is stored: they are never at rest."""
    ids = {key.partition("/")[2]: key for key in keys}
    uploads = sa.select(UnfinishedUpload.id, UnfinishedUpload.project_id)
    for file_id, project_id in session.execute(uploads.where(UnfinishedUpload.id.in_(ids))):
        yield ids[file_id], Owner(project_id, at_rest=False)
    rows = sa.select(File.id, File.project_id).where(File.id.in_(ids))
    for file_id, project_id in session.execute(rows):
        yield ids[file_id], Owner(project_id, at_rest=True)


def _named_by_files(session: Session, keys: Collection[str]) -> Iterator[str]:
    """Objects of files that are there, or whose removal is under way."""
    there = sa.or_(File.deleted_at.is_(None), File.purge_at.is_not(None))
    query = sa.select(File.object_key).where(File.object_key.in_(keys), there)
    yield from session.scalars(query)


def _named_by_jobs(
    session: Session, job_ids: Collection[str], keys: Collection[str]
) -> Iterator[str]:
    for column, job in (
        (Shard.object_key, Shard.job_id),
        (Chunk.part_key, Chunk.job_id),
        (Chunk.retried_part, Chunk.job_id),
        (ChunkFold.key, ChunkFold.job_id),
        (JobInput.object_key, JobInput.job_id),
    ):
        named = sa.select(column).where(job.in_(job_ids), column.in_(keys))
        yield from (key for key in session.scalars(named) if key is not None)
    manifests = sa.select(Checkpoint.manifest_key).where(
        Checkpoint.job_id.in_(job_ids), Checkpoint.deleted_at.is_(None)
    )
    yield from session.scalars(manifests)
    outputs = sa.select(Job.output).where(Job.id.in_(job_ids), Job.output.is_not(None))
    for output in session.scalars(outputs):
        yield from _keys_in(output)


def _named_by_versions(
    session: Session, job_ids: Collection[str], keys: Collection[StoredKey]
) -> Iterator[str]:
    """Files of versions under the names that the keys have, whichever job registered them."""
    names = {tuple(each.key.split("/")[1:3]) for each in keys if each.kind is ObjectKind.MODELS}
    if not names:
        return
    place = sa.tuple_(ModelVersion.project_id, ModelVersion.name)
    versions = sa.select(ModelVersion.files).where(
        ModelVersion.deleted_at.is_(None),
        sa.or_(ModelVersion.job_id.in_(job_ids), place.in_(sorted(names))),
    )
    for files in session.scalars(versions):
        yield from (file["key"] for file in files)


def _keys_in(value: Any) -> Iterator[str]:
    """Every text in a job's output that can be the key of an object."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from _keys_in(inner)
    elif isinstance(value, str) and value.startswith(("jobs/", "reports/")):
        yield value


def _removed(piece: Piece) -> sa.ColumnElement[bool]:
    return sa.exists().where(Removal.job_id == Job.id, Removal.piece == piece.value)


def _of_files() -> sa.Select[Any, Any, Any]:
    query = sa.select(File.object_key, File.id, sa.null())
    return query.where(File.deleted_at.is_(None))


def _of_parts() -> sa.Select[Any, Any, Any]:
    return (
        sa.select(Chunk.part_key, Chunk.job_id, Chunk.id)
        .join(Job, Job.id == Chunk.job_id)
        .where(Chunk.state == ChunkState.DONE, Job.deleted_at.is_(None), ~_removed(Piece.PARTS))
    )


def _of_shards() -> sa.Select[Any, Any, Any]:
    return (
        sa.select(Shard.object_key, Shard.job_id, sa.null())
        .join(Job, Job.id == Shard.job_id)
        .where(Job.deleted_at.is_(None), ~_removed(Piece.SHARDS))
    )


def _of_extracts() -> sa.Select[Any, Any, Any]:
    """What queries gave; uploaded files that a job reads have rows of their own."""
    return (
        sa.select(JobInput.object_key, JobInput.job_id, sa.null())
        .join(Job, Job.id == JobInput.job_id)
        .where(JobInput.query.is_not(None), JobInput.object_key.is_not(None))
        .where(Job.deleted_at.is_(None), ~_removed(Piece.SHARDS))
    )


def _of_checkpoints() -> sa.Select[Any, Any, Any]:
    return (
        sa.select(Checkpoint.manifest_key, Checkpoint.job_id, sa.null())
        .join(Job, Job.id == Checkpoint.job_id)
        .where(
            Checkpoint.deleted_at.is_(None),
            Checkpoint.damaged_at.is_(None),
            Job.deleted_at.is_(None),
        )
    )
