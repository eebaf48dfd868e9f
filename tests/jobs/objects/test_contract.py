"""One contract for every object store: a local folder and a real S3 server keep it alike."""

from __future__ import annotations

import csv
import gc
import io
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import obstore
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import objects
from jobs.errors import BadRequest
from jobs.objects import ObjectStore
from tests.support.seaweed import BUCKET, S3

MIB = 2**20


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "folder":
        return (tmp_path / "objects").as_uri()
    server: S3 = request.getfixturevalue("s3")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid4()}"


@pytest.fixture
def store(url: str) -> ObjectStore:
    return objects.connect(url)


@pytest.fixture
def leftovers(url: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[str]]:
    """What an aborted write left in the store; filled when the test asks, checked to be empty."""
    found: list[str] = []
    yield found
    if url.startswith("s3:"):
        found += request.getfixturevalue("s3").unfinished_uploads()
    else:
        found += [str(path) for path in tmp_path.rglob("*") if path.is_file()]
    assert found == []


def test_what_was_put_is_what_is_got(store: ObjectStore) -> None:
    store.put("a/b", b"\x00\xffdata")
    assert store.get("a/b") == b"\x00\xffdata"


def test_a_folder_is_deleted_but_for_what_is_kept(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "DELETED_AT_ONCE", 2)
    for key in ("job/a", "job/b/1", "job/b/2", "job/b/3", "job/kept", "jobs/other"):
        store.put(key, b"bytes")
    assert store.delete_folder("job", keep={"job/kept"}) == 4
    assert sorted(store.keys("")) == ["job/kept", "jobs/other"]
    assert store.delete_folder("job") == 1
    assert store.delete_folder("job") == 0


def test_keys_that_are_gone_already_do_not_keep_the_others(store: ObjectStore) -> None:
    store.put("last", b"bytes")
    store.delete_all(["first", "second", "last"])
    store.delete_all([])
    assert not store.exists("last")


def test_a_stream_may_begin_and_end_anywhere(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("digits", b"0123456789")
    monkeypatch.setattr(objects, "PART", 4)
    for start, end in ((0, 10), (3, 9), (9, 10), (4, 4)):
        expected = b"0123456789"[start:end]
        assert b"".join(store.stream("digits", start=start, end=end)) == expected
    assert b"".join(store.stream("digits", start=7)) == b"789"


def test_a_put_replaces(store: ObjectStore) -> None:
    store.put("a", b"long old value")
    store.put("a", b"new")
    assert store.get("a") == b"new"


def test_a_big_put_is_whole(store: ObjectStore) -> None:
    data = os.urandom(20 * MIB)
    store.put("big", data)
    assert store.get("big") == data


def test_a_view_of_bytes_is_put_as_they_are(store: ObjectStore) -> None:
    data = os.urandom(12 * MIB)
    store.put("view", memoryview(data)[1:])
    assert store.get("view") == data[1:]


def test_an_empty_object_is_an_object(store: ObjectStore) -> None:
    store.put("empty", b"")
    assert store.exists("empty")
    assert store.size("empty") == 0
    assert store.get("empty") == store.reader("empty").read() == b"".join(store.stream("empty"))


def test_size_is_in_bytes(store: ObjectStore) -> None:
    store.put("umlaut", "äöü".encode())
    assert store.size("umlaut") == 6


def test_one_of_eight_concurrent_creators_wins(store: ObjectStore) -> None:
    barrier = threading.Barrier(8)

    def create(number: int) -> bool:
        barrier.wait()
        return store.create("claimed", b"%d" % number)

    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(create, range(8)))
    assert won.count(True) == 1
    assert store.get("claimed") == b"%d" % won.index(True)


def test_create_leaves_what_is_there(store: ObjectStore) -> None:
    store.put("a", b"first")
    assert not store.create("a", b"second")
    assert store.get("a") == b"first"


def test_keys_lists_a_folder_and_what_is_below_it(store: ObjectStore) -> None:
    for key in ("jobs/1/a", "jobs/1/b/c", "jobs/10/a", "other"):
        store.put(key, b"")
    assert sorted(store.keys("jobs/1")) == ["jobs/1/a", "jobs/1/b/c"]
    assert sorted(store.keys("jobs/1/")) == ["jobs/1/a", "jobs/1/b/c"]
    assert list(store.keys("none")) == []


def test_a_listing_is_complete_beyond_one_page(store: ObjectStore) -> None:
    keys = [f"many/{number:04}" for number in range(1_100)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda key: store.put(key, b"."), keys))
    assert sorted(store.keys("many")) == keys


def test_a_deleted_object_is_gone(store: ObjectStore) -> None:
    store.put("a", b"1")
    store.delete("a")
    assert not store.exists("a")


def test_deleting_twice_is_no_error(store: ObjectStore) -> None:
    store.put("a", b"1")
    store.delete("a")
    store.delete("a")
    store.delete("never/there")


@pytest.mark.parametrize("key", ["ü/日本語/naïve file.txt", "a b/c%20d", "q?x=1&y", "x+y=z~"])
def test_any_printable_key_is_kept(store: ObjectStore, key: str) -> None:
    store.put(key, key.encode())
    assert store.get(key) == key.encode()
    assert list(store.keys("")) == [key]


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "..", "../x", "a/../../x", "a//b", "a/", "./a", "a\\b", "a\nb", "a#1"],
)
def test_a_key_that_could_leave_the_root_or_change_is_refused(store: ObjectStore, key: str) -> None:
    with pytest.raises(BadRequest, match="relative path"):
        store.put(key, b"1")
    with pytest.raises(BadRequest, match="relative path"):
        store.get(key)


