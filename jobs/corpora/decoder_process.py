"""The child of ``jobs.corpora.decoder``: ``python -m jobs.corpora.decoder_process FD``.

It decodes one corpus within a limit on its memory. The bytes come from its parent, block by block.
"""

from __future__ import annotations

import io
import json
import resource
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from jobs import parent_death
from jobs.corpora import readers
from jobs.corpora.decoder import BATCH, BLOCK, DONE, FAILED, FULL, READ
from jobs.corpora.sources import Source
from jobs.corpora.targets import TargetKind
from jobs.errors import CorpusFailure
from jobs.kinds import Corpus, LabelledCorpus, PairCorpus, PromptCorpus

CORPORA = {each.__name__: each for each in (Corpus, LabelledCorpus, PairCorpus, PromptCorpus)}


class ParentFile(io.RawIOBase):
    """The corpus, whose bytes the parent has."""

    def __init__(self, connection: Connection, size: int) -> None:
        super().__init__()
        self._connection = connection
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        """At most ``size`` bytes; fewer only at the end of the file."""
        left = self._size - self._position
        left = left if size is None or size < 0 else min(size, left)
        blocks = []
        while left > 0:
            wanted = min(left, BLOCK)
            place = self._position.to_bytes(8, "little") + wanted.to_bytes(8, "little")
            self._connection.send_bytes(READ + place)
            block = self._connection.recv_bytes()
            if not block:
                break
            blocks.append(block)
            self._position += len(block)
            left -= len(block)
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)


def main() -> int:
    parent_death.watch_parent()
    connection = Connection(int(sys.argv[1]))
    task = json.loads(connection.recv_bytes())
    limit_memory(task["memory_bytes"])
    try:
        for batch in _batches(connection, task):
            connection.send_bytes(BATCH + batch.serialize().to_pybytes())
    except CorpusFailure as failure:
        answer = {"message": failure.message, "code": failure.code}
        connection.send_bytes(FAILED + json.dumps(answer).encode())
    except MemoryError:
        connection.send_bytes(FULL)
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the parent needs no more
        return 0
    else:
        connection.send_bytes(DONE)
    return 0


def _batches(connection: Connection, task: dict[str, Any]) -> Iterator[pa.RecordBatch]:
    kind, fields = task["corpus"]
    source = Source(
        name=task["name"],
        fingerprint=lambda: "",
        open=lambda: cast("BinaryIO", ParentFile(connection, task["bytes"])),
    )
    return readers.read(
        source,
        CORPORA[kind].model_validate(fields),
        max_row_bytes=task["max_row_bytes"],
        targets=task["targets"] and TargetKind(task["targets"]),
    )


def limit_memory(size: int) -> None:
    """Let this process take ``size`` more bytes than it has; elsewhere than on Linux no limit."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":
        return
    status = Path("/proc/self/status").read_text()
    now = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (now * 1024 + size,) * 2)


if __name__ == "__main__":
    sys.exit(main())
