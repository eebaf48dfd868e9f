"""What a worker process holds: settings, connections, its name. Made once, at first use."""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import dataclass

from jobs import artefacts, database, objects, settings
from jobs.artefacts import Artefacts
from jobs.database import Sessions
from jobs.lookups import installation
from jobs.objects import ObjectStore
from jobs.settings import Settings
from workers import process_names

WORKER = process_names.WORKER
"""The worker's name on record, for its processes."""

POSTGRES_SECONDS = 60.0


@dataclass(frozen=True, eq=False)
class Context:
    """The collaborators of every task in this process."""

    settings: Settings
    sessions: Sessions
    store: ObjectStore

    @functools.cached_property
    def artefacts(self) -> Artefacts:
        """The models that jobs name, as folders on this machine."""
        return artefacts.open(self.sessions, self.store, self.settings)

    @property
    def owner(self) -> str:
        """The name of this process in leases."""
        return process_names.owner(os.getpid())

    @functools.cached_property
    def installation(self) -> str:
        """The name of this installation on its machine: by its database and its work folder."""
        found = database.patiently(self.sessions, installation.identity, seconds=POSTGRES_SECONDS)
        return hashlib.sha256(f"{found}\0{self.settings.host_folder}".encode()).hexdigest()[:16]


@functools.cache
def get() -> Context:
    """The process's context; never call it in a process that forks afterwards."""
    current = settings.get()
    return Context(
        settings=current,
        sessions=database.sessions(database.connect(current.database_url, pool_size=3)),
        store=objects.connect(current.object_store_url),
    )
