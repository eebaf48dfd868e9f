"""Where a corpus's bytes come from: an uploaded file, or a URI on the allow-list.

Nothing is read until ``open()``. The allow-list is checked twice: on the URI's text when a job is
submitted (``check_allowed``) and, for files, on the resolved path when they are opened.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast
from urllib.parse import quote, unquote

from jobs import globs, objects, private_places
from jobs.errors import CorpusFailure, CorpusRefused, ObjectMissing

BUFFER = 2**20
SCHEMES = ("file", "s3", "hf")
LISTED = ("file", "s3")
"""Schemes whose objects can be listed, for patterns."""
_PLAIN = "/=@:+,~!$&'()"
"""Characters of a path that a ``file:`` URI has as they are."""
_HF_PARTS = 4  # datasets, organisation, name, and at least one part of a path


@dataclass(frozen=True)
class Source:
    """The bytes of one corpus.

    ``name`` is a file name, from which the format is guessed. ``fingerprint()`` changes when the
    content does. ``open()`` returns a seekable binary file that is buffered in bounded memory.
    """

    name: str
    fingerprint: Callable[[], str]
    open: Callable[[], BinaryIO]


def from_object(store: objects.ObjectStore, key: str, *, name: str) -> Source:
    """An uploaded file; objects never change, so key and size identify them."""

    def fingerprint() -> str:
        with _uploaded(name):
            return f"{key}:{store.size(key)}"

    def open_object() -> BinaryIO:
        with _uploaded(name):
            return store.reader(key)

    return Source(name=name, fingerprint=fingerprint, open=open_object)


@contextlib.contextmanager
def _uploaded(name: str) -> Iterator[None]:
    """A missing upload is the corpus's fault; a store that refuses access is not."""
    try:
        yield
    except ObjectMissing as error:
        raise CorpusFailure(
            f"the uploaded file {name!r} is gone from the object store; upload it again and "
            "submit a new job"
        ) from error


def from_path(path: Path) -> Source:
    """A file on this machine, whose owner names it: no allow-list applies."""

    def fingerprint() -> str:
        return file_version(path.stat())

    return Source(
        name=path.name,
        fingerprint=fingerprint,
        open=lambda: path.open("rb", buffering=BUFFER),
    )


def file_version(state: os.stat_result) -> str:
    """What changes when a file is written."""
    return f"{state.st_size}:{state.st_mtime_ns}"


def object_version(entry: objects.Stored) -> str:
    """What changes when an object of a bucket is written again with other bytes."""
    return f"{entry.bytes}:{entry.etag}"


def from_uri(uri: str, *, allowed: Sequence[str], private: Sequence[str] = ()) -> Source:
    """A file, S3 object or hub data set.

    Raises ``CorpusRefused`` outside the allow-list, and for the installation's own places
    (``jobs.private_places``).
    """
    scheme, parts = parse(uri)
    _check_covered(uri, scheme, parts, allowed)
    if scheme == "file":
        return _file(uri, parts, allowed=tuple(allowed), private=tuple(private))
    if private_places.hold_object(private, scheme, parts):
        raise private_place(uri)
    if scheme == "s3":
        return _s3(uri, parts)
    return _hub(uri, parts)


def check_allowed(uri: str, allowed: Sequence[str]) -> None:
    """Raise ``CorpusRefused`` for a URI that no prefix covers; touches no storage.

    Prefixes are compared by path segments: ``file:///data`` covers ``file:///data/a.csv`` but not
    ``file:///database/a.csv``. A URI with a segment ``.`` or ``..`` is never covered. Of a pattern
    the part before its first wildcard must be covered.
    """
    scheme, parts = parse(uri)
    if globs.is_pattern(uri):
        _check_pattern(uri, scheme)
        scheme, parts = parse(globs.fixed(uri))
        if scheme == "s3" and not parts:
            raise _malformed(uri, "it must name its bucket, without a wildcard")
    _check_covered(uri, scheme, parts, allowed)


def _check_pattern(uri: str, scheme: str) -> None:
    if scheme not in LISTED:
        raise _malformed(uri, "files of the hub must be named one by one")
    try:
        globs.Pattern.of(uri)
    except ValueError as error:
        raise _malformed(uri, str(error)) from error


def _check_covered(uri: str, scheme: str, parts: tuple[str, ...], allowed: Sequence[str]) -> None:
    if not any(_covers(prefix, scheme, parts) for prefix in allowed):
        raise _refused(f"{uri!r} is outside of what jobs may read here", allowed)


def _refused(problem: str, allowed: Sequence[str]) -> CorpusRefused:
    covered = ", ".join(allowed) if allowed else "no URI at all; upload the file instead"
    return CorpusRefused(f"{problem}; allowed: {covered}", param="corpus.uri")


def private_place(uri: str) -> CorpusRefused:
    return CorpusRefused(
        f"{uri!r} lies among the files of this installation, which are no input of a job; an "
        "uploaded file is named by its id",
        param="corpus.uri",
    )


