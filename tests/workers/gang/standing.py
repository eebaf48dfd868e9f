"""One rank that is held for real, on real Postgres and a folder of objects; no agent, no queue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobs import objects
from jobs.ledger.ranks import RankLease
from jobs.objects import ObjectStore
from jobs.settings import Settings
from tests.jobs.ledger.building import Ledger
from tests.jobs.ledger.training import Training
from workers.context import Context
from workers.gang.checkpoint_upload import Uploader, Written


class Standing:
    """A ledger, a store, and short words for a rank's surroundings."""

    def __init__(self, ledger: Ledger, home: Path) -> None:
        self.ledger = ledger
        self.training = Training(ledger)
        self.home = home
        self.store = objects.connect((home / "objects").as_uri())

    def context(self, *, store: ObjectStore | None = None, **options: Any) -> Context:
        """Settings with short times."""
        short: dict[str, Any] = {
            "lease_seconds": 3,
            "train_stall_seconds": 60,
            "train_grace_seconds": 60,
            **options,
        }
        settings = Settings(database_url=self.ledger.url, **short)
        return Context(settings=settings, sessions=self.ledger.sessions, store=store or self.store)

    def gang(self, machines: int = 1, **fields: Any) -> list[RankLease]:
        """All ranks of a new job's run."""
        return self.training.gang(self.training.job(machines=machines, **fields), machines)

    def folder(self, held: RankLease) -> Path:
        """The rank's work folder."""
        folder = self.home / f"{held.run_id}-{held.rank}"
        folder.mkdir(exist_ok=True)
        return folder

    def written(
        self, held: RankLease, step: int, *, metric: float | None = None, best: bool = False
    ) -> Written:
        """A checkpoint of three files as the program leaves it."""
        folder = self.folder(held) / "checkpoints" / f"step-{step:09d}"
        (folder / "inner").mkdir(parents=True)
        for name in files_of(held):
            (folder / name).write_text(f"{name} of {step} by {held.rank}")
        return Written(step=step, folder=folder, metric=metric, best=best)

    @contextmanager
    def uploader(self, held: RankLease, *, store: ObjectStore | None = None) -> Iterator[Uploader]:
        """An uploader that is given up at the end."""
        uploader = Uploader(held, folder=self.folder(held), context=self.context(store=store))
        try:
            yield uploader
        finally:
            uploader.give_up()


def files_of(held: RankLease) -> list[str]:
    """Names of the files that a rank's host writes."""
    return [f"a-{held.rank}.bin", f"b-{held.rank}.bin", f"inner/c-{held.rank}.bin"]
