"""Parquet is decoded in a child, whose memory is bounded by a setting, whatever the file says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from jobs.corpora import decoder
from jobs.corpora.decoder import Limits
from jobs.corpora.schemas import LABELLED_SCHEMA
from jobs.corpora.sources import Source
from jobs.corpora.targets import TargetKind
from jobs.errors import CorpusFailure
from jobs.kinds import Corpus, LabelledCorpus
from tests.jobs.corpora.small_corpora import source
from tests.jobs.corpora.test_text_stream import Flaky
from tests.support import hostile_parquet
from tests.support.hostile_parquet import HOSTILE, parquet

MIB = 2**20
SMALL = Limits(row_bytes=MIB, memory_bytes=64 * MIB)
LIBRARIES = 120
"""MiB that Python and Arrow take by themselves."""

MEASURE = """
import resource, sys
from pathlib import Path
from jobs.corpora import decoder
from jobs.corpora.sources import Source
from jobs.errors import CorpusFailure
from jobs.kinds import Corpus

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024

path = Path(sys.argv[1])
source = Source(name="a.parquet", fingerprint=lambda: "", open=lambda: path.open("rb"))
corpus = Corpus(file="f", text_column="text", id_column=sys.argv[2] or None)
before, code, rows = peak(), "none", 0
try:
    for batch in decoder.read(source, corpus, limits=decoder.Limits(2**20, 64 * 2**20)):
        rows += batch.num_rows
except CorpusFailure as failure:
    code = failure.code
child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
print(code, rows, peak() - before, child)
"""

Measured = tuple[str, int, int, int]


def measured(path: Path, *, id_column: str = "") -> Measured:
    """The code of the failure, rows, and MiB: what this process grew by, the child's peak."""
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), id_column],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    code, *numbers = ran.stdout.split()
    rows, grown, child = map(int, numbers)
    return code, rows, grown, child


@pytest.mark.alone
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_small_file_that_becomes_large_is_refused_in_bounded_memory(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(HOSTILE[name]())
    assert path.stat().st_size < 200_000
    code, rows, grown, child = measured(path, id_column="id" if "list" in name else "")
    assert (code, rows) == ("corpus_too_large", 0)
    assert grown < 30
    assert child < 64 + LIBRARIES


@pytest.mark.alone
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")
def test_rows_that_fit_only_one_by_one_are_read_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(hostile_parquet.one_value(MIB, rows=200))
    code, rows, _, child = measured(path)
    assert (code, rows) == ("none", 200)
    assert child < 64 + LIBRARIES


def test_the_message_names_the_setting_and_the_row() -> None:
    data = HOSTILE["a page of zstd"]()
    with pytest.raises(CorpusFailure, match=r"a.parquet cannot be read after row 0: .* 64 MiB"):
        list(decoder.read(source(data, "a.parquet"), Corpus(file="f"), limits=SMALL))


def test_rows_and_targets_come_as_from_the_reader_itself() -> None:
    data = parquet({"text": ["a", None, "c"], "label": [1, 2, None]})
    labelled = LabelledCorpus(file="f")
    found = decoder.read(
        source(data, "a.parquet"), labelled, limits=SMALL, targets=TargetKind.LABEL
    )
    (batch,) = found
    assert batch.schema == LABELLED_SCHEMA
    assert batch.column("target").to_pylist() == ["1", None, None]
    assert batch.column("error_code").to_pylist() == [None, "missing_text", "missing_target"]


def test_a_failure_of_the_reader_keeps_its_code() -> None:
    data = parquet({"n": [1]})
    with pytest.raises(CorpusFailure, match="columns found: 'n'") as caught:
        list(decoder.read(source(data, "a.parquet"), Corpus(file="f"), limits=SMALL))
    assert caught.value.code == "column_missing"


def test_a_fault_of_the_storage_stays_one() -> None:
    data = parquet({"text": [f"row {n}" for n in range(5000)]}, compression="none")
    flaky = Source(name="a.parquet", fingerprint=lambda: "", open=lambda: Flaky(data))
    with pytest.raises(TimeoutError, match="storage"):
        list(decoder.read(flaky, Corpus(file="f"), limits=SMALL))


def decoder_process() -> psutil.Process:
    """The child of this process that decodes; it may have others, such as servers."""
    children = psutil.Process().children()
    (child,) = (each for each in children if "jobs.corpora.decoder_process" in each.cmdline())
    return child


def test_a_decoder_that_dies_is_an_error_and_one_that_is_not_needed_ends() -> None:
    data = parquet({"text": ["x" * 1000] * 20_000}, use_dictionary=False, row_group_size=500)
    batches = decoder.read(source(data, "a.parquet"), Corpus(file="f"), limits=SMALL)
    next(batches)
    child = decoder_process()
    child.kill()
    with pytest.raises(MemoryError, match="its decoder was ended"):
        list(batches)
    more = decoder.read(source(data, "a.parquet"), Corpus(file="f"), limits=SMALL)
    next(more)
    child = decoder_process()
    del more  # closes the generator
    assert not child.is_running()


def test_a_decoder_has_no_secret_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NIGHTSHIFT_DATABASE_URL", "REDIS_URL", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, "hush")
    data = parquet({"text": ["x" * 1000] * 20_000}, use_dictionary=False)
    batches = decoder.read(source(data, "a.parquet"), Corpus(file="f"), limits=SMALL)
    next(batches)
    child = decoder_process()
    assert "hush" not in child.environ().values()
