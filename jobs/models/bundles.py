"""Bundles: the files of a folder as objects, each with its size and its hash.

Models and checkpoints are bundles. A bundle is complete once its list of files is recorded (in the
ledger, in a manifest), which happens after every object is stored. A download compares the hash of
each file with that list.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from jobs.errors import Damaged
from jobs.objects import ObjectStore
from jobs.progress import Beat, no_beat

BundleFile = dict[str, Any]
"""``path`` within the folder, ``key`` of the object, ``bytes``, ``sha256`` in hex."""

READ_BYTES = 2**20


def folder(project_id: str, name: str, *, job_id: str, fence: int) -> str:
    """Where a run of a job stores the version that it trained; the fence separates late writers."""
    return f"models/{project_id}/{name}/{job_id}-{fence}"


def upload(
    store: ObjectStore, folder: Path, *, prefix: str, beat: Beat = no_beat
) -> list[BundleFile]:
    """Store every file of the folder under the prefix; returns the list of the bundle's files.

    Links to folders are left out, links to files are followed. Each file is read once, block by
    block. ``beat`` is called after each block; an exception from it ends the upload.
    """
    return [
        _upload(store, folder / path, path=path, key=f"{prefix}/{path}", beat=beat)
        for path in _paths(folder)
    ]


def download(
    store: ObjectStore,
    files: Iterable[BundleFile],
    folder: Path,
    *,
    beat: Beat = no_beat,
) -> None:
    """Write the bundle's files into the folder, flushed to disk.

    Raises ``Damaged`` for an object that is missing or has changed, ``OSError`` for any other
    fault of the store.
    """
    for file in files:
        target = folder / inner(file["path"])
        target.parent.mkdir(parents=True, exist_ok=True)
        _download(store, file, target, beat=beat)


def digest(files: Iterable[BundleFile]) -> str:
    """The identity of a bundle: sha256 over the paths and hashes of its files."""
    whole = hashlib.sha256()
    for file in sorted(files, key=lambda file: str(file["path"])):
        whole.update(f"{file['path']}\0{file['sha256']}\n".encode())
    return whole.hexdigest()


def size(files: Iterable[BundleFile]) -> int:
    return sum(int(file["bytes"]) for file in files)


def inner(path: str) -> PurePosixPath:
    """A path that stays within its folder. Raises ``Damaged`` for any other."""
    relative = PurePosixPath(path)
    if relative.is_absolute() or not relative.parts or ".." in relative.parts:
        raise Damaged(f"a file of a bundle must lie within its folder, not at {path!r}")
    return relative


def _paths(folder: Path) -> list[str]:
    return sorted(
        (Path(parent) / name).relative_to(folder).as_posix()
        for parent, _, names in os.walk(folder)
        for name in names
    )


def _upload(store: ObjectStore, source: Path, *, path: str, key: str, beat: Beat) -> BundleFile:
    content, count = hashlib.sha256(), 0
    with source.open("rb") as file, store.writer(key) as sink:
        while block := file.read(READ_BYTES):
            sink.write(block)
            content.update(block)
            count += len(block)
            beat()
    return {"path": path, "key": key, "bytes": count, "sha256": content.hexdigest()}


def _download(store: ObjectStore, file: BundleFile, target: Path, *, beat: Beat) -> None:
    content = hashlib.sha256()
    try:
        with target.open("wb") as sink:
            for block in store.stream(file["key"]):
                sink.write(block)
                content.update(block)
                beat()
            sink.flush()
            os.fsync(sink.fileno())
    except FileNotFoundError as error:
        raise Damaged(f"{file['path']} is gone from the object store") from error
    if content.hexdigest() != file["sha256"]:
        raise Damaged(
            f"{file['path']} is damaged in the object store: its sha256 must be "
            f"{file['sha256']}, and is {content.hexdigest()}"
        )
