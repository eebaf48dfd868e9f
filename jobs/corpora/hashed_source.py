"""The hash of a corpus's bytes, taken while a reader reads them.

Readers of lines read every byte once, and nothing is read for the hash alone. A reader of Parquet
reads here and there: what it has passed over is read at the end.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO, cast

from jobs.corpora.sources import BUFFER, Source
from jobs.progress import Beat

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class HashedSource:
    """A source whose bytes are hashed in order as they are read."""

    def __init__(self, source: Source) -> None:
        self._whole = source
        self._hash = hashlib.sha256()
        self._hashed = 0
        self.source = replace(source, open=self._open)

    def sha256(self, *, beat: Beat) -> str:
        """Of all bytes; those that no reader has read are read now."""
        with self._whole.open() as file:
            file.seek(self._hashed)
            while block := file.read(BUFFER):
                beat()
                self._hash.update(block)
                self._hashed += len(block)
        return self._hash.hexdigest()

    def add(self, position: int, data: memoryview) -> None:
        """Bytes that were read at a position; those behind the hashed ones count."""
        known = self._hashed - position
        if 0 <= known < len(data):
            self._hash.update(data[known:])
            self._hashed = position + len(data)

    def _open(self) -> BinaryIO:
        raw = cast("io.RawIOBase", _HashedFile(self._whole.open(), self))
        return cast("BinaryIO", io.BufferedReader(raw, buffer_size=BUFFER))


class _HashedFile(io.RawIOBase):
    """A file that passes on what is read of it."""

    def __init__(self, inner: BinaryIO, hashed: HashedSource) -> None:
        super().__init__()
        self._inner = inner
        self._hashed = hashed

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._inner.seek(offset, whence)

    def tell(self) -> int:
        return self._inner.tell()

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        target = memoryview(buffer).cast("B")
        position = self._inner.tell()
        data = self._inner.read(len(target))
        target[: len(data)] = data
        self._hashed.add(position, memoryview(data))
        return len(data)

    def close(self) -> None:
        self._inner.close()
        super().close()
