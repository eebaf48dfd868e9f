"""Bundles: the files of a folder as objects, each with its size and its hash.

Models and checkpoints are bundles. A bundle is told apart from a torn one by its list of files,
which is written down (in the ledger, in a manifest) after every object is complete; a download
compares every byte's hash with that list.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from jobs.errors import Damaged
from jobs.objects import ObjectStore

File = dict[str, Any]
"""``path`` within the folder, ``key`` of the object, ``bytes``, ``sha256`` in hex."""

BLOCK = 2**20


def _go_on() -> None:
    """Nobody wants to be told of progress."""


def upload(
    store: ObjectStore, folder: Path, *, prefix: str, beat: Callable[[], None] = _go_on
) -> list[File]:
    """Store every file of the folder under the prefix; the list that makes it a bundle.

    Links to folders are left out, links to files are followed. Each file is read once, a block at a
    time; ``beat`` is called after each, and what it raises ends the upload.
    """
    return [
        _upload(store, folder / path, path=path, key=f"{prefix}/{path}", beat=beat)
        for path in _paths(folder)
    ]


def download(
    store: ObjectStore, files: Iterable[File], folder: Path, *, beat: Callable[[], None] = _go_on
) -> None:
    """Write the bundle's files into the folder, safe on disk when this returns.

    Raises ``Damaged`` for an object that is gone or is not what was stored; any other trouble of
    the store is the ``OSError`` that it is.
    """
    for file in files:
        target = folder / inner(file["path"])
        target.parent.mkdir(parents=True, exist_ok=True)
        _download(store, file, target, beat=beat)


def digest(files: Iterable[File]) -> str:
    """The identity of a bundle: sha256 over the paths and hashes of its files."""
    whole = hashlib.sha256()
    for file in sorted(files, key=lambda file: str(file["path"])):
        whole.update(f"{file['path']}\0{file['sha256']}\n".encode())
    return whole.hexdigest()


def size(files: Iterable[File]) -> int:
    """Bytes of all its files."""
    return sum(int(file["bytes"]) for file in files)


def inner(path: str) -> PurePosixPath:
    """A path that stays within its folder. Raises ``Damaged`` for any other."""
    found = PurePosixPath(path)
    if found.is_absolute() or not found.parts or ".." in found.parts:
        raise Damaged(f"a file of a bundle must lie within its folder, not at {path!r}")
    return found


def _paths(folder: Path) -> list[str]:
    found = [
        (Path(place) / name).relative_to(folder).as_posix()
        for place, _, names in os.walk(folder)
        for name in names
    ]
    return sorted(found)


def _upload(
    store: ObjectStore, source: Path, *, path: str, key: str, beat: Callable[[], None]
) -> File:
    content, count = hashlib.sha256(), 0
    with source.open("rb") as file, store.writer(key) as sink:
        while block := file.read(BLOCK):
            sink.write(block)
            content.update(block)
            count += len(block)
            beat()
    return {"path": path, "key": key, "bytes": count, "sha256": content.hexdigest()}


def _download(store: ObjectStore, file: File, target: Path, *, beat: Callable[[], None]) -> None:
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
