"""Rows of different lengths in two flat files, read through a memory map."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]


class RaggedArray:
    """Row ``i`` is ``values[offsets[i]:offsets[i + 1]]``; the operating system pages rows in."""

    def __init__(self, path: Path, *, dtype: str = "int32") -> None:
        self.values = _mapped(path.with_suffix(".values"), dtype=dtype)
        self.offsets = _mapped(path.with_suffix(".offsets"), dtype="int64")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Values:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @cached_property
    def lengths(self) -> npt.NDArray[np.int32]:
        """The length of each row: four bytes a row, in memory."""
        return np.diff(self.offsets).astype(np.int32)


class RaggedWriter:
    """Appends rows to the two files, which are complete when the block is left."""

    def __init__(self, path: Path, *, dtype: str = "int32") -> None:
        self._dtype = dtype
        self._values: IO[bytes] = path.with_suffix(".values").open("wb")
        self._offsets: IO[bytes] = path.with_suffix(".offsets").open("wb")
        self._end = 0
        self._offsets.write(np.zeros(1, dtype=np.int64).tobytes())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._values.close()
        self._offsets.close()

    def append(self, rows: Sequence[Sequence[int] | bytes]) -> None:
        """Append rows."""
        if not rows:
            return
        ends = self._end + np.cumsum([len(row) for row in rows], dtype=np.int64)
        flat = [np.frombuffer(row, np.uint8) if isinstance(row, bytes) else row for row in rows]
        self._values.write(b"".join(np.asarray(row, dtype=self._dtype).tobytes() for row in flat))
        self._offsets.write(ends.tobytes())
        self._end = int(ends[-1])


def _mapped(path: Path, *, dtype: str) -> Values:
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        return np.zeros(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")
