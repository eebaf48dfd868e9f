"""Decoding in a process of its own, with a limit on its memory, where the file cannot be trusted.

All formats but Parquet bound their memory themselves. A page, a dictionary or a run of a Parquet
file is a few bytes that may become gigabytes, and nothing that the file says about that is
certain. So a child reads it (``jobs.corpora.decoder_process``): the kernel refuses it more memory
than the setting ``decoder_memory_bytes`` allows, and a decoder that crashes harms its own job
alone (promises P5 and P12).

The child has no connection, no key and no file: it asks for bytes of the corpus, and sends batches.
Its parent believes neither: requests are bounded, batches are validated.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, BinaryIO, Self

import pyarrow as pa

from jobs import environment
from jobs.corpora import columns, readers, text_stream
from jobs.corpora.sources import Source
from jobs.corpora.targets import TargetKind, batch_builder
from jobs.errors import CorpusFailure
from jobs.kinds import Corpus, CorpusFormat
from jobs.settings import Settings

BLOCK = 2**20
"""Most bytes of the corpus in one answer."""

MIB = 2**20
_OVERHEAD = 16 * MIB
_ROW_VALUES = 4
"""Values of a row that may each be as long as the limit: id, text, target, and an error."""

READ, BATCH, FAILED, FULL, DONE = b"r", b"b", b"f", b"m", b"d"
"""What a message of the child begins with: bytes are needed; a batch; the corpus cannot be read;
memory has ended; there are no more rows."""

_CRASHES: dict[int, str] = {
    number: number.name
    for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
}


@dataclass(frozen=True)
class Limits:
    """What bounds a reader: the longest row, and the memory of a decoder."""

    row_bytes: int
    memory_bytes: int

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Those of an installation."""
        return cls(settings.max_row_bytes, settings.decoder_memory_bytes)


def read(
    source: Source, corpus: Corpus, *, limits: Limits, targets: TargetKind | None = None
) -> Iterator[pa.RecordBatch]:
    """``readers.read``, in a child where the format needs it.

    Raises ``CorpusFailure`` with code ``corpus_too_large`` when the limit does not suffice.
    """
    if text_stream.guess_format(source.name, corpus) is not CorpusFormat.PARQUET:
        yield from readers.read(source, corpus, max_row_bytes=limits.row_bytes, targets=targets)
        return
    targets = targets or columns.named_target_kind(corpus)
    position = readers.Position(source.name)
    with readers.library_errors_as_failures(position):
        file = source.open()
    with file, _Decoder(file, corpus, limits=limits, targets=targets, position=position) as decoder:
        yield from decoder.batches()


class _Decoder:
    """A child that decodes one corpus, and the file that it reads."""

    def __init__(
        self,
        file: BinaryIO,
        corpus: Corpus,
        *,
        limits: Limits,
        targets: TargetKind | None,
        position: readers.Position,
    ) -> None:
        self._file = file
        self._limits = limits
        self._position = position
        self._schema = batch_builder(targets).schema
        with readers.library_errors_as_failures(position):
            size = file.seek(0, os.SEEK_END)
        self._task = {
            "name": position.name,
            "bytes": size,
            "corpus": [type(corpus).__name__, corpus.model_dump(mode="json")],
            "targets": targets,
            "max_row_bytes": limits.row_bytes,
            "memory_bytes": limits.memory_bytes,
        }

    def __enter__(self) -> Self:
        ours, theirs = socket.socketpair()
        self._connection = Connection(ours.detach())
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jobs.corpora.decoder_process", str(theirs.fileno())],
                env=_environment(),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def batches(self) -> Iterator[pa.RecordBatch]:
        try:
            self._connection.send_bytes(json.dumps(self._task).encode())
            while (message := self._receive())[:1] != DONE:
                if message[:1] == READ:
                    self._connection.send_bytes(self._bytes(message[1:]))
                else:
                    batch = self._batch(message)
                    self._position.rows += batch.num_rows
                    yield batch
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise self._death() from error

    def _receive(self) -> bytes:
        return self._connection.recv_bytes(_OVERHEAD + _ROW_VALUES * self._limits.row_bytes)

    def _bytes(self, request: bytes) -> bytes:
        offset, size = (int.from_bytes(request[i : i + 8], "little") for i in (0, 8))
        with readers.library_errors_as_failures(self._position):
            self._file.seek(offset)
            return self._file.read(min(size, BLOCK))

    def _batch(self, message: bytes) -> pa.RecordBatch:
        kind, body = message[:1], memoryview(message)[1:]
        if kind == FULL:
            raise self._too_large()
        if kind == FAILED:
            failure: dict[str, Any] = json.loads(bytes(body))
            raise CorpusFailure(failure["message"], code=failure["code"])
        batch = pa.ipc.read_record_batch(pa.py_buffer(body), self._schema)
        batch.validate(full=True)
        return batch

    def _death(self) -> Exception:
        """Why the child is gone: the file made it crash, or it was ended."""
        code = self._process.wait()
        where = f"{self._position.name} cannot be read after row {self._position.rows:,}"
        if -code in _CRASHES:
            return CorpusFailure(f"{where}: its decoder crashed ({_CRASHES[-code]})")
        return MemoryError(f"{where}: its decoder was ended (exit status {code})")

    def _too_large(self) -> CorpusFailure:
        limit = f"{self._limits.memory_bytes // MIB:,} MiB"
        return CorpusFailure(
            f"{self._position.name} cannot be read after row {self._position.rows:,}: decoding a "
            f"row there takes more than {limit} of memory "
            "(decoder_memory_bytes); write the file again with shorter values, smaller pages and "
            "dictionaries, or as JSONL",
            code="corpus_too_large",
        )


def _environment() -> dict[str, str]:
    given = environment.chosen(os.environ, environment.SYSTEM, environment.PYTHON)
    own = {
        "ARROW_DEFAULT_MEMORY_POOL": "system",  # others reserve more than they use
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    return given | own
