"""Memory is bounded by settings, whatever the corpus; each case runs in its own process."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.alone

READ = """
import gzip, io, resource, sys
import pyarrow as pa, pyarrow.parquet as pq
from jobs.corpora import readers, sources
from jobs.kinds import Corpus

class Endless(io.RawIOBase):
    'Some bytes over and over, never all in memory.'
    def __init__(self, head, block, times, tail):
        super().__init__()
        self.sizes = (len(head), len(block) * times, len(tail))
        self.parts = (head, block * (2**20 // len(block)), tail)
        self.at = 0
    def readable(self): return True
    def seekable(self): return True
    def seek(self, at, whence=0): self.at = at; return at
    def tell(self): return self.at
    def readinto(self, buffer):
        at = self.at
        for size, part in zip(self.sizes, self.parts):
            if at < size:
                begin = at % len(part)
                data = part[begin : begin + min(len(buffer), size - at)]
                buffer[: len(data)] = data
                self.at += len(data)
                return len(data)
            at -= size
        return 0

def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def measure(name, open_):
    source = sources.Source(name=name, fingerprint=lambda: "", open=open_)
    before, rows, bad = peak(), 0, 0
    for batch in readers.read(source, Corpus(file="f"), max_row_bytes=2**20):
        rows += batch.num_rows
        bad += batch.num_rows - batch.column("error_code").null_count
    print(rows, bad, round(peak() - before))
"""

CASES = {
    "a line of 300 MB in JSONL": (
        """measure("a.jsonl", lambda: io.BufferedReader(
            Endless(b'"good"\\n"', b"x" * 1024, 300_000, b'"\\n"good"\\n')))""",
        (3, 1),
    ),
    "a line of 300 MB in CSV": (
        """measure("a.csv", lambda: io.BufferedReader(
            Endless(b'text\\ngood\\n"', b"x" * 1024, 300_000, b'"\\ngood\\n')))""",
        (3, 1),
    ),
    "a line of 300 MB in UTF-16": (
        """measure("a.txt", lambda: io.BufferedReader(
            Endless(b"\\xff\\xfea\\0\\n\\0", b"x\\0" * 512, 300_000, b"\\n\\0b\\0")))""",
        (3, 1),
    ),
    "a quote that is never closed": (
        """measure("a.csv", lambda: io.BufferedReader(
            Endless(b'text\\n"', b"short line\\n" * 1024, 3_000, b"\\n")))""",
        (3072 * 1000, 1),
    ),
    "a gzip bomb": (
        """import zlib
packer = zlib.compressobj(9, zlib.DEFLATED, 31)
data = b"".join(packer.compress(bytes(2**20)) for _ in range(300)) + packer.flush()
measure("a.txt", lambda: io.BytesIO(data))""",
        (1, 1),
    ),
    "one long text 4,000 times in Parquet": (
        """file = io.BytesIO()
pq.write_table(pa.table({"text": pa.array(["x" * 300_000] * 4000)
    .dictionary_encode().cast(pa.dictionary(pa.int32(), pa.string()))}), file)
measure("a.parquet", lambda: io.BytesIO(file.getvalue()))""",
        (4000, 0),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_memory_is_bounded(case: str) -> None:
    code, expected = CASES[case]
    ran = subprocess.run(
        [sys.executable, "-c", READ + code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    rows, bad, grown = map(int, ran.stdout.split())
    assert (rows, bad) == expected
    assert grown < 100, f"{case}: {grown} MiB"
