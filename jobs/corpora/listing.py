"""The objects that a pattern of URIs stands for, as their store lists them now.

What is listed is checked like an object that was named: it must lie where jobs may read, and not
among the files of the installation. A symbolic link to a file counts as the file that it leads to;
links to folders are not followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from jobs import globs, objects, private_places
from jobs.corpora import sources
from jobs.errors import CorpusFailure, StorageAway, StorageRefused
from jobs.globs import Pattern
from jobs.inputs import Input
from jobs.progress import Beat

MOST_LISTED = 5_000_000
"""Names that are looked at for one pattern, whether they match or not."""

NO_BUCKET = "NoSuchBucket"
"""S3's code, which its client does not tell from other faults."""

BEAT_EVERY = 1_000


def matching(
    uri: str, *, allowed: Sequence[str], private: Sequence[str], beat: Beat
) -> Iterator[Input]:
    """Every object that the pattern stands for, in no order.

    A folder that is not there holds none. Raises ``CorpusRefused`` for an object that jobs may not
    read, ``CorpusFailure`` for a folder or bucket that cannot be listed.
    """
    sources.check_allowed(uri, allowed)
    scheme, base = sources.parse(globs.fixed(uri))
    pattern = Pattern.of(uri)
    if scheme == "s3":
        found = _in_bucket(uri, base, pattern, private=private)
    else:
        found = _in_folder(Path("/", *base), pattern, allowed=allowed, private=private)
    for looked_at, each in enumerate(found, 1):
        if looked_at % BEAT_EVERY == 0:
            beat()
        if looked_at > MOST_LISTED:
            raise CorpusFailure(
                f"more than {MOST_LISTED:,} names lie under {globs.fixed(uri)}: put more of the "
                "path before the first wildcard",
                code="too_many_objects",
            )
        if each is not None:
            yield each


def _in_bucket(
    uri: str, base: tuple[str, ...], pattern: Pattern, *, private: Sequence[str]
) -> Iterator[Input | None]:
    """The objects of a bucket; ``None`` for each that does not match."""
    bucket, *folder = base
    prefix = "/".join(folder)
    try:
        for entry in objects.connect(f"s3://{bucket}").listing(prefix):
            parts = tuple(entry.key.split("/"))
            if not pattern.matches(parts[len(folder) :]):
                yield None
                continue
            name = f"s3://{bucket}/{entry.key}"
            if private_places.hold_object(private, "s3", (bucket, *parts)):
                raise sources.private_place(name)
            yield Input(name, sources.object_version(entry), entry.bytes)
    except (FileNotFoundError, StorageRefused) as error:
        raise CorpusFailure(f"{uri} cannot be listed: {error}") from error
    except StorageAway as error:
        if NO_BUCKET not in error.message:
            raise
        raise CorpusFailure(f"{uri} cannot be listed: there is no such bucket") from error


def _in_folder(
    base: Path, pattern: Pattern, *, allowed: Sequence[str], private: Sequence[str]
) -> Iterator[Input | None]:
    """The files below a folder; ``None`` for each that does not match."""
    sources.check_folder(base, allowed=allowed)
    pending = [(base, pattern.begin())]
    while pending:
        folder, places = pending.pop()
        for entry in _entries(folder):
            after = pattern.step(places, entry.name)
            if after and entry.is_dir(follow_symlinks=False):
                pending.append((Path(entry.path), after))
            if not pattern.accepts(after) or not _is_file(entry):
                yield None
                continue
            uri = sources.canonical(f"file://{quote(entry.path)}")
            real = sources.resolved(Path(entry.path), uri, allowed=allowed, private=private)
            state = real.stat()
            yield Input(uri, sources.file_version(state), state.st_size)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except FileNotFoundError:  # there is nothing below it
        return
    except OSError as error:
        raise CorpusFailure(f"file://{folder} cannot be listed: {error.strerror}") from error


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether it is a regular file, or a link to one; not a pipe, a socket or a dangling link."""
    try:
        return stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return False
