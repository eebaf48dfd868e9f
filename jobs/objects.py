"""The object store: immutable objects by key, in a local folder or an S3 bucket.

Built on obstore. Nothing here is ever changed in place: a key is written once, under a fence where
two writers are possible, and counts only when the ledger points at it. A key is a relative path
of plain segments (``jobs/7/parts/3-1.parquet``); it cannot leave the root.

A missing key raises ``ObjectMissing``, one that may not be read or written ``StorageRefused`` (S3
answers so for missing keys too, where listing is not allowed), any other trouble of the store
(full, silent) ``StorageAway``. Their messages name the key, and no path of the server. Every
request has a timeout and a few retries: a store that hangs is an error.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import LocalStore, from_url
from obstore.store import ObjectStore as Backend

from jobs import remainders
from jobs.errors import (
    BadRequest,
    Damaged,
    NightshiftError,
    ObjectMissing,
    StorageAway,
    StorageRefused,
)
from jobs.remainders import Remove

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from obstore import ObjectMeta, WritableFile
    from obstore.store import ClientConfig, RetryConfig, S3Config

READ_BUFFER = 2**20
"""Bytes that a reader holds, and so what one small read costs."""

PART = 8 * 2**20
"""Bytes of one part of a multipart upload: S3 takes 5 MiB to 5 GiB and at most 10,000 parts, so
80 GiB fit."""

UPLOADS = 2
"""Parts of one writer in flight at once; its memory is at most one part more."""

DELETED_AT_ONCE = 1000
"""Keys of one deletion: what S3 takes in one request."""

SCHEMES = ("s3", "gs", "az")

_BAD_KEY = re.compile(r"(^|/)\.{0,2}(/|$)|[\x00-\x1f\x7f\\]|#\d+$")
"""Empty, ``.`` and ``..`` segments; characters that S3 servers rewrite; the suffix that local
uploads have until they are complete."""

_OS_ERROR = re.compile(r"\(os error (\d+)\)")


@dataclass(frozen=True)
class Stored:
    """An object as the store lists it; ``etag`` changes when the content does."""

    key: str
    bytes: int
    etag: str | None
    modified: datetime = field(compare=False)  # by the clock of the store


class ObjectStore:
    """Objects under one root; safe to share between threads."""

    def __init__(self, backend: Backend, *, remove: Remove = remainders.nowhere) -> None:
        """``remove``: removes what a killed writer left of a key."""
        self._backend = backend
        self._remove = remove

    def put(self, key: str, data: bytes | memoryview) -> None:
        """Write or replace an object; it appears whole or not at all."""
        with _faults(key):
            obstore.put(
                self._backend, _checked(key), data, chunk_size=PART, max_concurrency=UPLOADS
            )

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless the key exists; of concurrent creators at most one gets ``True``.

        After a lost answer the retry finds the object of the first try and returns ``False``.
        """
        with _faults(key):
            try:
                obstore.put(self._backend, _checked(key), data, mode="create")
            except AlreadyExistsError:
                return False
        return True

    def get(self, key: str) -> bytes:
        """The whole object."""
        with _faults(key):
            return bytes(obstore.get(self._backend, _checked(key)).bytes())

    def size(self, key: str) -> int:
        """The object's length in bytes."""
        return self.look(key).bytes

    def look(self, key: str) -> Stored:
        """What is known of the object without reading it."""
        with _faults(key):
            return _stored(obstore.head(self._backend, _checked(key)))

    def exists(self, key: str) -> bool:
        """Whether the key is there."""
        try:
            self.size(key)
        except FileNotFoundError:
            return False
        return True

    def reader(self, key: str) -> io.BufferedReader:
        """A seekable binary file over ranged reads; memory is one ``READ_BUFFER``."""
        raw = _RangeReader(self._backend, _checked(key), size=self.size(key))
        return io.BufferedReader(raw, buffer_size=READ_BUFFER)

    @contextlib.contextmanager
    def writer(self, key: str) -> Iterator[IO[bytes]]:
        """A binary file that becomes the object when the ``with`` block ends well.

        When the block raises, nothing appears and what was uploaded is discarded. Memory stays at
        ``UPLOADS + 1`` parts. Closing the file early (as ``io.TextIOWrapper`` does) ends writing,
        not the upload.
        """
        upload = obstore.open_writer(
            self._backend, _checked(key), buffer_size=PART, max_concurrency=UPLOADS
        )
        with contextlib.ExitStack() as stack:  # aborts the upload when the block raises
            with _faults(key):
                stack.enter_context(upload)
            yield cast("IO[bytes]", _Sink(upload, key))
            with _faults(key):
                stack.close()

    def stream(self, key: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The object's bytes, or those from ``start`` up to ``end``, ``PART`` at a time.

        Each block is a request of its own: a slow consumer meets no timeout, and a broken
        connection costs one retry.
        """
        return self._blocks(_checked(key), start, self.size(key) if end is None else end)

    def keys(self, prefix: str) -> Iterator[str]:
        """Every key under a prefix (a folder of keys), in no order; none if there are none."""
        for stored in self.listing(prefix):
            yield stored.key

    def listing(self, prefix: str = "") -> Iterator[Stored]:
        """Every object under a prefix, in no order; without one, every object there is."""
        with _faults(prefix or "the whole store"):
            for batch in obstore.list(self._backend, prefix.rstrip("/")):
                yield from map(_stored, batch)

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        with contextlib.suppress(FileNotFoundError), _faults(key):
            obstore.delete(self._backend, _checked(key))

    def delete_all(self, keys: Sequence[str]) -> None:
        """Remove objects, many with one request where the store can; some may be gone already."""
        if not keys:
            return
        with contextlib.suppress(FileNotFoundError), _faults(f"one of {len(keys)} keys"):
            obstore.delete(self._backend, [_checked(key) for key in keys])
            return
        for key in keys:  # a folder stops at the first that is not there
            self.delete(key)

    def delete_folder(self, prefix: str, *, keep: Collection[str] = ()) -> int:
        """Remove every object under a prefix but those to ``keep``; how many there were."""
        removed = 0
        while batch := self._some(prefix, keep=keep):
            self.delete_all(batch)
            removed += len(batch)
        return removed

    def discard(self, key: str) -> None:
        """Remove an object and what a writer that was killed left of it, if there is anything."""
        self.delete(key)
        with _faults(key):
            self._remove(_checked(key))

    def _some(self, prefix: str, *, keep: Collection[str]) -> list[str]:
        wanted = (key for key in self.keys(prefix) if key not in keep)
        return list(itertools.islice(wanted, DELETED_AT_ONCE))

    def _blocks(self, key: str, first: int, last: int) -> Iterator[bytes]:
        for start in range(first, last, PART):
            end = min(start + PART, last)
            yield bytes(_range(self._backend, key, start=start, end=end))


class _RangeReader(io.RawIOBase):
    """One object as a raw file: each ``readinto`` is one ranged request of that size.

    It exists because obstore's own file returns its ``Bytes``, which pyarrow and ``io`` refuse.
    """

    def __init__(self, backend: Backend, key: str, *, size: int) -> None:
        super().__init__()
        self._backend = backend
        self._key = key
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(f"a position must be at least 0, not {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        target = memoryview(buffer).cast("B")
        end = min(self._position + len(target), self._size)
        count = max(end - self._position, 0)
        if count:  # a request for no bytes is an error
            data = _range(self._backend, self._key, start=self._position, end=end)
            target[:count] = data
            self._position = end
        return count


class _Sink(io.RawIOBase):
    """The file side of an upload. Closing it commits nothing: ``ObjectStore.writer`` does that.

    A file that is dropped is closed by the garbage collector, which must not publish half of it.
    """

    def __init__(self, upload: WritableFile, key: str) -> None:
        super().__init__()
        self._upload = upload
        self._key = key
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: object, /) -> int:
        if self.closed:
            raise ValueError("write to a closed file")
        block = memoryview(cast("bytes", data)).cast("B")
        with _faults(self._key):
            self._upload.write(block)
        self._position += len(block)
        return len(block)


def connect(url: str) -> ObjectStore:
    """The store at ``file:///folder`` (made if missing) or ``s3://bucket/prefix``.

    S3 keys, region and endpoint come from the usual ``AWS_*`` variables; keys from files as well.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        folder = Path(unquote(parts.path))
        if folder.is_absolute():
            local = LocalStore(folder, mkdir=True, automatic_cleanup=True)
            return ObjectStore(local, remove=remainders.in_folder(folder))
    if parts.scheme in SCHEMES and parts.netloc:
        keys = _keys_in_files() if parts.scheme == "s3" else None
        backend = from_url(url, config=keys, client_options=_client(), retry_config=_retries())
        remove = remainders.in_bucket(url) if parts.scheme == "s3" else remainders.nowhere
        return ObjectStore(backend, remove=remove)
    raise BadRequest(
        f"an object store must be file:///folder or s3://bucket/prefix, not {url!r}",
        code="bad_object_store",
    )


@contextlib.contextmanager
def _faults(key: str) -> Iterator[None]:
    """What the store raises, as an error of ours that names the key."""
    try:
        yield
    except NightshiftError:
        raise
    except FileNotFoundError as error:
        raise ObjectMissing(f"there is no object {key} in the object store") from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise StorageRefused(f"the object store refuses {key}: {_reason(error)}") from error
    except (BaseError, OSError) as error:  # of a file that is written
        raise _away(key, error) from error


def _away(key: str, error: Exception) -> StorageAway:
    found = _OS_ERROR.search(str(error))
    away = StorageAway(f"the object store fails at {key}: {_reason(error)}")
    away.errno = int(found[1]) if found else None
    return away


def _stored(meta: ObjectMeta) -> Stored:
    return Stored(meta["path"], meta["size"], meta["e_tag"], meta["last_modified"])


def _reason(error: Exception) -> str:
    """The reason in words; a local store's message holds paths of the server."""
    text = str(error).partition("\n\nDebug source")[0]
    found = _OS_ERROR.search(text)
    if found:
        return os.strerror(int(found[1]))
    return "its folder cannot be used" if "LocalFileSystem" in text else text


def _range(backend: Backend, key: str, *, start: int, end: int) -> memoryview:
    with _faults(key):
        data = memoryview(obstore.get_range(backend, key, start=start, end=end))
    if len(data) != end - start:
        raise Damaged(f"the object {key} was cut short while it was read")
    return data


def _keys_in_files() -> S3Config:
    keys = remainders.key_files(os.environ)
    return cast("S3Config", {name.lower(): text for name, text in keys.items()})


def _client() -> ClientConfig:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    return {
        "connect_timeout": timedelta(seconds=5),
        "read_timeout": timedelta(seconds=30),
        "timeout": timedelta(seconds=120),
        "allow_http": endpoint.startswith("http://"),
    }


def _retries() -> RetryConfig:
    return {
        "max_retries": 10,
        "retry_timeout": timedelta(seconds=120),
        "backoff": {
            "init_backoff": timedelta(milliseconds=100),
            "max_backoff": timedelta(seconds=5),
            "base": 2,
        },
    }


def _checked(key: str) -> str:
    if _BAD_KEY.search(key):
        raise BadRequest(
            "an object key must be a relative path without '.', '..', empty segments, "
            f"backslashes or control characters, not {key!r}",
            code="bad_object_key",
        )
    return key
