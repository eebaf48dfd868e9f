"""From a source's bytes to plain UTF-8: format by name, compression by first bytes, encoding.

Whatever the encoding, the readers get UTF-8. A byte that is invalid in its encoding becomes one
that is invalid in UTF-8 (a lone surrogate), so it makes its own row an error row and no other.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import BinaryIO, Protocol

import pyarrow as pa

from jobs.corpora import zstd
from jobs.corpora.sources import Source
from jobs.errors import CorpusFailure
from jobs.formats import COMPRESSED_ENDINGS, CORPUS_ENDINGS, CorpusFormat
from jobs.kinds import Corpus

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"  # after one byte 0x50 to 0x5f; pzstd begins with such a frame
_OTHER_FORMATS = {  # other kinds of files that are uploaded by mistake, by their first bytes
    b"PK\x03\x04": "a zip archive (or an Excel workbook)",
    b"BZh": "bzip2-compressed",
    b"\xfd7zXZ\0": "xz-compressed",
    b"PAR1": "a Parquet file",
}
_BZIP2_BLOCK = b"1AY&SY"  # distinguishes bzip2 from a text that begins with "BZh"

_BOMS = {  # the UTF-32 marks first: one of them begins like that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_MAGIC_BYTES = 16
_TOO_MUCH_MEMORY = "Frame requires too much memory"  # zstd's message
_BAD_ALLOC = "bad_alloc"  # what C++ says when memory ends
_NOT_GZIP = "Not a gzipped file"  # Python's message
_HEADER_SEARCH_BYTES = 4 * 2**20
"""Bytes; pyarrow reads far less at once."""
_UNDECODABLE = "nightshift.undecodable"


class Readable(Protocol):
    """Bytes in order; ``read`` returns at most ``size`` of them, and none only at the end."""

    def read(self, size: int, /) -> bytes: ...


def guess_format(name: str, corpus: Corpus) -> CorpusFormat:
    """The given format, else that of the name's suffix. Raises ``format_unknown``."""
    if corpus.format is not None:
        return corpus.format
    path = PurePosixPath(name.lower())
    if path.suffix in COMPRESSED_ENDINGS:
        path = path.with_suffix("")
    if path.suffix not in CORPUS_ENDINGS:
        raise CorpusFailure(
            f"the name {name!r} does not show the format: pass `format` as one of "
            f"{', '.join(CorpusFormat)}, or end the name in one of {', '.join(CORPUS_ENDINGS)}",
            code="format_unknown",
        )
    return CORPUS_ENDINGS[path.suffix]


@contextlib.contextmanager
def open_text(source: Source, corpus: Corpus) -> Iterator[Readable]:
    """The corpus as UTF-8, decompressed and without BOM."""
    with source.open() as raw:
        plain = _decompressed(raw, source.name, corpus)
        yield _as_utf8(plain, corpus.encoding)


class WatchedFile(io.RawIOBase):
    """A file that remembers its own failure.

    pyarrow raises ``OSError`` both for a fault of the storage, which may pass, and for broken
    content, which stays. This class distinguishes the two.
    """

    def __init__(self, inner: BinaryIO, name: str) -> None:
        super().__init__()
        self._inner = inner
        self._name = name
        self._failure: OSError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._inner.seek(offset, whence)

    def tell(self) -> int:
        return self._inner.tell()

    def read(self, size: int | None = -1, /) -> bytes:
        """Like the file's own; a failure is remembered."""
        try:
            return self._inner.read(-1 if size is None else size)
        except OSError as error:
            self._failure = error
            raise

    @contextlib.contextmanager
    def content_errors_as_failures(self, what: str) -> Iterator[None]:
        """An error that neither storage nor memory caused becomes ``corpus_unreadable``."""
        try:
            yield
        except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
            if self._failure is not None:
                raise self._failure from None
            if isinstance(error, MemoryError) or _BAD_ALLOC in str(error):
                raise MemoryError(str(error)) from error
            raise CorpusFailure(
                f"{self._name} cannot be read: {self._explained(error, what)}"
            ) from error

    def _explained(self, error: Exception, what: str) -> str:
        reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        if _TOO_MUCH_MEMORY in reason:
            end = self.tell()  # the refused frame is in the bytes that were read last
            return zstd.too_wide(self._bytes(max(0, end - _HEADER_SEARCH_BYTES), end))
        if _NOT_GZIP in reason and self._bytes(0, len(_GZIP)) == _GZIP:
            return "the data after its last member is not gzip; cut it off, or compress it again"
        return f"it is not a whole {what} ({reason})"

    def _bytes(self, begin: int, end: int) -> bytes:
        self.seek(begin)
        return self.read(end - begin)


