"""A backup as it is stored: a folder or a prefix of a bucket, complete with its manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import islice

from pydantic import BaseModel, ConfigDict, ValidationError

from jobs import objects
from jobs.errors import BadRequest, Damaged, ObjectMissing
from jobs.objects import DELETED_AT_ONCE, PART, ObjectStore, Stored

MANIFEST, DUMP, OBJECTS = "manifest.json", "database.dump", "objects"
COPIES = 8
"""Objects that are copied at a time."""

Choose = Callable[[Sequence[Stored]], Sequence[Stored]]


class Manifest(BaseModel):
    """What a backup has in it; it is written last."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    taken_at: datetime  # by the database: what was committed before is in it
    version: str  # of Nightshift
    revision: str  # of the schema
    dump_sha256: str
    dump_bytes: int
    objects: int
    object_bytes: int


class Place:
    """Where a backup is."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._store = objects.connect(self.url)
        self.objects = objects.connect(f"{self.url}/{OBJECTS}")

    def check_empty(self) -> None:
        """Raises ``BadRequest`` if something is there, be it a backup or what is left of one."""
        if next(self._store.listing(), None) is not None:
            raise BadRequest(
                f"{self.url} must be empty: name another place for each backup, or remove what is "
                "there",
                code="backup_place_used",
            )

    def write_dump(self, blocks: Iterable[bytes]) -> tuple[str, int]:
        """Store the dump; its hash and size."""
        digest, size = hashlib.sha256(), 0
        with self._store.writer(DUMP) as sink:
            for block in blocks:
                digest.update(block)
                size += len(block)
                sink.write(block)
        return digest.hexdigest(), size

    def read_dump(self, manifest: Manifest) -> Iterator[bytes]:
        """The dump, block by block. Raises ``Damaged`` before the first one."""
        digest = hashlib.sha256()
        for block in self._store.stream(DUMP):
            digest.update(block)
        if digest.hexdigest() != manifest.dump_sha256:
            raise Damaged(f"{DUMP} in {self.url} is not what was stored: its hash differs")
        return self._store.stream(DUMP)

    def write_manifest(self, manifest: Manifest) -> None:
        """Make the backup complete."""
        self._store.put(MANIFEST, manifest.model_dump_json(indent=1).encode())

    def manifest(self) -> Manifest:
        """Raises ``BadRequest`` where no complete backup is."""
        try:
            return Manifest.model_validate_json(self._store.get(MANIFEST))
        except ObjectMissing:
            reason = f"it has no {MANIFEST}, which is written last"
        except ValidationError:
            reason = f"its {MANIFEST} cannot be read"
        raise BadRequest(f"{self.url} is no complete backup: {reason}", code="no_backup")


def copy(source: ObjectStore, target: ObjectStore, *, choose: Choose) -> tuple[int, int]:
    """Copy the objects of a store that ``choose`` leaves of each batch; how many, and their bytes.

    What is gone by the time that it is read is left out.
    """
    count = size = 0
    listed = source.listing()
    with ThreadPoolExecutor(COPIES) as pool:
        while batch := list(islice(listed, DELETED_AT_ONCE)):
            for copied in pool.map(lambda each: _copy(source, target, each), choose(batch)):
                count, size = count + (copied is not None), size + (copied or 0)
    return count, size


def _copy(source: ObjectStore, target: ObjectStore, stored: Stored) -> int | None:
    try:
        if stored.bytes <= PART:
            target.put(stored.key, source.get(stored.key))
        else:
            with target.writer(stored.key) as sink:
                for block in source.stream(stored.key):
                    sink.write(block)
    except ObjectMissing:
        return None
    return stored.bytes