def _covers(prefix: str, scheme: str, parts: tuple[str, ...]) -> bool:
    covered_scheme, covered = parse(prefix)
    return covered_scheme == scheme and parts[: len(covered)] == covered


def canonical(uri: str) -> str:
    """The one spelling of the URI of an object, by which it is told from others."""
    scheme, parts = parse(uri)
    path = "/".join(parts)
    return f"file:///{quote(path, safe=_PLAIN)}" if scheme == "file" else f"{scheme}://{path}"


def parse(uri: str) -> tuple[str, tuple[str, ...]]:
    """The scheme and the non-empty path segments; a bucket is the first segment.

    Only ``file:`` URIs are percent-encoded; in others ``%`` is an ordinary character.
    """
    scheme, separator, path = uri.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in SCHEMES:
        raise _malformed(uri, "it must begin with file:///, s3:// or hf://")
    if scheme == "file":
        if not path.startswith("/"):
            raise _malformed(uri, "a file URI must name no host: file:///folder/name")
        path = unquote(path)
    parts = tuple(part for part in path.split("/") if part)
    if "\0" in path or ".." in parts or "." in parts:
        raise _malformed(uri, "its path must hold no '.', '..' or NUL")
    return scheme, parts


def _malformed(uri: str, rule: str) -> CorpusRefused:
    return CorpusRefused(f"{uri!r} is not the URI of a corpus: {rule}", param="corpus.uri")


def _file(
    uri: str, parts: tuple[str, ...], *, allowed: tuple[str, ...], private: tuple[str, ...]
) -> Source:
    path = Path("/", *parts)

    def real() -> Path:
        return resolved(path, uri, allowed=allowed, private=private)

    def fingerprint() -> str:
        return file_version(real().stat())

    real()
    return Source(
        name=path.name,
        fingerprint=fingerprint,
        open=lambda: real().open("rb", buffering=BUFFER),
    )


def resolved(path: Path, uri: str, *, allowed: Sequence[str], private: Sequence[str]) -> Path:
    """The path of a file, its links followed; it must lie under an allowed folder, also resolved.

    Raises ``CorpusRefused`` and ``CorpusFailure``.
    """
    try:
        real = path.resolve(strict=True)
        regular = stat.S_ISREG(real.stat().st_mode)
    except OSError as error:
        raise CorpusFailure(f"{uri} cannot be read: {error.strerror}") from error
    _check_within(real, uri, allowed=allowed)
    if private_places.hold(private, real):
        raise private_place(uri)
    if not regular:
        raise CorpusFailure(f"{uri} must be a regular file")
    return real


def check_folder(folder: Path, *, allowed: Sequence[str]) -> None:
    """Raise ``CorpusRefused`` for a folder to be listed that leads outside of the allow-list."""
    _check_within(folder.resolve(), folder.as_uri(), allowed=allowed)


def _check_within(real: Path, uri: str, *, allowed: Sequence[str]) -> None:
    prefixes = [parts for scheme, parts in map(parse, allowed) if scheme == "file"]
    if not any(real.is_relative_to(Path("/", *parts).resolve()) for parts in prefixes):
        raise _refused(f"{uri!r} leads outside of what jobs may read here", allowed)


@contextlib.contextmanager
def _missing_as_failure(uri: str) -> Iterator[None]:
    """A missing or forbidden object is the corpus's fault; any other fault may pass."""
    try:
        yield
    except (FileNotFoundError, PermissionError) as error:
        raise CorpusFailure(f"{uri} cannot be read: {error}") from error


def _s3(uri: str, parts: tuple[str, ...]) -> Source:
    bucket, key = parts[0], "/".join(parts[1:])
    if not key:
        raise _malformed(uri, "it must name an object: s3://bucket/key")

    def fingerprint() -> str:
        with _missing_as_failure(uri):
            return object_version(objects.connect(f"s3://{bucket}").look(key))

    def open_object() -> BinaryIO:
        with _missing_as_failure(uri):
            return objects.connect(f"s3://{bucket}").reader(key)

    return Source(name=PurePosixPath(key).name, fingerprint=fingerprint, open=open_object)


def _hub(uri: str, parts: tuple[str, ...]) -> Source:
    if len(parts) < _HF_PARTS or parts[0] != "datasets":
        raise _malformed(uri, "it must name a file: hf://datasets/org/name/path")
    path = "/".join(parts)
    from huggingface_hub import HfFileSystem  # noqa: PLC0415 - only for corpora on the hub

    def fingerprint() -> str:
        with _missing_as_failure(uri):
            info = HfFileSystem().info(path, refresh=True)
        return f"{info['size']}:{info.get('blob_id')}"

    return Source(
        name=parts[-1],
        fingerprint=fingerprint,
        open=lambda: cast("BinaryIO", HfFileSystem().open(path, "rb")),
    )
