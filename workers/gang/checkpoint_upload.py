"""Checkpoints go to the object store beside the training, and count only when they are whole.

Each host uploads what its own processes wrote and records that as a part. Rank 0 waits for all
parts, writes the manifest, which names every file with its hash, and then, under the run's fence,
the row that makes the checkpoint count. Whatever dies in between leaves objects that nobody reads.
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

from jobs import database, kinds
from jobs.errors import LeaseLost
from jobs.ledger import checkpoints as ledger
from jobs.ledger.ranks import RankLease
from jobs.models import bundles
from jobs.queries import checkpoints
from jobs.tables import CheckpointPart
from workers.context import Context

log = structlog.get_logger()

PATIENCE = 60.0
"""Seconds that a record of a checkpoint waits for Postgres."""

PAUSE = 0.2


@dataclass(frozen=True)
class Written:
    """A checkpoint as the program told of it."""

    step: int
    folder: Path
    metric: float | None
    best: bool


class Uploader:
    """Uploads checkpoints in the order they are given, in a thread of its own."""

    def __init__(self, held: RankLease, *, folder: Path, context: Context) -> None:
        self._held = held
        self._folder = folder
        self._context = context
        self._waiting: queue.Queue[Written | None] = queue.Queue()
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
        self._thread.start()

    def add(self, written: Written) -> None:
        """Take a checkpoint on; the program may delete its own copy from now on."""
        copy = self._folder / "uploads" / f"{written.step}"
        if copy.exists():
            return
        try:
            shutil.copytree(written.folder, copy, copy_function=os.link)
        except OSError as error:  # a program that was not heard in time has deleted it
            log.warning("a checkpoint is left out", step=written.step, error=str(error)[:500])
            shutil.rmtree(copy, ignore_errors=True)
            return
        self._waiting.put(Written(written.step, copy, written.metric, written.best))

    def finish(self, *, until: float) -> bool:
        """Upload what waits, until a monotonic time; whether all of it is stored."""
        self._waiting.put(None)
        self._thread.join(max(0.0, until - time.monotonic()))
        return not self._thread.is_alive()

    def give_up(self) -> None:
        """Stop at the next file; what is not whole never counts."""
        self._given_up.set()
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (written := self._waiting.get()) is not None and not self._given_up.is_set():
            try:
                self._store(written)
            except LeaseLost as lost:
                log.info("checkpoints stop", reason=lost.message)
                return
            except (
                Exception
            ):  # a full bucket must not end the training: the next one may go through
                log.exception("a checkpoint could not be stored", step=written.step)
            finally:
                shutil.rmtree(written.folder, ignore_errors=True)

    def _store(self, written: Written) -> None:
        held = self._held
        prefix = f"jobs/{held.job_id}/checkpoints/{written.step:09d}-{held.fence}"
        files = bundles.upload(
            self._context.store,
            written.folder,
            prefix=f"{prefix}/rank-{held.rank}",
            beat=self._check,
        )
        self._patiently(lambda s: ledger.add_part(s, held, step=written.step, files=files))
        if held.rank == 0:
            self._complete(written, prefix=prefix)

    def _complete(self, written: Written, *, prefix: str) -> None:
        parts = self._all_parts(written.step)
        if parts is None:
            log.warning("a checkpoint is left out: not every host has its part", step=written.step)
            return
        files = [file for part in parts for file in part.files]
        manifest = {
            "job": self._held.job_id,
            "run": self._held.fence,
            "step": written.step,
            "metric": written.metric,
            "files": files,
        }
        data = json.dumps(manifest, indent=1).encode()
        key = f"{prefix}/manifest.json"
        self._context.store.put(key, data)
        self._check()
        self._patiently(
            lambda session: ledger.complete(
                session,
                self._held,
                step=written.step,
                metric=written.metric,
                best=written.best,
                manifest_key=key,
                manifest_sha256=hashlib.sha256(data).hexdigest(),
                size=bundles.size(files),
            )
        )
        log.info("checkpoint stored", job_id=self._held.job_id, step=written.step)
        self._delete_old()

    def _all_parts(self, step: int) -> list[CheckpointPart] | None:
        """Every host's part; ``None`` once a host has gone on to a later one without this."""
        while True:
            self._check()
            parts: list[CheckpointPart] = self._patiently(
                lambda session: checkpoints.parts(session, self._held.run_id, step)
            )
            if len(parts) == self._held.machines:
                return parts
            if self._patiently(lambda s: checkpoints.has_later_part(s, self._held.run_id, step)):
                return None
            time.sleep(PAUSE)

    def _delete_old(self) -> None:
        spec = self._held.spec
        assert isinstance(spec, kinds.FinetuneSpec)
        doomed: list[tuple[int, list[str]]] = self._patiently(
            lambda session: _doomed(session, self._held, keep=spec.train.keep_checkpoints)
        )
        ids = [checkpoint_id for checkpoint_id, _ in doomed]
        if ids:
            self._patiently(lambda session: ledger.mark_deleted(session, self._held, ids))
        for _, keys in doomed:
            for key in keys:
                self._context.store.delete(key)

    def _check(self) -> None:
        if self._given_up.is_set():
            raise LeaseLost("the rank is over")

    def _patiently(self, work: Any) -> Any:
        return database.patiently(self._context.sessions, work, seconds=PATIENCE)


def _doomed(session: Session, held: RankLease, *, keep: int) -> list[tuple[int, list[str]]]:
    """Checkpoints that need not be kept, with the keys of their objects."""
    found = []
    for old in checkpoints.dispensable(session, held.job_id, keep=keep):
        parts = checkpoints.parts(session, old.run_id, old.step)
        keys = [str(file["key"]) for part in parts for file in part.files]
        found.append((old.id, [*keys, old.manifest_key]))
    return found
