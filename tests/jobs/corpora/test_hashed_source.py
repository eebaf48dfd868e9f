"""The hash of a source is that of all its bytes, in whatever order they are read."""

from __future__ import annotations

import hashlib
import io
from typing import BinaryIO, cast

from hypothesis import given
from hypothesis import strategies as st

from jobs.corpora.hashed_source import HashedSource
from jobs.corpora.sources import Source

BYTES = hashlib.shake_128(b"seed").digest(3_500_000)
READS = st.lists(st.tuples(st.integers(0, 4_000_000), st.integers(0, 2_000_000)), max_size=5)


class _Counted(io.BytesIO):
    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


@given(size=st.integers(0, len(BYTES)), reads=READS)
def test_any_reads_leave_the_hash_of_the_whole(size: int, reads: list[tuple[int, int]]) -> None:
    data = BYTES[:size]
    source = Source("a", fingerprint=str, open=lambda: cast("BinaryIO", io.BytesIO(data)))
    hashed = HashedSource(source)
    with hashed.source.open() as file:
        for place, count in reads:
            file.seek(place)
            assert file.read(count) == data[place : place + count]
    assert hashed.sha256(beat=lambda: None) == hashlib.sha256(data).hexdigest()


def test_what_is_read_to_the_end_is_not_read_again() -> None:
    opened: list[_Counted] = []

    def open_again() -> BinaryIO:
        opened.append(_Counted(b"abc" * 1_000_000))
        return cast("BinaryIO", opened[-1])

    hashed = HashedSource(Source("a", fingerprint=str, open=open_again))
    with hashed.source.open() as file:
        while file.read(1_000):
            pass
    assert hashed.sha256(beat=lambda: None)
    assert [each.count for each in opened] == [3_000_000, 0]
