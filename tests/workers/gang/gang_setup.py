"""Leases of ranks on real Postgres with a folder as object store; no agent and no queue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobs import objects
from jobs.kinds import FinetuneSpec
from jobs.ledger.ranks import RankLease
from jobs.objects import ObjectStore
from jobs.settings import Settings
from tests.jobs.ledger.building import Ledger
from tests.jobs.ledger.training import Training
from workers.context import Context
from workers.gang.checkpoint_upload import CheckpointUploader, WrittenCheckpoint


class GangSetup:
    """A ledger, an object store, and builders of gangs, work folders and checkpoints."""

    def __init__(self, ledger: Ledger, home: Path) -> None:
        self.ledger = ledger
        self.training = Training(ledger)
        self.home = home
        self.store = objects.connect((home / "objects").as_uri())

    def context(self, *, store: ObjectStore | None = None, **options: Any) -> Context:
        """A context whose settings have short times."""
        short: dict[str, Any] = {
            "lease_seconds": 3,
            "train_stall_seconds": 60,
            "train_grace_seconds": 60,
            **options,
        }
        settings = Settings(database_url=self.ledger.url, **short)
        return Context(settings=settings, sessions=self.ledger.sessions, store=store or self.store)

    def gang(self, machines: int = 1, **fields: Any) -> list[RankLease]:
        """The leases of all ranks of a new job's run."""
        return self.training.gang(self.training.job(machines=machines, **fields), machines)

    def folder(self, lease: RankLease) -> Path:
        """The rank's work folder."""
        folder = self.home / f"{lease.run_id}-{lease.rank}"
        folder.mkdir(exist_ok=True)
        return folder

    def written_checkpoint(
        self, lease: RankLease, step: int, *, metric: float | None = None, best: bool = False
    ) -> WrittenCheckpoint:
        """A checkpoint of three files, as the program writes it."""
        folder = self.folder(lease) / "checkpoints" / f"step-{step:09d}"
        (folder / "inner").mkdir(parents=True)
        for name in files_of(lease):
            (folder / name).write_text(f"{name} of {step} by {lease.rank}")
        return WrittenCheckpoint(step=step, folder=folder, metric=metric, best=best)

    @contextmanager
    def uploader(
        self, lease: RankLease, *, store: ObjectStore | None = None
    ) -> Iterator[CheckpointUploader]:
        """An uploader, which is stopped at the end of the block."""
        uploader = CheckpointUploader(
            lease,
            keep=finetune_spec(lease).train.keep_checkpoints,
            folder=self.folder(lease),
            context=self.context(store=store),
        )
        try:
            yield uploader
        finally:
            uploader.give_up()


def finetune_spec(lease: RankLease) -> FinetuneSpec:
    """The spec of a lease on a fine-tune."""
    assert isinstance(lease.spec, FinetuneSpec)
    return lease.spec


def files_of(lease: RankLease) -> list[str]:
    """Names of the files that a rank's host writes."""
    return [f"a-{lease.rank}.bin", f"b-{lease.rank}.bin", f"inner/c-{lease.rank}.bin"]
