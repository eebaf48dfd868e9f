"""What is found damaged in storage is written down, so that a retry of the job makes it anew."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from jobs.database import Sessions
from jobs.errors import Damaged, ObjectMissing, PartDamaged
from jobs.ledger import chunks, finalization
from jobs.objects import ObjectStore
from jobs.results import outputs, parts
from jobs.results.parts import Recorded
from jobs.tables import Job


def read(
    sessions: Sessions,
    store: ObjectStore,
    part: Recorded,
    *,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """A whole part, or some of its columns. Raises ``PartDamaged``, which is written down."""
    try:
        return parts.read(store, part, columns=columns)
    except PartDamaged as damage:
        record(sessions, damage)
        raise


def record(sessions: Sessions, damage: PartDamaged) -> None:
    """Write down what was found wrong with a part."""
    with sessions.begin() as session:
        chunks.mark_damaged(session, damage.chunk_id, key=damage.key, reason=damage.message)


def check_file(sessions: Sessions, store: ObjectStore, job: Job, *, whole: bool) -> None:
    """Raise ``Damaged`` where a job's single file is gone or is not what was written.

    ``whole``: by its hash, which reads all of it; otherwise by its length. Of a file that a version
    before hashes wrote it is seen only that it is there.
    """
    assert job.output is not None
    key, size, sha256 = (job.output.get(name) for name in ("file", "file_bytes", "file_sha256"))
    assert key is not None
    try:
        found = store.size(key)
        reason = None if size in (None, found) else f"it must have {size} bytes, and has {found}"
        if reason is None and whole and sha256 is not None:
            content = outputs.sha256(store, key)
            reason = None if content == sha256 else f"its sha256 must be {sha256}, and is {content}"
    except ObjectMissing:
        reason = "it is gone from the object store"
    if reason is None:
        return
    message = f"the file {key} is damaged: {reason}; `nightshift jobs retry` writes it anew"
    with sessions.begin() as session:
        finalization.mark_file_damaged(session, job.id, key=key, reason=message)
    raise Damaged(message)
