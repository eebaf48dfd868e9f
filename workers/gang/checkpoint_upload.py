"""Upload of checkpoints while the training runs; a checkpoint counts only when it is complete.

Promises P3 and P7. Each host uploads the files of its own processes and records them as a part.
Rank 0 waits for all parts and writes the manifest, which names every file with its hash. Then it
writes, under the run's fence, the row that makes the checkpoint count. A process that dies in
between leaves objects that no row points at.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.orm import Session

from jobs import database
from jobs.errors import LeaseLost
from jobs.ledger import checkpoints as ledger
from jobs.ledger.ranks import RankLease
from jobs.lookups import backups
from jobs.models import bundles
from jobs.queries import checkpoints
from jobs.tables import CheckpointPart
from workers.context import Context

log = structlog.get_logger()

POSTGRES_SECONDS = 60.0
"""How long a transaction about a checkpoint waits for Postgres."""

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class WrittenCheckpoint:
    """A checkpoint that the program has written to this host's disk."""

    step: int
    folder: Path
    metric: float | None
    best: bool


class CheckpointUploader:
    """Uploads checkpoints in order, in a background thread, and keeps the newest ``keep``."""

    def __init__(self, lease: RankLease, *, keep: int, folder: Path, context: Context) -> None:
        self._lease = lease
        self._keep = keep
        self._folder = folder
        self._context = context
        self._queue: queue.Queue[WrittenCheckpoint | None] = queue.Queue()
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
        self._thread.start()

    def add(self, checkpoint: WrittenCheckpoint) -> None:
        """Queue a checkpoint; hard links let the program delete its own folder."""
        copy = self._folder / "uploads" / f"{checkpoint.step}"
        if copy.exists():
            return
        try:
            shutil.copytree(checkpoint.folder, copy, copy_function=os.link)
        except OSError as error:  # the program has deleted it: its message was read too late
            log.warning("a checkpoint is left out", step=checkpoint.step, error=str(error)[:500])
            shutil.rmtree(copy, ignore_errors=True)
            return
        self._queue.put(
            WrittenCheckpoint(checkpoint.step, copy, checkpoint.metric, checkpoint.best)
        )

    def finish(self, *, until: float) -> bool:
        """Upload the queued checkpoints until a monotonic time; ``True`` if all are stored."""
        self._queue.put(None)
        self._thread.join(max(0.0, until - time.monotonic()))
        return not self._thread.is_alive()

    def give_up(self) -> None:
        """Stop at the next file; an incomplete checkpoint never counts."""
        self._given_up.set()
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (checkpoint := self._queue.get()) is not None and not self._given_up.is_set():
            try:
                self._store(checkpoint)
            except LeaseLost as lost:
                log.info("checkpoints stop", reason=lost.message)
                return
            except Exception:  # a full bucket must not end the training: the next upload may pass
                log.exception("a checkpoint could not be stored", step=checkpoint.step)
            finally:
                shutil.rmtree(checkpoint.folder, ignore_errors=True)

    def _store(self, checkpoint: WrittenCheckpoint) -> None:
        lease = self._lease
        prefix = f"jobs/{lease.job_id}/checkpoints/{checkpoint.step:09d}-{lease.fence}"
        files = bundles.upload(
            self._context.store,
            checkpoint.folder,
            prefix=f"{prefix}/rank-{lease.rank}",
            beat=self._check,
        )
        self._patiently(lambda s: ledger.add_part(s, lease, step=checkpoint.step, files=files))
        if lease.rank == 0:
            self._complete(checkpoint, prefix=prefix)

    def _complete(self, checkpoint: WrittenCheckpoint, *, prefix: str) -> None:
        """Let the checkpoint count, once every host has recorded its part.

        This is the one caller of ``jobs.ledger.checkpoints.complete``, and the rule that no part
        may be missing is kept here: the manifest needs the files of all parts.
        """
        parts = self._all_parts(checkpoint.step)
        if parts is None:
            log.warning(
                "a checkpoint is left out: not every host has its part", step=checkpoint.step
            )
            return
        files = [file for part in parts for file in part.files]
        manifest = {
            "job": self._lease.job_id,
            "run": self._lease.fence,
            "step": checkpoint.step,
            "metric": checkpoint.metric,
            "files": files,
        }
        data = json.dumps(manifest, indent=1).encode()
        key = f"{prefix}/manifest.json"
        self._context.store.put(key, data)
        self._check()
        self._patiently(
            lambda session: ledger.complete(
                session,
                self._lease,
                step=checkpoint.step,
                metric=checkpoint.metric,
                best=checkpoint.best,
                manifest_key=key,
                manifest_sha256=hashlib.sha256(data).hexdigest(),
                size=bundles.size(files),
            )
        )
        log.info("checkpoint stored", job_id=self._lease.job_id, step=checkpoint.step)
        self._delete_old()

    def _all_parts(self, step: int) -> list[CheckpointPart] | None:
        """The parts of all hosts; ``None`` once a host has a later checkpoint but not this one."""
        while True:
            self._check()
            parts: list[CheckpointPart] = self._patiently(
                lambda session: checkpoints.parts(session, self._lease.run_id, step)
            )
            if len(parts) == self._lease.machines:
                return parts
            if self._patiently(lambda s: checkpoints.has_later_part(s, self._lease.run_id, step)):
                return None
            time.sleep(POLL_SECONDS)

    def _delete_old(self) -> None:
        dispensable: list[tuple[int, list[str]]] = self._patiently(
            lambda session: _dispensable_objects(session, self._lease, keep=self._keep)
        )
        ids = [checkpoint_id for checkpoint_id, _ in dispensable]
        if ids:
            self._patiently(lambda session: ledger.mark_deleted(session, self._lease, ids))
        if self._patiently(backups.under_way):
            return  # it may have their rows; the garbage collector takes them after the job's end
        for _, keys in dispensable:
            for key in keys:
                self._context.store.delete(key)

    def _check(self) -> None:
        if self._given_up.is_set():
            raise LeaseLost("the rank is over")

    def _patiently(self, work: Any) -> Any:
        return database.patiently(self._context.sessions, work, seconds=POSTGRES_SECONDS)


def _dispensable_objects(
    session: Session, lease: RankLease, *, keep: int
) -> list[tuple[int, list[str]]]:
    """Checkpoints that are no longer needed, with the keys of their objects."""
    dispensable = []
    for old in checkpoints.dispensable(session, lease.job_id, keep=keep):
        parts = checkpoints.parts(session, old.run_id, old.step)
        keys = [str(file["key"]) for part in parts for file in part.files]
        dispensable.append((old.id, [*keys, old.manifest_key]))
    return dispensable