class _Decompressed:
    def __init__(self, inner: Readable, raw: WatchedFile, *, what: str) -> None:
        self._inner = inner
        self._raw = raw
        self._what = what

    def read(self, size: int, /) -> bytes:
        with self._raw.content_errors_as_failures(self._what):
            return self._inner.read(size)


class _Prefixed:
    """Bytes that were read ahead, then the rest."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int, /) -> bytes:
        if not self._head:
            return self._rest.read(size)
        taken, self._head = self._head[:size], self._head[size:]
        return taken


class _Transcoded:
    """Bytes of another encoding as UTF-8, block by block."""

    def __init__(self, inner: Readable, decoder: codecs.IncrementalDecoder) -> None:
        self._inner = inner
        self._decoder = decoder
        self._ready = memoryview(b"")
        self._ended = False

    def read(self, size: int, /) -> bytes:
        while not self._ready and not self._ended:
            block = self._inner.read(size)
            self._ended = not block
            self._ready = memoryview(self._decoded(block))
        taken, self._ready = self._ready[:size], self._ready[size:]
        return bytes(taken)

    def _decoded(self, block: bytes) -> bytes:
        try:
            return self._decoder.decode(block, not block).encode("utf-8", "surrogatepass")
        except (ValueError, LookupError) as error:
            raise CorpusFailure(f"the corpus cannot be read in its encoding: {error}") from error


def _decompressed(raw: BinaryIO, name: str, corpus: Corpus) -> Readable:
    watched = WatchedFile(raw, name)
    compression = corpus.compression or _detected(raw, name)
    if compression == "gzip":
        return _Decompressed(gzip.GzipFile(fileobj=watched), watched, what="gzip file")
    if compression == "zstd":
        inner = pa.CompressedInputStream(pa.PythonFile(watched, mode="r"), "zstd")
        return _Decompressed(inner, watched, what="zstd file")
    return raw


def _detected(raw: BinaryIO, name: str) -> str:
    head = raw.read(_MAGIC_BYTES)
    raw.seek(0)
    if head.startswith(_GZIP):
        return "gzip"
    if head.startswith(_ZSTD) or (head[1:4] == _ZSTD_SKIPPABLE and head[0] >> 4 == 5):  # noqa: PLR2004
        return "zstd"
    for magic, kind in _OTHER_FORMATS.items():
        if head.startswith(magic) and (magic != b"BZh" or head[4:10] == _BZIP2_BLOCK):
            raise CorpusFailure(
                f"{name} cannot be read: it is {kind}; a corpus must be JSONL, CSV, TSV or text, "
                "plain or compressed by gzip or zstd, or Parquet with format `parquet`"
            )
    return "none"


def _as_utf8(plain: Readable, encoding: str) -> Readable:
    head = b""
    while len(head) < _MAGIC_BYTES and (block := plain.read(_MAGIC_BYTES - len(head))):
        head += block
    for bom, bom_encoding in _BOMS.items():
        if head.startswith(bom):
            head, encoding = head[len(bom) :], bom_encoding
            break
    whole = _Prefixed(head, plain)
    if codecs.lookup(encoding).name in ("utf-8", "utf-8-sig"):
        return whole
    return _Transcoded(whole, _decoder(encoding))


def _decoder(encoding: str) -> codecs.IncrementalDecoder:
    codecs.register_error(_UNDECODABLE, _mark_undecodable)
    try:
        return codecs.getincrementaldecoder(encoding)(_UNDECODABLE)
    except (LookupError, UnicodeError) as error:
        raise CorpusFailure(f"the encoding {encoding!r} cannot be read as a stream") from error


def _mark_undecodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\udcff", error.end
