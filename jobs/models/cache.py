"""Artefacts kept on local disk by hash, up to a size limit, shared by all processes of a machine.

    <key>/       a complete artefact: it appears by a rename
    <key>.part/  an artefact that is being fetched or removed
    <key>.lock   held shared to use the artefact, exclusively to fetch or remove it; it contains the
                 artefact's size, and its modification time is the last use
    room         held to count sizes and make room

The locks are flock's and end with their process, so a crash needs no clean-up: what it left half
done is removed like anything else. Lock files stay, because another process may be opening them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import structlog

from jobs.errors import StorageAway
from jobs.progress import Beat

log = structlog.get_logger()


LOCK_POLL_SECONDS = 0.1
"""Between two tries at a lock. Each try calls ``beat``, so a lease is kept meanwhile."""


class ArtefactCache:
    """A folder of artefacts, of at most ``limit`` bytes."""

    def __init__(self, root: Path, *, limit: int) -> None:
        self._root = root
        self._limit = limit

    @contextmanager
    def using(
        self, key: str, *, size: int, fill: Callable[[Path], None], beat: Beat
    ) -> Iterator[Path]:
        """The artefact's folder, kept for as long as the block runs.

        ``fill`` writes the files into an empty folder if they are not here. If several processes
        need the same artefact, one fetches it and the others wait. Raises ``OSError`` while there
        is no room beside artefacts in use, ``StorageAway`` if the cache's folder cannot be used.
        """
        folder = self._root / key
        with self._opened(key) as lock:
            _wait(lock, fcntl.LOCK_SH, beat=beat)
            while not folder.is_dir():
                # Giving up the shared lock first lets others in: check again.
                _wait(lock, fcntl.LOCK_EX, beat=beat)
                if not folder.is_dir():
                    self._fetch(key, lock, size=size, fill=fill, beat=beat)
                _wait(lock, fcntl.LOCK_SH, beat=beat)
            os.utime(lock.fileno())
            yield folder

    def _opened(self, key: str) -> IO[str]:
        """The lock file. An unusable folder is this machine's fault, not the model's."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            return self._lock(key).open("a+")
        except OSError as error:
            raise StorageAway(
                f"this machine's cache of models cannot be used (artefact_cache): {error.strerror}"
            ) from error

    def _fetch(
        self, key: str, lock: IO[str], *, size: int, fill: Callable[[Path], None], beat: Beat
    ) -> None:
        self._make_room(key, lock, size=size, beat=beat)
        part = self._part(key)
        try:
            part.mkdir()
            fill(part)
            part.rename(self._root / key)
        except BaseException:
            self._remove(key, lock)
            raise

    def _make_room(self, key: str, lock: IO[str], *, size: int, beat: Beat) -> None:
        """Evict the least recently used artefacts until this one fits, and count its size."""
        with (self._root / "room").open("a+") as room:
            _wait(room, fcntl.LOCK_EX, beat=beat)
            self._remove(key, lock)  # leftovers of a process that died
            others = sorted(self._root.glob("*.lock"), key=lambda path: path.stat().st_mtime_ns)
            used_bytes = sum(_size(path) for path in others)
            for path in others:
                if used_bytes + size > self._limit:
                    used_bytes -= self._evict(path)
            if used_bytes + size > self._limit:
                raise self._full(size, used_bytes=used_bytes)
            lock.write(str(size))
            lock.flush()

    def _evict(self, path: Path) -> int:
        """The bytes freed: 0 while a process uses or fetches the artefact."""
        with path.open("a+") as lock:
            if not _try(lock, fcntl.LOCK_EX):
                return 0
            freed = _size(path)
            self._remove(path.stem, lock)
        if freed:
            log.info("an artefact was evicted", artefact=path.stem, bytes=freed)
        return freed

    def _remove(self, key: str, lock: IO[str]) -> None:
        """Needs the exclusive lock. The rename comes first: a folder under its key is complete."""
        folder, part = self._root / key, self._part(key)
        shutil.rmtree(part, ignore_errors=True)
        if folder.is_dir():
            folder.rename(part)
            shutil.rmtree(part)
        lock.truncate(0)

    def _full(self, size: int, *, used_bytes: int) -> OSError:
        return OSError(
            errno.ENOSPC,
            f"the artefact cache may hold {self._limit} bytes (artefact_cache_bytes), of which "
            f"{used_bytes} are in use, and {size} more are needed",
            str(self._root),
        )

    def _lock(self, key: str) -> Path:
        return self._root / f"{key}.lock"

    def _part(self, key: str) -> Path:
        return self._root / f"{key}.part"


def _wait(file: IO[str], kind: int, *, beat: Beat) -> None:
    while not _try(file, kind):
        beat()
        time.sleep(LOCK_POLL_SECONDS)


def _try(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _size(path: Path) -> int:
    """The size in a lock file; one that is still being written counts as 0."""
    text = path.read_text()
    return int(text) if text.isdecimal() else 0
