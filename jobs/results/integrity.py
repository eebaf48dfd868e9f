"""Damage found in storage is recorded in the ledger, so that a retry of the job repairs it."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from jobs.database import Sessions
from jobs.errors import Damaged, ObjectMissing, PartDamaged
from jobs.ledger import damage
from jobs.objects import ObjectStore
from jobs.results import outputs, parts
from jobs.results.parts import RecordedPart
from jobs.tables import Job


def read_part(
    sessions: Sessions,
    store: ObjectStore,
    part: RecordedPart,
    *,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """A whole part, or some of its columns. Raises ``PartDamaged`` after recording the damage."""
    try:
        return parts.read(store, part, columns=columns)
    except PartDamaged as found:
        record_damage(sessions, found)
        raise


def record_damage(sessions: Sessions, found: PartDamaged) -> None:
    with sessions.begin() as session:
        damage.mark_part(session, found.chunk_id, key=found.key, reason=found.message)


def check_output_file(sessions: Sessions, store: ObjectStore, job: Job, *, whole: bool) -> None:
    """Raise ``Damaged`` if a job's single file is missing or has changed.

    ``whole`` compares its hash, which reads all of it; otherwise its length is compared. A file
    from a version before hashes only has to exist.
    """
    assert job.output is not None
    key, size, sha256 = (job.output.get(name) for name in ("file", "file_bytes", "file_sha256"))
    assert key is not None
    try:
        stored = store.size(key)
        reason = None if size in (None, stored) else f"it must have {size} bytes, and has {stored}"
        if reason is None and whole and sha256 is not None:
            content = outputs.sha256(store, key)
            reason = None if content == sha256 else f"its sha256 must be {sha256}, and is {content}"
    except ObjectMissing:
        reason = "it is gone from the object store"
    if reason is None:
        return
    message = f"the file {key} is damaged: {reason}; `nightshift jobs retry` writes it again"
    with sessions.begin() as session:
        damage.mark_file(session, job.id, key=key, reason=message)
    raise Damaged(message)