def test_a_missing_key_is_file_not_found(store: ObjectStore) -> None:
    for read in (store.get, store.size, store.reader, store.stream):
        with pytest.raises(FileNotFoundError):
            read("not/there")
    assert not store.exists("not/there")


def test_a_reader_is_a_file(store: ObjectStore) -> None:
    store.put("digits", b"0123456789")
    with store.reader("digits") as file:
        assert (file.seekable(), file.readable(), file.writable()) == (True, True, False)
        assert file.read(3) == b"012"
        assert file.seek(-2, io.SEEK_END) == 8
        assert file.read() == b"89"
        assert file.read() == b""
        assert file.seek(100) == 100
        assert file.read(1) == b""
        assert file.seek(1) == 1
        assert file.tell() == 1
        assert file.readline() == b"123456789"
        with pytest.raises(OSError, match="at least 0"):
            file.seek(-1)


def test_a_reader_of_many_buffers_gives_every_byte(store: ObjectStore) -> None:
    data = os.urandom(3 * objects.READ_BUFFER + 17)
    store.put("random", data)
    with store.reader("random") as file:
        assert b"".join(iter(lambda: file.read(100_003), b"")) == data


def test_csv_reads_through_a_text_wrapper(store: ObjectStore) -> None:
    store.put("table.csv", 'text,label\n"two\nlines",ü\n'.encode())
    with io.TextIOWrapper(store.reader("table.csv"), "utf-8", newline="") as text:
        assert list(csv.reader(text)) == [["text", "label"], ["two\nlines", "ü"]]


def test_a_stream_gives_every_byte_in_bounded_blocks(store: ObjectStore) -> None:
    data = os.urandom(2 * objects.PART + 5)
    store.put("random", data)
    blocks = list(store.stream("random"))
    assert b"".join(blocks) == data
    assert max(map(len, blocks)) <= objects.PART


def test_parquet_is_written_and_read(store: ObjectStore) -> None:
    table = pa.table({"row": range(1000), "text": [f"text {row}" for row in range(1000)]})
    with store.writer("t.parquet") as file, pq.ParquetWriter(file, table.schema) as parquet:
        parquet.write_table(table, row_group_size=100)
    assert pq.ParquetFile(store.reader("t.parquet")).read().equals(table)


def test_parquet_reads_only_the_ranges_it_needs(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table({"data": [os.urandom(2 * MIB) for _ in range(16)]})
    with store.writer("t.parquet") as file:
        pq.write_table(table, file, row_group_size=1, compression="none")
    fetched: list[int] = []
    get_range = obstore.get_range

    def counting(*place: Any, start: int, end: int) -> obstore.Bytes:
        fetched.append(end - start)
        return get_range(*place, start=start, end=end)

    monkeypatch.setattr(obstore, "get_range", counting)
    group = pq.ParquetFile(store.reader("t.parquet")).read_row_group(9)
    assert group.equals(table.slice(9, 1))
    assert sum(fetched) < 8 * MIB


def test_a_written_object_appears_at_the_end_and_not_before(store: ObjectStore) -> None:
    with store.writer("late") as file:
        file.write(b"x" * (9 * MIB))
        assert not store.exists("late")
        assert list(store.keys("")) == []
    assert store.size("late") == 9 * MIB


@pytest.mark.alone
def test_a_big_object_is_written_in_bounded_memory(store: ObjectStore) -> None:
    process = psutil.Process()
    block = os.urandom(MIB)
    store.put("warm", block)
    before = process.memory_info().rss
    peak = 0
    with store.writer("big") as file:
        for _ in range(200):
            file.write(block)
            peak = max(peak, process.memory_info().rss)
    assert store.size("big") == 200 * MIB
    assert peak - before < 80 * MIB


@pytest.mark.usefixtures("leftovers")
@pytest.mark.parametrize("written", [0, 10, 30 * MIB])
def test_an_aborted_writer_leaves_nothing(store: ObjectStore, written: int) -> None:
    def write() -> None:
        with store.writer("never") as file:
            file.write(b"x" * written)
            raise KeyError

    with pytest.raises(KeyError):
        write()
    assert not store.exists("never")
    assert list(store.keys("")) == []


@pytest.mark.usefixtures("leftovers")
def test_an_aborted_parquet_file_leaves_nothing(store: ObjectStore) -> None:
    table = pa.table({"row": range(10)})

    def write() -> None:
        with store.writer("never") as file, pq.ParquetWriter(file, table.schema) as parquet:
            parquet.write_table(table)
            raise KeyError

    with pytest.raises(KeyError):
        write()
    assert not store.exists("never")


def test_a_writer_that_was_dropped_publishes_nothing(store: ObjectStore) -> None:
    context = store.writer("dropped")
    context.__enter__().write(b"half")
    del context
    gc.collect()
    assert not store.exists("dropped")


def test_a_text_wrapper_that_closes_the_file_still_ends_as_the_block_does(
    store: ObjectStore,
) -> None:
    with (
        store.writer("rows.csv") as file,
        io.TextIOWrapper(file, "utf-8", newline="") as text,
    ):
        csv.writer(text).writerow(["ü", 1])
    assert store.get("rows.csv") == "ü,1\r\n".encode()


def test_a_read_only_store_cannot_be_written_through_a_reader(store: ObjectStore) -> None:
    store.put("a", b"1")
    with store.reader("a") as file, pytest.raises(io.UnsupportedOperation):
        file.write(b"2")
